"""Ancestry calls: likelihoods by hand, probabilities that mean what they say, and strangers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.stats import betabinom
from simulate import balding_nichols

from ancestry_ddvi.ancestry import (
    KNOWN,
    NO_DATA,
    OUTSIDE,
    TOO_FEW,
    UNCERTAIN,
    AncestryCaller,
    CallConfig,
    calls,
)
from ancestry_ddvi.ancestry.assignment import PopulationCounts, group_numbers, log_likelihood
from ancestry_ddvi.ancestry.calibration import Calibration, between, cross_fitted, powers
from ancestry_ddvi.ancestry.calls import MIN_SITES
from ancestry_ddvi.errors import OptionError
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix
from ancestry_ddvi.preprocessing import ploidy

N_EACH, N_POPULATIONS, N_SITES = 60, 5, 3000


@cache
def world() -> tuple[GenotypeMatrix, np.ndarray, np.ndarray]:
    """Five populations, the last of which no caller learns; every third sample is held out."""
    genotypes, population = balding_nichols(N_EACH, N_SITES, 0.02, N_POPULATIONS, 3)
    return genotypes, population, np.arange(len(population)) % 3 == 0


@cache
def caller() -> AncestryCaller:
    genotypes, population, held_out = world()
    label = pd.Series(population).where(population != "P4")
    group = label.map({"P0": "A", "P1": "A", "P2": "B", "P3": "B"})
    found = AncestryCaller.learn(genotypes, label, group, ~held_out, 0)
    assert found is not None
    return found


def hidden(genotypes: GenotypeMatrix, n_sites: int, seed: int = 0) -> GenotypeMatrix:
    """With so many sites of each sample left."""
    rng = np.random.default_rng(seed)
    dosage = genotypes.dosage.copy()
    for row in dosage:
        row[rng.permutation(len(row))[n_sites:]] = MISSING
    return replace(genotypes, dosage=dosage)


def of(which: np.ndarray) -> GenotypeMatrix:
    return world()[0].select(samples=np.flatnonzero(which))


def counts() -> tuple[PopulationCounts, np.ndarray, np.ndarray]:
    """Three populations in two groups, some genotypes missing."""
    rng = np.random.default_rng(1)
    genotypes, population = balding_nichols(6, 12, 0.1, 3, 1)
    dosage = np.where(rng.random(genotypes.dosage.shape) < 0.1, MISSING, genotypes.dosage)
    genotypes = replace(genotypes, dosage=dosage)
    group, names = group_numbers(population, np.where(population == "P2", "far", "near"))
    assert names == ("far", "near")
    return PopulationCounts.of(genotypes, population.astype(object), group), dosage, population


# Likelihoods.


def test_the_predictive_distribution_is_beta_binomial() -> None:
    found, dosage, population = counts()
    table = found.log_predictive()
    np.testing.assert_allclose(np.exp(table).sum(axis=1), 1, rtol=1e-12)

    def k(f: float) -> float:
        return (1 - f) / f

    def alt_of(names: tuple[str, ...], s: int) -> tuple[int, int]:
        some = dosage[np.isin(population, names), s]
        return int(some[some >= 0].sum()), 2 * int((some >= 0).sum())

    for s in range(12):
        alt, n = alt_of(("P0", "P1", "P2"), s)
        of_all = (alt + 0.5) / (n + 1)
        alt, n = alt_of(("P0", "P1"), s)
        near = (alt + k(found.fst_between) * of_all) / (n + k(found.fst_between))
        alt, n = alt_of(("P1",), s)
        within = k(found.fst_within)
        by_hand = betabinom(2, alt + within * near, n - alt + within * (1 - near))
        np.testing.assert_allclose(table[1, :, s], by_hand.logpmf([0, 1, 2]), rtol=1e-9)


def test_a_counted_sample_is_judged_as_though_it_were_not() -> None:
    """By counts of the others, of which FST alone is taken from all."""
    found, dosage, population = counts()
    i = 7
    assert population[i] == "P1"
    others = np.arange(len(dosage)) != i
    rest, _, _ = counts()
    n_alt, n_called = PopulationCounts._count(
        dosage[others], np.array([int(p[1]) for p in population[others]]), 3
    )
    rest = replace(rest, n_alt=n_alt, n_called=n_called)
    given = dosage[[i]]
    left_out = log_likelihood(given, found.log_predictive(1))
    # The mean of all groups keeps the sample: it moves what all populations share.
    np.testing.assert_allclose(
        left_out - left_out[:, :1],
        (fresh := log_likelihood(given, rest.log_predictive())) - fresh[:, :1],
        atol=0.05,
    )
    kept = log_likelihood(given, found.log_predictive())
    assert left_out[0, 1] < kept[0, 1]


def test_likelihoods_add_up_over_the_sites_that_are_there() -> None:
    found, dosage, _ = counts()
    table = found.log_predictive()
    expected = [
        [sum(table[j, g, s] for s, g in enumerate(row) if g != MISSING) for j in range(3)]
        for row in dosage
    ]
    np.testing.assert_allclose(log_likelihood(dosage, table), expected, rtol=1e-9)


def test_one_allele_a_site_is_told_by_its_frequency() -> None:
    found, _, _ = counts()
    table, two = (found.log_predictive(haploid=haploid) for haploid in (True, False))
    np.testing.assert_allclose(np.exp(table[:, 0]) + np.exp(table[:, 2]), 1, rtol=1e-12)
    # The mean of the two alleles' distribution: P(2) + P(1) / 2.
    of_alt = np.exp(two[:, 2]) + np.exp(two[:, 1]) / 2
    np.testing.assert_allclose(np.exp(table[:, 2]), of_alt, rtol=1e-9)
    assert (table[:, 1] == 0).all()


# Calls.


@pytest.mark.parametrize("n_sites", [N_SITES, 500, 60])
def test_held_out_samples_are_called_as_surely_as_they_are_right(n_sites: int) -> None:
    _, population, held_out = world()
    known = held_out & (population != "P4")
    calls = caller().call(hidden(of(known), n_sites))
    assert (calls.n_sites == n_sites).all()
    p = calls.population.to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-9)
    np.testing.assert_allclose(calls.group["A"], p[:, :2].sum(axis=1), rtol=1e-9)
    correct = calls.population.columns.to_numpy()[p.argmax(axis=1)] == population[known]
    assert correct.mean() > {N_SITES: 0.97, 500: 0.8, 60: 0.4}[n_sites]
    assert abs(p.max(axis=1).mean() - correct.mean()) < 0.12
    assert (calls.typicality < 0.01).mean() <= 0.05
    assert 0.25 < np.median(calls.typicality) < 0.75


def test_a_population_that_is_not_in_the_reference_is_outside_of_it() -> None:
    _, population, _ = world()
    calls = caller().call(of(population == "P4"))
    frame = calls.frame()
    assert (frame["population"] == OUTSIDE).mean() > 0.9
    assert (frame["superpopulation"] == OUTSIDE).mean() > 0.9
    # The probabilities alone would not say so.
    assert (calls.population.max(axis=1) > 0.5).mean() > 0.5


def test_few_sites_make_calls_uncertain_and_hardly_any_make_none() -> None:
    _, population, held_out = world()
    known = held_out & (population != "P4")
    few = caller().call(hidden(of(known), 60)).frame()
    assert (few["population"] == UNCERTAIN).mean() > 0.8
    none = caller().call(hidden(of(known), MIN_SITES - 1)).frame()
    assert (none["population"] == TOO_FEW).all()
    assert none.filter(like="p_").isna().all(axis=None)
    assert none["typicality"].isna().all()
    assert none["typicality_power"].isna().all()
    nothing = caller().call(hidden(of(known), 0)).frame()
    assert (nothing["population"] == NO_DATA).all()


def test_nothing_is_said_of_samples_that_are_counted() -> None:
    """By their own alleles they would look like themselves, and unlike anybody else."""
    genotypes, population, held_out = world()
    # The last population was trained on, and is counted in none.
    known = ~held_out & (population != "P4")
    frame = caller().call(genotypes).frame()
    assert (frame["population"][known] == KNOWN).all()
    assert frame[known].filter(like="p_").isna().all(axis=None)
    assert frame["typicality"][known].isna().all()
    assert not frame["population"][~known].isin([KNOWN, NO_DATA]).any()


def test_thresholds_decide() -> None:
    _, population, held_out = world()
    calls = caller().call(hidden(of(held_out & (population != "P4")), 200))
    lax = calls.frame(CallConfig(threshold=0.0, min_typicality=0.0))
    assert lax["population"].isin(["P0", "P1", "P2", "P3"]).all()
    strict = calls.frame(CallConfig(threshold=0.99, min_typicality=0.0))
    sure = strict["population_probability"] >= 0.99
    assert (strict["population"] == lax["population"])[sure].all()
    assert (strict["population"][~sure] == UNCERTAIN).all()
    assert (calls.frame(CallConfig(0.0, 1.0))["population"] == OUTSIDE).all()
    for wrong in ({"threshold": 1.5}, {"min_typicality": -0.1}, {"threshold": float("nan")}):
        with pytest.raises(OptionError, match="must be from 0 to 1"):
            CallConfig(**wrong)


def test_swapped_alleles_and_company_change_nothing() -> None:
    _, population, held_out = world()
    few = of(held_out & (population != "P4")).select(samples=np.arange(7))
    calls = caller().call(few)
    variants = few.variants
    turned = replace(
        few,
        dosage=np.where(few.dosage == MISSING, MISSING, 2 - few.dosage).astype(np.int8),
        variants=variants.assign(ref=variants["alt"], alt=variants["ref"]),
    )
    swapped = caller().call(turned)
    assert swapped.matched.swapped == N_SITES
    pd.testing.assert_frame_equal(swapped.population, calls.population, rtol=1e-6)
    alone = caller().call(few.select(samples=np.array([3])))
    np.testing.assert_allclose(
        alone.population.to_numpy()[0], calls.population.to_numpy()[3], rtol=1e-6
    )


def test_the_same_seed_gives_the_same_caller_and_state_rebuilds_it() -> None:
    genotypes, population, held_out = world()
    label = pd.Series(population).where(population != "P4")
    before = label.copy()
    arguments = genotypes, label, None, ~held_out
    first, again = (AncestryCaller.learn(*arguments, 0) for _ in range(2))
    pd.testing.assert_series_equal(label, before)
    assert first is not None
    assert again is not None
    assert first.groups == ()
    new = of(held_out)
    pd.testing.assert_frame_equal(first.call(new).frame(), again.call(new).frame())
    rebuilt = AncestryCaller.from_state(*first.state(), first.variants)
    pd.testing.assert_frame_equal(first.call(new).frame(), rebuilt.call(new).frame())
    assert "superpopulation" not in first.call(new).frame()


def test_small_populations_are_left_out_and_too_few_give_no_caller() -> None:
    genotypes, population, _ = world()
    train = np.ones(len(population), dtype=bool)
    label = pd.Series(population).where(population != "P4")
    label[np.flatnonzero(population == "P3")[9:]] = None
    found = AncestryCaller.learn(genotypes, label, None, train, 0)
    assert found is not None
    assert found.counts.population == ("P0", "P1", "P2")
    assert found.card["left out for few samples"] == ["P3"]
    one = label.where(label == "P0")
    assert AncestryCaller.learn(genotypes, one, None, train, 0) is None
    assert AncestryCaller.learn(genotypes, one.where(one == ""), None, train, 0) is None


def test_between_two_levels_lies_what_is_between_them() -> None:
    levels = caller().levels
    assert len(levels) > 3
    low, high = levels[1], levels[2]
    likelihood = np.array([[0.0, -3.0, -5.0, -9.0], [-1.0, 0.0, -2.0, -2.0]])
    for level in (low, high):
        m = np.full(2, level.n_sites)
        log_p, typicality = between(levels, likelihood, m)
        np.testing.assert_allclose(log_p, level.log_probability(likelihood, m))
        np.testing.assert_allclose(typicality, level.typicality(likelihood, m))
    m = np.full(2, np.sqrt(low.n_sites * high.n_sites))
    log_p, _ = between(levels, likelihood, m)
    ends = [level.log_probability(likelihood, m)[0, 0] for level in (low, high)]
    assert min(ends) - 0.05 <= log_p[0, 0] <= max(ends) + 0.05


def test_samples_of_the_reference_under_other_names_are_not_outside_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are counted in their population, and so more like it than any new sample."""
    genotypes, label, held_out = world()
    trained = ~held_out & (label != "P4")
    same = genotypes.select(samples=trained)
    others = replace(same, sample_id=np.char.add("other_", same.sample_id.astype(str)))
    outside = {}
    for recounted in (calls.RECOUNTED, 0.0):
        monkeypatch.setattr(calls, "RECOUNTED", recounted)
        found = caller().call(others)
        outside[recounted] = (found.typicality < 0.01).mean()
        right = found.population.columns.to_numpy()[found.population.to_numpy().argmax(axis=1)]
        assert (right == label[trained]).mean() > 0.95
    assert outside[0.02] < 0.03
    assert outside[0.0] > 0.3


def one_allele(genotypes: GenotypeMatrix) -> GenotypeMatrix:
    """One of the two alleles, drawn at random and written twice, as of ancient DNA."""
    drawn = np.random.default_rng(5).random(genotypes.dosage.shape) < 0.5
    dosage = np.where(genotypes.dosage == 1, 2 * drawn, genotypes.dosage).astype(np.int8)
    return replace(genotypes, dosage=dosage)


def test_pseudo_haploid_samples_are_called_by_one_allele_a_site(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, population, held_out = world()
    new = held_out & (population != "P4")
    two = caller().call(of(new))
    assert not two.haploid.any()
    once = caller().call(one_allele(of(new)))
    assert once.haploid.all()
    assert (once.n_sites == N_SITES).all()
    p = once.population.to_numpy()
    assert (once.population.columns.to_numpy()[p.argmax(axis=1)] == population[new]).mean() > 0.9
    assert (once.typicality < 0.01).mean() < 0.06
    assert (once.power < two.power).all()
    stranger = caller().call(one_allele(of(population == "P4")))
    assert (stranger.typicality < 0.01).mean() > 0.8
    # Control: read as two alleles they are less like anybody.
    monkeypatch.setattr(ploidy, "MAX_HAPLOID", 0.0)
    wrong = caller().call(one_allele(of(new)))
    assert not wrong.haploid.any()
    assert np.median(wrong.typicality) < 0.6 * np.median(once.typicality)


def test_the_power_of_typicality_is_what_is_told_of_a_group_that_is_left_out() -> None:
    genotypes, population, held_out = world()
    levels = caller().levels
    assert levels[0].power < 0.3 < 0.9 < levels[-1].power
    shown = caller().card["told to be of an ancestry that is left out"]
    assert set(shown[-1]) == {"sites", "A", "B"}
    # The same by a reference that has never seen the group.
    label = pd.Series(population).where(np.isin(population, ["P2", "P3"]))
    without = AncestryCaller.learn(genotypes, label, None, ~held_out, 0)
    assert without is not None
    for row in shown:
        new = hidden(of(np.isin(population, ["P0", "P1"])), row["sites"])
        told = (without.call(new).typicality < 0.01).mean()
        assert told == pytest.approx(row["A"], abs=0.15)


def test_one_group_alone_tells_nothing() -> None:
    likelihood, n_sites, label, fold = labelled(300)
    group = np.array([0, 0, 0, 0, 0, 1])
    assert powers(likelihood, n_sites, label, fold, group)[0] == 0


def labelled(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihoods (n, 6) over 100 sites, the labels that follow from them, and folds."""
    rng = np.random.default_rng(seed)
    likelihood = rng.normal(0, 2, (n, 6))
    p = np.exp(likelihood - np.log(np.exp(likelihood).sum(axis=1, keepdims=True)))
    label = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=5)
    return likelihood, np.full(n, 100.0), label, np.arange(n) % 10


def test_the_temperature_makes_up_for_few_samples() -> None:
    few, many = (cross_fitted(*labelled(n))[0] for n in (60, 4000))
    assert few < 0.85
    assert many == pytest.approx(1, abs=0.05)


def test_a_temperature_flattens_what_the_link_says() -> None:
    arguments = labelled(400)
    sharp = Calibration.learn(*arguments)
    flat = Calibration.learn(*arguments, temperature=0.5)
    first, second = (c.log_probability(*arguments[:2]) for c in (sharp, flat))
    expected = 0.5 * first
    expected -= np.log(np.exp(expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(second, expected, atol=1e-9)
