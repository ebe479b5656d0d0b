"""The feature extractor: components, shrinkage, missingness as noise, and what it learns from."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any

import allel
import numpy as np
import pandas as pd
import pytest
from helpers import make_variants
from hypothesis import given, settings
from hypothesis import strategies as st
from simulate import balding_nichols

from ancestry_ddvi.errors import NotEnoughDataError, OptionError
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.preprocessing.alignment import Matched
from ancestry_ddvi.preprocessing.features import (
    FeatureConfig,
    FeatureExtractor,
    Features,
)

CONFIG = FeatureConfig(n_pcs=5)
"""Five components: three between four populations, and two of noise."""

LEARNT = ("allele_frequency", "loadings", "eigenvalue", "shrinkage")


@cache
def simulated() -> tuple[GenotypeMatrix, np.ndarray]:
    """Four populations of 60 samples."""
    return balding_nichols(60, 2000, 0.05, 4, seed=0)


@cache
def fitted() -> tuple[FeatureExtractor, Features, np.ndarray]:
    """An extractor that learnt from two samples in three, all features, and the training mask."""
    train = np.arange(240) % 3 > 0
    extractor = FeatureExtractor(CONFIG)
    return extractor, extractor.fit_transform(simulated()[0], train=train), train


def with_dosage(genotypes: GenotypeMatrix, dosage: np.ndarray) -> GenotypeMatrix:
    """Other genotypes of the same samples and variants."""
    return dataclasses.replace(genotypes, dosage=dosage)


def with_variants(genotypes: GenotypeMatrix, **columns: Any) -> GenotypeMatrix:
    """The same genotypes under other entries of the variant table."""
    return dataclasses.replace(genotypes, variants=genotypes.variants.assign(**columns))


def masked(genotypes: GenotypeMatrix, share: float, seed: int) -> GenotypeMatrix:
    """Drop a random share of all genotypes."""
    drop = np.random.default_rng(seed).random(genotypes.dosage.shape) < share
    return with_dosage(genotypes, np.where(drop, np.int8(-1), genotypes.dosage))


def population_means(x: np.ndarray, population: np.ndarray) -> np.ndarray:
    """(n_populations, K) centroids."""
    return np.array([x[population == name].mean(axis=0) for name in np.unique(population)])


# ---------------------------------------------------------------- principal components


def test_components_by_hand() -> None:
    """Two groups that differ at every variant: one component, worked out exactly.

    p = 1/2 everywhere, so X is -sqrt(2) in one group and sqrt(2) in the other, every entry of A
    is 2 or -2, its eigenvalue is 2 n and its floor 2.
    """
    n, m = 24, 30
    second = np.arange(n) >= n // 2
    dosage = np.repeat(np.where(second, 2, 0)[:, None], m, axis=1).astype(np.int8)
    genotypes = GenotypeMatrix(dosage, np.arange(n).astype(str), make_variants(m))
    extractor = FeatureExtractor(FeatureConfig(n_pcs=3, ld_max_r2=1))
    features = extractor.fit_transform(genotypes)
    # The data span one component, so the two others asked for do not exist.
    np.testing.assert_allclose(extractor.eigenvalue, [2 * n], rtol=1e-5)
    # No eigenvalue is left to show linkage, so g = m / n = 5/4, and the spike solves
    # L (1 + g / (L - 1)) = g l / floor = 30.
    spike = max(np.roots([1, 5 / 4 - 1 - 30, 30]))
    rho = (spike - 1) / (spike + 1 / 4)
    np.testing.assert_allclose(extractor.shrinkage, [rho], rtol=1e-5)
    np.testing.assert_allclose(np.abs(extractor.loadings), 1 / np.sqrt(m), rtol=1e-5)
    assert extractor.unit == n / m
    expected = np.sqrt(2 * n) * rho * np.where(second, 1, -1)
    sign = np.sign(features.x[-1, 0])
    np.testing.assert_allclose(features.x[:, 0] * sign, expected, rtol=1e-5)


def test_components_against_scikit_allel() -> None:
    """Scores before shrinkage, and eigenvalues, against a float64 SVD of the same scaling.

    scikit-allel scales by sqrt(p (1 - p)), without the 2, and does not divide by the number of
    variants: hence the units. Our relationship matrix is in single precision, which leaves an
    error of about 1e-5 of a score's spread to components well apart, and more to those of noise,
    whose eigenvalues lie close together.
    """
    genotypes, _ = simulated()
    config = dataclasses.replace(CONFIG, scaling=0.5, n_local=0, min_maf=0, ld_max_r2=1)
    extractor = FeatureExtractor(config)
    features = extractor.fit_transform(genotypes)
    used = (genotypes.dosage > 0).any(axis=0) & (genotypes.dosage < 2).any(axis=0)
    scores, model = allel.pca(
        genotypes.dosage[:, used].T.astype(float), n_components=5, scaler="patterson", copy=True
    )
    assert len(extractor.variants) == used.sum()
    ours = features.x / extractor.shrinkage
    theirs = scores * np.sqrt(extractor.unit / 2)
    theirs *= np.sign((ours * theirs).sum(axis=0))
    spread = ours.std(axis=0)
    np.testing.assert_allclose(ours[:, :3] / spread[:3], theirs[:, :3] / spread[:3], atol=1e-4)
    np.testing.assert_allclose(ours / spread, theirs / spread, atol=1e-3)
    assert not np.allclose(features.x[:, :3], theirs[:, :3], rtol=0.05)
    n = genotypes.n_samples
    eigenvalue = model.explained_variance_ * n / used.sum() / 2
    np.testing.assert_allclose(extractor.eigenvalue, eigenvalue, rtol=1e-5)


def test_units() -> None:
    """Loadings have unit columns; the RMS of training scores is sqrt(l) rho."""
    extractor, features, train = fitted()
    gram = extractor.loadings.T.astype(float) @ extractor.loadings
    np.testing.assert_allclose(gram, np.eye(5), atol=1e-5)
    rms = np.sqrt((features.x[train] ** 2).mean(axis=0))
    np.testing.assert_allclose(rms, np.sqrt(extractor.eigenvalue) * extractor.shrinkage, rtol=1e-4)


def test_sign_of_a_component_is_fixed() -> None:
    _, features, train = fitted()
    x = features.x[train]
    assert (x[np.abs(x).argmax(axis=0), range(5)] > 0).all()


def test_linked_copies_earn_no_component() -> None:
    """A block of 200 copies of one variant; the control without pruning puts it first."""
    genotypes, _ = balding_nichols(40, 1000, 0.02, 2, seed=1)
    dosage = genotypes.dosage.copy()
    dosage[:, :200] = dosage[:, :1]
    genotypes = with_dosage(genotypes, dosage)
    share = {}
    for max_r2 in (0.2, 1.0):
        extractor = FeatureExtractor(FeatureConfig(n_pcs=1, ld_max_r2=max_r2))
        extractor.fit_transform(genotypes)
        block = np.isin(extractor.variants["id"], genotypes.variants["id"][:200])
        share[max_r2] = float((extractor.loadings[block] ** 2).sum())
    assert share[0.2] < 0.05
    assert share[1.0] > 0.9


def test_of_linked_variants_the_more_common_is_used() -> None:
    genotypes, _ = simulated()
    dosage = genotypes.dosage.copy()
    dosage[:, 1::2] = np.where(np.arange(240)[:, None] < 40, 0, dosage[:, ::2])
    extractor = FeatureExtractor(dataclasses.replace(CONFIG, ld_window=2, ld_step=2))
    extractor.fit_transform(with_dosage(genotypes, dosage))
    maf = np.minimum(extractor.allele_frequency, 1 - extractor.allele_frequency)
    pairs = np.minimum(dosage.mean(axis=0), 2 - dosage.mean(axis=0)).reshape(-1, 2) / 2
    linked = np.array([np.corrcoef(dosage[:, [j, j + 1]].T)[0, 1] for j in range(0, 2000, 2)])
    assert (linked**2 > 0.2).sum() > 900
    expected = pairs[linked**2 > 0.2].max(axis=1)
    assert set(expected.round(6)) <= set(maf.round(6))


# ---------------------------------------------------------------- shrinkage


def test_new_samples_fall_where_training_samples_of_their_population_lie() -> None:
    """Without rho they do not: that is the control.

    Squared distances between the two centroids, in standard errors of the centroid of the new
    samples, average about 2 over 4 populations x 3 components if there is no bias, since both
    centroids have an error; 1 to 3.4 was seen over seeds, and 220 to 300 without rho.
    """
    genotypes, population = balding_nichols(80, 2500, 0.02, 4, seed=2)
    new = np.arange(320) % 2 == 0
    extractor = FeatureExtractor(FeatureConfig(n_pcs=3))
    x = extractor.fit_transform(genotypes, train=~new).x
    assert extractor.shrinkage.max() < 0.75
    there = population_means(x[new], population[new])
    spread = np.array([x[new & (population == p)].std(axis=0) for p in np.unique(population)])
    standard_error = spread / np.sqrt(40)
    here = population_means(x[~new], population[~new])
    corrected = ((there - here) / standard_error) ** 2
    uncorrected = ((there - here / extractor.shrinkage) / standard_error) ** 2
    assert corrected.mean() < 4
    assert uncorrected.mean() > 100
    slope = (there * here).sum(axis=0) / (here**2).sum(axis=0)
    np.testing.assert_allclose(slope, 1, atol=0.1)


def test_components_of_noise_spread_alike_in_training_and_new_samples() -> None:
    """One population has no structure, and a cohort of 40 has components below the floor."""
    genotypes, _ = balding_nichols(540, 1500, 0.05, 1, seed=3)
    train = np.arange(540) < 40
    extractor = FeatureExtractor(FeatureConfig(n_pcs=38))
    x = extractor.fit_transform(genotypes, train=train).x
    assert extractor.eigenvalue[-1] < 0.8 < 1.2 < extractor.eigenvalue[0]
    ratio = x[train].std(axis=0) / x[~train].std(axis=0)
    np.testing.assert_allclose(ratio, 1, atol=0.15)


def test_components_spread_alike_in_training_and_new_samples() -> None:
    """Strong, weak and absent structure in one fit; without rho some spread twice as far."""
    genotypes, _ = balding_nichols(150, 4000, 0.02, 8, seed=4)
    train = np.random.default_rng(0).random(1200) < 0.5
    extractor = FeatureExtractor(FeatureConfig(n_pcs=15, n_local=0))
    x = extractor.fit_transform(genotypes, train=train).x
    ratio = np.sqrt((x[train] ** 2).mean(axis=0) / (x[~train] ** 2).mean(axis=0))
    np.testing.assert_allclose(ratio, 1, atol=0.15)
    assert (ratio / extractor.shrinkage).max() > 2


def test_linkage_that_pruning_left_is_allowed_for() -> None:
    """Each variant twice: the components of noise spread as of half as many variants."""
    genotypes, _ = balding_nichols(300, 1000, 0.05, 1, seed=5)
    twice = GenotypeMatrix(
        np.repeat(genotypes.dosage, 2, axis=1), genotypes.sample_id, make_variants(2000)
    )
    config = FeatureConfig(n_pcs=5, ld_max_r2=1)
    once = FeatureExtractor(config).fit(genotypes)
    linked = FeatureExtractor(config).fit(twice)
    np.testing.assert_allclose(linked.shrinkage, once.shrinkage, rtol=0.05)
    assert once.unit == 2 * linked.unit


def test_fit_learns_what_fit_transform_learns() -> None:
    genotypes, _ = simulated()
    one, other = FeatureExtractor(CONFIG), FeatureExtractor(CONFIG)
    assert one.fit(genotypes) is one
    other.fit_transform(genotypes)
    np.testing.assert_array_equal(one.loadings, other.loadings)
    np.testing.assert_array_equal(one.transform(genotypes).x, other.transform(genotypes).x)


# ---------------------------------------------------------------- missingness as noise


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_missing_genotypes_add_the_noise_they_are_said_to(share: float) -> None:
    """Unbiased (slope 1, mean error 0), and of the variance reported, component by component.

    80 new samples x 12 masks: the standard error of a variance of 960 errors is 5 %, and the
    residual variance of a variant within a population is 1 - FST of the one assumed.
    """
    genotypes, _ = simulated()
    extractor, features, train = fitted()
    new = genotypes.select(samples=~train)
    complete = features.x[~train]
    errors, noise, slopes = [], [], []
    for seed in range(12):
        placed = extractor.transform(masked(new, share, seed))
        errors.append(placed.x - complete)
        noise.append(placed.noise)
        slopes.append((placed.x * complete).sum(axis=0) / (complete**2).sum(axis=0))
    error = np.concatenate(errors)
    variance = float(np.mean(np.concatenate(noise) ** 2))
    np.testing.assert_allclose(error.var(axis=0), variance, rtol=0.15)
    np.testing.assert_allclose(error.var(axis=0).mean(), variance, rtol=0.1)
    assert np.abs(error.mean(axis=0)).max() < 4 * np.sqrt(variance / len(error))
    # Scores that treat missing as the mean would have a slope of 1 - share.
    np.testing.assert_allclose(np.mean(slopes, axis=0)[:3], 1, atol=0.05)
    # The rule of thumb of the module's docstring.
    assert variance == pytest.approx(extractor.unit * share / (1 - share), rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_one_allele_a_site_adds_the_noise_it_is_said_to(share: float) -> None:
    """Unbiased, and of twice the variance, as though of half as many variants."""
    genotypes, _ = simulated()
    extractor, features, train = fitted()
    new = genotypes.select(samples=~train)
    errors, noise = [], []
    for seed in range(12):
        drawn = np.random.default_rng(seed).random(new.dosage.shape) < 0.5
        once = np.where(new.dosage == 1, 2 * drawn, new.dosage).astype(np.int8)
        placed = extractor.transform(masked(with_dosage(new, once), share, seed))
        assert placed.haploid is not None
        assert placed.haploid.all()
        errors.append(placed.x - features.x[~train])
        noise.append(placed.noise)
    variance = float(np.mean(np.concatenate(noise) ** 2))
    assert variance == pytest.approx(extractor.unit * (2 / (1 - share) - 1), rel=0.05)
    # The variance within a population is 1 - FST of the one assumed.
    np.testing.assert_allclose(np.concatenate(errors).var(axis=0).mean(), variance, rtol=0.2)
    assert features.haploid is not None
    assert not features.haploid.any()


def test_noise_is_zero_for_complete_samples_and_infinite_for_empty_ones() -> None:
    genotypes, _ = simulated()
    extractor, features, _ = fitted()
    dosage = genotypes.dosage.copy()
    dosage[0] = -1
    dosage[1, ::2] = -1
    placed = extractor.transform(with_dosage(genotypes, dosage))
    assert placed.noise[0] == np.inf
    assert (placed.x[0] == 0).all()
    assert 0 < placed.noise[1] < np.inf
    assert (placed.noise[2:] == 0).all()
    assert (features.noise == 0).all()


@settings(deadline=None, max_examples=15)
@given(st.floats(0, 0.9), st.floats(0, 0.09), st.integers(0, 10**6))
def test_noise_grows_with_missingness(share: float, more: float, seed: int) -> None:
    genotypes, _ = simulated()
    extractor, _, _ = fitted()
    few = genotypes.select(samples=np.arange(3))
    drop = np.random.default_rng(seed).random(few.dosage.shape)
    less, most = (
        extractor.transform(with_dosage(few, np.where(drop < s, np.int8(-1), few.dosage))).noise
        for s in (share, share + more)
    )
    assert (less <= most + 1e-6).all()


def test_a_few_genotypes_are_enough_to_be_placed_with_huge_noise() -> None:
    """Fewer calls than components: nothing is known of some directions, and nothing overflows."""
    genotypes, _ = simulated()
    extractor, _, _ = fitted()
    dosage = np.full((1, genotypes.n_variants), -1, dtype=np.int8)
    used = genotypes.variants["id"].isin(extractor.variants["id"]).to_numpy()
    dosage[0, np.flatnonzero(used)[:3]] = 1
    sample = dataclasses.replace(genotypes, dosage=dosage, sample_id=np.array(["S"]))
    placed = extractor.transform(sample)
    assert np.isfinite(placed.x).all()
    assert 10 < placed.noise[0] < np.inf


# ---------------------------------------------------------------- learnt from training samples


def test_nothing_is_learnt_from_other_samples() -> None:
    genotypes, _ = simulated()
    extractor, features, train = fitted()
    dosage = genotypes.dosage.copy()
    dosage[~train] = np.random.default_rng(1).integers(-1, 3, dosage[~train].shape)
    other = FeatureExtractor(CONFIG)
    changed = other.fit_transform(with_dosage(genotypes, dosage), train=train)
    for name in LEARNT:
        np.testing.assert_array_equal(getattr(other, name), getattr(extractor, name))
    assert other.funnel == extractor.funnel
    pd.testing.assert_frame_equal(other.variants, extractor.variants)
    np.testing.assert_array_equal(other.trained_on, train)
    np.testing.assert_allclose(changed.x[train], features.x[train], atol=1e-5)
    assert not np.allclose(changed.x[~train], features.x[~train], atol=0.1)


def test_training_on_a_mask_is_training_on_those_samples_alone() -> None:
    genotypes, _ = simulated()
    extractor, _, train = fitted()
    alone = FeatureExtractor(CONFIG)
    alone.fit_transform(genotypes.select(samples=train))
    for name in LEARNT:
        np.testing.assert_array_equal(getattr(alone, name), getattr(extractor, name))
    assert alone.trained_on.all()


def test_badly_called_samples_are_placed_but_not_learnt_from() -> None:
    genotypes, population = simulated()
    dosage = genotypes.dosage.copy()
    bad = np.arange(240) % 12 == 0
    dosage[bad] = masked(genotypes, 0.5, seed=0).dosage[bad]
    extractor = FeatureExtractor(CONFIG)
    features = extractor.fit_transform(with_dosage(genotypes, dosage))
    np.testing.assert_array_equal(extractor.trained_on, ~bad)
    assert (features.noise[bad] > 0).all()
    assert (features.noise[~bad] == 0).all()
    centroid = population_means(features.x[~bad], population[~bad])[:, :3]
    nearest = np.linalg.norm(features.x[bad, None, :3] - centroid, axis=2).argmin(axis=1)
    assert (np.unique(population)[nearest] == population[bad]).all()


def test_all_is_trained_on_by_default_and_masks_only_take_away() -> None:
    genotypes, _ = simulated()
    dosage = genotypes.dosage.copy()
    dosage[5] = -1
    train = np.arange(240) >= 4
    extractor = FeatureExtractor(CONFIG)
    extractor.fit_transform(with_dosage(genotypes, dosage), train=train)
    np.testing.assert_array_equal(np.flatnonzero(~extractor.trained_on), [0, 1, 2, 3, 5])
    np.testing.assert_array_equal(train, np.arange(240) >= 4)


@pytest.mark.parametrize("missing", [0.0, 0.02])
def test_training_rows_are_transformed_rows_times_shrinkage(missing: float) -> None:
    genotypes, _ = simulated()
    genotypes = masked(genotypes, missing, seed=4)
    train = np.arange(240) % 3 > 0
    extractor = FeatureExtractor(CONFIG)
    features = extractor.fit_transform(genotypes, train=train)
    placed = extractor.transform(genotypes)
    np.testing.assert_allclose(
        features.x[train], placed.x[train] * extractor.shrinkage, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(features.x[~train], placed.x[~train], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(features.noise, placed.noise, rtol=1e-6, atol=1e-9)
    assert (placed.noise > 0).all() == (missing > 0)


def test_two_fits_are_equal_to_the_bit() -> None:
    genotypes, _ = simulated()
    extractor, features, train = fitted()
    np.random.seed(0)  # eigsh without a start vector would draw one from here
    again = FeatureExtractor(CONFIG)
    repeated = again.fit_transform(genotypes, train=train)
    for name in LEARNT:
        np.testing.assert_array_equal(getattr(again, name), getattr(extractor, name))
    np.testing.assert_array_equal(repeated.x, features.x)
    np.testing.assert_array_equal(repeated.noise, features.noise)


def test_counted_allele_changes_no_feature() -> None:
    genotypes, _ = simulated()
    _, features, train = fitted()
    dosage = genotypes.dosage.copy()
    dosage[:, ::3] = 2 - dosage[:, ::3]
    other = FeatureExtractor(CONFIG).fit_transform(with_dosage(genotypes, dosage), train=train)
    sign = np.sign((other.x * features.x).sum(axis=0))
    np.testing.assert_allclose(other.x[:, :3] * sign[:3], features.x[:, :3], atol=1e-3)


# ---------------------------------------------------------------- new files


@pytest.mark.parametrize("prefix", ["", "chr", "CHR", "Chr"])
def test_variants_are_matched_whatever_their_order_naming_and_alleles(prefix: str) -> None:
    genotypes, _ = simulated()
    extractor, _, _ = fitted()
    genotypes = masked(genotypes, 0.1, seed=5)
    expected = extractor.transform(genotypes)
    swap = np.arange(genotypes.n_variants) % 2 == 0
    dosage = genotypes.dosage.copy()
    turned = dosage[:, swap]
    dosage[:, swap] = np.where(turned < 0, turned, 2 - turned)
    other = with_variants(
        with_dosage(genotypes, dosage),
        contig=prefix + genotypes.variants["contig"],
        ref=np.where(swap, "C", "A"),
        alt=np.where(swap, "A", "C"),
    )
    other = other.select(variants=np.random.default_rng(6).permutation(genotypes.n_variants))
    placed = extractor.transform(other)
    np.testing.assert_array_equal(placed.x, expected.x)
    np.testing.assert_array_equal(placed.noise, expected.noise)
    # The model's own names may be of any style as well.
    again = FeatureExtractor.from_state(*extractor.state(), extractor.variants)
    again.variants = again.variants.assign(contig="cHr" + again.variants["contig"])
    np.testing.assert_array_equal(again.transform(other).x, expected.x)


def test_what_a_file_has_of_the_variants_is_counted() -> None:
    genotypes, _ = simulated()
    extractor, features, _ = fitted()
    n_used = len(extractor.variants)
    assert features.matched is None
    assert extractor.transform(genotypes).matched == Matched(n_used, 0, 0)
    place = pd.Index(genotypes.variants["id"]).get_indexer(extractor.variants["id"])
    swap = np.isin(np.arange(genotypes.n_variants), place[:7])
    swapped = with_variants(
        genotypes, ref=np.where(swap, "C", "A"), alt=np.where(swap, "A", "C")
    ).select(variants=np.delete(np.arange(genotypes.n_variants), place[-3:]))
    matched = extractor.transform(swapped).matched
    assert matched == Matched(n_used - 10, 7, 3)
    assert matched.found == n_used - 3


@pytest.mark.parametrize("column", ["contig", "position", "ref", "alt"])
def test_other_variants_are_missing(column: str) -> None:
    """Half of the variants, absent from the file or different in one key, count as not called."""
    genotypes, _ = simulated()
    extractor, _, _ = fitted()
    half = np.arange(genotypes.n_variants) % 2 == 0
    dosage = genotypes.dosage.copy()
    dosage[:, half] = -1
    expected = extractor.transform(with_dosage(genotypes, dosage))
    absent = extractor.transform(genotypes.select(variants=~half))
    np.testing.assert_array_equal(absent.x, expected.x)
    np.testing.assert_array_equal(absent.noise, expected.noise)
    value = {"contig": "3", "position": 7, "ref": "T", "alt": "G"}[column]
    renamed = genotypes.variants[column].where(~half, value)
    different = extractor.transform(with_variants(genotypes, **{column: renamed}))
    np.testing.assert_array_equal(different.x, expected.x)
    np.testing.assert_array_equal(different.noise, expected.noise)


def test_sites_with_several_records() -> None:
    """Records that share a position are told apart by their alleles; of equal ones, the first."""
    genotypes, _ = simulated()
    position = genotypes.variants["position"].to_numpy().copy()
    alt = np.full(genotypes.n_variants, "C")
    position[1::2] = position[::2]
    alt[1::2] = "G"
    genotypes = with_variants(genotypes, position=position, alt=alt)
    extractor = FeatureExtractor(CONFIG)
    train = np.arange(240) % 3 > 0
    features = extractor.fit_transform(genotypes, train=train)
    assert extractor.variants.duplicated(["contig", "position"]).any()
    new = genotypes.select(samples=~train)
    # Matrix products of other shapes round otherwise, in single precision.
    np.testing.assert_allclose(extractor.transform(new).x, features.x[~train], atol=5e-5)
    twice = GenotypeMatrix(
        np.hstack([new.dosage, np.zeros_like(new.dosage)]),
        new.sample_id,
        pd.concat([new.variants, new.variants], ignore_index=True),
    )
    np.testing.assert_array_equal(extractor.transform(twice).x, extractor.transform(new).x)


def test_no_variant_in_common_is_an_error() -> None:
    genotypes, _ = simulated()
    extractor, _, _ = fitted()
    n_used = len(extractor.variants)
    far = with_variants(genotypes, position=genotypes.variants["position"] + 1)
    with pytest.raises(NotEnoughDataError, match=rf"0 of the {n_used:,} variants.*build"):
        extractor.transform(far)
    used = genotypes.variants["id"].isin(extractor.variants["id"]).to_numpy()
    with pytest.raises(NotEnoughDataError, match=r"4 of the .* variants of the map .* and 5 are"):
        extractor.transform(genotypes.select(variants=np.flatnonzero(used)[:4]))
    extractor.transform(genotypes.select(variants=np.flatnonzero(used)[:5]))


def test_state_round_trip() -> None:
    genotypes, _ = simulated()
    extractor, _, _ = fitted()
    arrays, settings_ = extractor.state()
    again = FeatureExtractor.from_state(
        {name: array.copy() for name, array in arrays.items()},
        json.loads(json.dumps(settings_)),
        extractor.variants.copy(),
    )
    assert again.config == extractor.config
    assert again.funnel == extractor.funnel
    genotypes = masked(genotypes, 0.2, seed=7)
    expected, placed = extractor.transform(genotypes), again.transform(genotypes)
    np.testing.assert_array_equal(placed.x, expected.x)
    np.testing.assert_array_equal(placed.noise, expected.noise)


# ---------------------------------------------------------------- errors


def test_too_few_samples() -> None:
    genotypes, _ = simulated()
    with pytest.raises(NotEnoughDataError, match=r"19 samples are too few.*20.*--model DIR"):
        FeatureExtractor(CONFIG).fit_transform(genotypes.select(samples=np.arange(19)))
    FeatureExtractor(CONFIG).fit_transform(genotypes.select(samples=np.arange(20)))


def test_too_few_training_samples() -> None:
    genotypes, _ = simulated()
    dosage = genotypes.dosage.copy()
    dosage[:221, ::5] = -1
    message = r"19 of 240 training samples have a call rate of at least 0\.9, and 20 are needed"
    with pytest.raises(NotEnoughDataError, match=message + ".*--mind"):
        FeatureExtractor(CONFIG).fit_transform(with_dosage(genotypes, dosage))
    with pytest.raises(NotEnoughDataError, match=r"12 of 12 training samples.*hold out fewer"):
        FeatureExtractor(CONFIG).fit_transform(genotypes, train=np.arange(240) < 12)


def test_no_usable_variant_names_every_filter_and_its_count() -> None:
    genotypes, _ = balding_nichols(40, 40, 0.05, 1, seed=8)
    dosage = genotypes.dosage.copy()
    dosage[:, :10] = 0
    dosage[:, 10:20] = np.where(np.arange(40)[:, None] == 0, 1, 0)
    dosage[:6, 20:25] = -1
    dosage[:, 25:] = dosage[:, 25:26]
    config = FeatureConfig(min_maf=0.05, min_sample_call_rate=0.5)
    with pytest.raises(NotEnoughDataError) as caught:
        FeatureExtractor(config).fit_transform(with_dosage(genotypes, dosage))
    message = str(caught.value)
    assert "1 of 40 variants are left after the filters, and 40 are needed" in message
    assert "call rate below 0.95: 5; monomorphic: 10; MAF below 0.05: 10;" in message
    assert "linked (r2 above 0.2): 14" in message
    for option in ("--maf", "--geno", "--ld-r2"):
        assert option in message


def test_no_variants_at_all() -> None:
    genotypes, _ = simulated()
    with pytest.raises(NotEnoughDataError, match=r"0 of 0 variants are left.*none filtered"):
        FeatureExtractor(CONFIG).fit_transform(genotypes.select(variants=np.arange(0)))


@pytest.mark.parametrize(
    "changes",
    [
        {"n_pcs": 0},
        {"min_call_rate": 1.1},
        {"min_maf": 0.6},
        {"min_sample_call_rate": -0.1},
        {"ld_max_r2": float("nan")},
        {"ld_step": 0},
        {"ld_window": 10, "ld_step": 11},
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=list(changes)[-1]):
        FeatureConfig(**changes)  # type: ignore[arg-type]


def test_funnel_and_progress() -> None:
    genotypes, _ = simulated()
    seen: list[str] = []
    extractor = FeatureExtractor(CONFIG)
    extractor.fit_transform(genotypes, progress=seen.append)
    assert seen == ["filter variants", "prune linked variants", "principal components"]
    assert sum(extractor.funnel.values()) == genotypes.n_variants - len(extractor.variants)
    assert len(extractor.allele_frequency) == len(extractor.loadings) == len(extractor.variants)


def test_twenty_samples_keep_every_component_usable() -> None:
    """A small cohort: 18 components of 20 samples, none of them without spread."""
    genotypes, _ = balding_nichols(10, 500, 0.1, 2, seed=9)
    extractor = FeatureExtractor()
    features = extractor.fit_transform(genotypes)
    assert features.x.shape == (20, 18)
    assert (features.x.std(axis=0) > 0.05).all()


def test_samples_that_are_all_the_same_are_an_error() -> None:
    """All heterozygous: every variant has two alleles, and yet nobody differs from anybody."""
    dosage = np.ones((30, 200), dtype=np.int8)
    ids = np.array([f"s{i}" for i in range(30)])
    genotypes = GenotypeMatrix(dosage, ids, make_variants(200))
    with pytest.raises(NotEnoughDataError, match=r"0 of 200 .*monomorphic: 200"):
        FeatureExtractor(FeatureConfig(ld_max_r2=1)).fit_transform(genotypes)
