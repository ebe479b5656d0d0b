"""Components of one region: found where they are, on one scale, and learnt from training samples.

Two continents. One has two close populations (FST .006), the other eight that are further apart
(.03), which is where components of all samples go.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from helpers import make_variants
from scipy.linalg import block_diag

from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.preprocessing.features import FeatureConfig, FeatureExtractor, Features
from ancestry_ddvi.preprocessing.local import MIN_REGION, Denoiser, find_regions, is_shared

CONFIG = FeatureConfig(n_pcs=1, n_local=2)


@cache
def simulated(seed: int = 2) -> tuple[GenotypeMatrix, np.ndarray]:
    """160 samples of populations 0 and 1, then 50 of each of 2 to 9."""
    rng, m = np.random.default_rng(seed), 2000

    def drifted(p: np.ndarray, fst: float, n: int) -> np.ndarray:
        spread = (1 - fst) / fst
        return rng.beta(p * spread, (1 - p) * spread, (n, m)).clip(0.02, 0.98)

    first, second = drifted(rng.uniform(0.2, 0.8, m), 0.1, 2)
    frequency = np.concatenate([drifted(first, 0.006, 2), drifted(second, 0.03, 8)])
    population = np.repeat(np.arange(10), [80, 80] + [50] * 8)
    dosage = rng.binomial(2, frequency[population]).astype(np.int8)
    sample_id = np.array([f"S{i}" for i in range(len(dosage))])
    return GenotypeMatrix(dosage, sample_id, make_variants(m)), population


TRAIN = np.arange(560) % 2 > 0


@cache
def fitted(config: FeatureConfig = CONFIG) -> tuple[FeatureExtractor, Features]:
    extractor = FeatureExtractor(config)
    return extractor, extractor.fit_transform(simulated()[0], train=TRAIN)


def tells_apart(x: np.ndarray) -> np.ndarray:
    """(K,) correlation with the close populations, among their held-out samples."""
    population = simulated()[1]
    theirs = (population < 2) & ~TRAIN
    return np.array([abs(np.corrcoef(column, population[theirs])[0, 1]) for column in x[theirs].T])


# --- components ---------------------------------------------------------------------------------


def test_close_populations_are_told_apart_by_local_components_and_not_by_as_many_global() -> None:
    x = fitted()[1].x
    as_many = fitted(FeatureConfig(n_pcs=x.shape[1], n_local=0))[1].x
    assert as_many.shape == x.shape
    assert tells_apart(x).max() > 0.8
    assert tells_apart(as_many).max() < 0.5


def test_loadings_are_orthonormal() -> None:
    loadings = fitted()[0].loadings.astype(float)
    assert loadings.shape[1] > 2
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(loadings.shape[1]), atol=1e-4)


def test_held_out_scores_lie_on_the_scale_of_training_ones() -> None:
    """Spread about 1 and means alike; without its rho the component of the close populations
    spreads half as far again in training samples."""
    population, x = simulated()[1], fitted()[1].x
    k = int(tells_apart(x).argmax())
    theirs = population < 2
    ratio = x[theirs & TRAIN, k].std() / x[theirs & ~TRAIN, k].std()
    assert ratio == pytest.approx(1, abs=0.15)
    uncorrected = fitted()[0].transform(simulated()[0]).x[:, k]
    assert uncorrected[theirs & TRAIN].std() / uncorrected[theirs & ~TRAIN].std() > 1.4
    for name in (0, 1):
        of_training, of_new = (x[(population == name) & part, k].mean() for part in (TRAIN, ~TRAIN))
        standard_error = x[theirs & ~TRAIN, k].std() / np.sqrt(40)
        assert abs(of_training - of_new) < 4 * standard_error


def test_transform_gives_new_samples_the_rows_of_fit_transform() -> None:
    extractor, features = fitted()
    placed = extractor.transform(simulated()[0].select(samples=~TRAIN))
    np.testing.assert_allclose(placed.x, features.x[~TRAIN], atol=1e-4)
    assert placed.denoised is None
    state = FeatureExtractor.from_state(*extractor.state(), extractor.variants)
    again = state.transform(simulated()[0].select(samples=~TRAIN))
    np.testing.assert_array_equal(again.x, placed.x)


def test_nothing_is_learnt_from_other_samples() -> None:
    genotypes, _ = simulated()
    extractor, features = fitted()
    dosage = genotypes.dosage.copy()
    dosage[~TRAIN] = np.random.default_rng(1).integers(0, 3, dosage[~TRAIN].shape)
    other = FeatureExtractor(CONFIG)
    changed = other.fit_transform(dataclasses.replace(genotypes, dosage=dosage), train=TRAIN)
    np.testing.assert_array_equal(other.loadings, extractor.loadings)
    np.testing.assert_allclose(changed.x[TRAIN], features.x[TRAIN], atol=1e-5)
    np.testing.assert_allclose(changed.denoised, features.denoised, atol=1e-5)


def test_none_are_asked_for_and_none_are_there_to_find() -> None:
    extractor, features = fitted(dataclasses.replace(CONFIG, n_local=0))
    assert features.x.shape[1] == extractor.loadings.shape[1] == 1
    whole = fitted()[0].loadings
    # The components of all samples do not know of the local ones.
    np.testing.assert_allclose(extractor.loadings[:, 0], whole[:, 0], atol=1e-6)
    # Every variant shuffled over the samples: no structure is left.
    genotypes = simulated()[0]
    shuffled = np.random.default_rng(0).permuted(genotypes.dosage, axis=0)
    extractor = FeatureExtractor(CONFIG)
    none = extractor.fit_transform(dataclasses.replace(genotypes, dosage=shuffled), train=TRAIN)
    assert none.x.shape[1] == 1


# --- regions ------------------------------------------------------------------------------------


def blobs(sizes: list[int], seed: int = 0) -> np.ndarray:
    """(n, 2) round groups of sd 1 at distance 20 of each other, in the order given."""
    centre = 20 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])[: len(sizes)]
    x = np.repeat(centre, sizes, axis=0)
    return x + np.random.default_rng(seed).normal(size=x.shape)


def test_regions_are_the_groups_the_largest_first() -> None:
    region = find_regions(blobs([80, 200, 120]))
    expected = np.repeat([2, 0, 1], [80, 200, 120])
    np.testing.assert_array_equal(region, expected)


def test_groups_too_small_for_components_go_to_others() -> None:
    region = find_regions(blobs([200, MIN_REGION - 5, 100]))
    assert set(np.bincount(region)) & {MIN_REGION - 5} == set()
    assert np.bincount(region).min() >= MIN_REGION
    assert (find_regions(blobs([20, 20])) == 0).all()


def test_a_family_is_not_shared_and_two_populations_are() -> None:
    n = 100
    family = np.zeros(n)
    family[:3] = 1
    two = np.repeat([1.0, -1.0], n // 2)
    noise = np.random.default_rng(0).normal(size=n)
    vector = np.column_stack([family, two, noise])
    np.testing.assert_array_equal(
        is_shared(vector / np.linalg.norm(vector, axis=0)), [False, True, True]
    )


# --- denoiser -----------------------------------------------------------------------------------


def test_denoiser_of_one_region_is_the_wiener_filter() -> None:
    """E[t | x] = m + S (S + s^2 I)^-1 (x - m), with the sample's own moments."""
    rng = np.random.default_rng(0)
    half = block_diag([[2.0, 0], [1, 1]], [[0.0]])
    x = rng.normal(size=(5000, 3)) @ half.T + [1, 2, 3] + 0.5 * rng.normal(size=(5000, 3))
    guess = Denoiser.of(x, np.zeros(5000, dtype=int), 0.25)(x)
    # By the truth, which the moments of 5,000 samples come near.
    signal = half @ half.T
    gain = signal @ np.linalg.inv(signal + 0.25 * np.eye(3))
    expected = [1, 2, 3] + (x - [1, 2, 3]) @ gain.T
    np.testing.assert_allclose(guess, expected, atol=0.15)
    assert np.abs(x - expected).max() > 1


def test_denoiser_brings_scores_nearer_to_the_truth() -> None:
    """Two regions; a component that only one has goes in the other, and stays in its own."""
    rng = np.random.default_rng(1)
    region = np.repeat([0, 1], 1000)
    true = np.zeros((2000, 3))
    true[:, 0] = 10 * region
    true[region == 1, 1] = rng.choice([-3.0, 3.0], 1000)
    x = true + rng.normal(size=true.shape)
    guess = Denoiser.of(x, region, 1.0)(x)

    def error(of: np.ndarray) -> np.ndarray:
        return np.sqrt(((of - true) ** 2).mean(axis=0))

    assert (error(guess) < 1).all()
    assert error(guess)[2] < 0.15
    assert np.abs(guess[region == 0, 1]).max() < 0.8
    assert np.corrcoef(guess[region == 1, 1], true[region == 1, 1])[0, 1] > 0.9


def test_denoised_features_are_of_the_training_samples() -> None:
    features = fitted()[1]
    assert features.denoised is not None
    assert features.denoised.shape == (TRAIN.sum(), features.x.shape[1])
    population = simulated()[1][TRAIN]
    k = int(tells_apart(features.x).argmax())
    far = population >= 2
    before, after = (v[:, k] for v in (features.x[TRAIN], features.denoised))
    # What a local component says of samples elsewhere is noise, and gone.
    assert after[far].std() < 0.6 * before[far].std()
    assert after[~far].std() > 0.6 * before[~far].std()
