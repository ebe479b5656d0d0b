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
from ancestry_ddvi.ancestry.assignment import (
    PopulationCounts,
    group_numbers,
    log_likelihood,
    mean_shift,
)
from ancestry_ddvi.ancestry.calibration import Calibration, between, cross_fitted
from ancestry_ddvi.ancestry.calls import MIN_SITES
from ancestry_ddvi.ancestry.effective_sites import WINDOW, effective_sites
from ancestry_ddvi.ancestry.typicality import MAX_ERROR, _least_square, differences, powers
from ancestry_ddvi.errors import OptionError
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix
from ancestry_ddvi.preprocessing import ploidy

N_EACH, N_POPULATIONS, N_SITES = 60, 5, 3000


@cache
def world() -> tuple[GenotypeMatrix, np.ndarray, np.ndarray]:
    """Five populations, the last of which no caller learns; every third sample is held out."""
    genotypes, population = balding_nichols(N_EACH, N_SITES, 0.02, N_POPULATIONS, 3)
    return genotypes, population, np.arange(len(population)) % 3 == 0


def learnt() -> AncestryCaller:
    genotypes, population, held_out = world()
    label = pd.Series(population).where(population != "P4")
    group = label.map({"P0": "A", "P1": "A", "P2": "B", "P3": "B"})
    found = AncestryCaller.learn(genotypes, label, group, ~held_out, 0)
    assert found is not None
    return found


caller = cache(learnt)


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
    u = np.array([[0.0, -3.0, -5.0, -9.0], [-1.0, 0.0, -2.0, -2.0]]) / low.n_sites
    for level in (low, high):
        log_p, typicality = between(levels, u, np.full(2, level.n_sites))
        np.testing.assert_allclose(log_p, level.log_probability(u))
        np.testing.assert_allclose(typicality, level.near.typicality(u))
    m = np.full(2, np.sqrt(low.n_sites * high.n_sites))
    log_p, _ = between(levels, u, m)
    ends = [level.log_probability(u)[0, 0] for level in (low, high)]
    assert min(ends) - 0.05 <= log_p[0, 0] <= max(ends) + 0.05


def test_the_shifts_are_what_counting_and_errors_add() -> None:
    """On average over the samples of a population, and over many draws of the errors."""
    found, dosage, population = counts()
    own = dosage[population == "P1"]
    plain, counted = found.log_predictive(), found.log_predictive(1)
    copy, error = mean_shift(own, plain, counted)
    n_sites = (own != MISSING).sum()
    added = log_likelihood(own, plain) - log_likelihood(own, counted)
    np.testing.assert_allclose(copy, added.sum(axis=0) / n_sites)
    many = np.repeat(own, 4000, axis=0)
    rng = np.random.default_rng(0)
    wrong = [rng.random(many.shape) < MAX_ERROR for _ in range(2)]
    changed = ((many >= 1) ^ wrong[0]) + ((many == 2) ^ wrong[1]).astype(int)
    changed = np.where(many == MISSING, MISSING, changed)
    added = log_likelihood(changed, plain) - log_likelihood(many, plain)
    np.testing.assert_allclose(error, added.sum(axis=0) / (4000 * n_sites), rtol=0.05, atol=1e-4)


def test_the_least_square_is_that_of_a_fine_grid() -> None:
    rng = np.random.default_rng(0)
    w, moves = rng.normal(size=(3, 200)), rng.normal(size=(3, 2))
    share = np.stack(np.meshgrid(*[np.linspace(0, 1, 201)] * 2)).reshape(2, -1)
    grid = ((w[:, :, None] - (moves @ share)[:, None]) ** 2).sum(axis=0).min(axis=1)
    np.testing.assert_allclose(_least_square(w, moves), grid, atol=2e-3)
    for same in (np.zeros((3, 2)), np.repeat(moves[:, :1], 2, axis=1)):
        grid = ((w[:, :, None] - (same @ share)[:, None]) ** 2).sum(axis=0).min(axis=1)
        np.testing.assert_allclose(_least_square(w, same), grid, atol=2e-3)


def errors(genotypes: GenotypeMatrix, rate: float) -> GenotypeMatrix:
    """Each allele is the other one in a share `rate` of the cases."""
    rng = np.random.default_rng(6)
    first, second = (rng.random(genotypes.dosage.shape) < rate for _ in range(2))
    dosage = (genotypes.dosage >= 1) ^ first
    return replace(genotypes, dosage=dosage.astype(np.int8) + ((genotypes.dosage == 2) ^ second))


def children(genotypes: GenotypeMatrix, label: np.ndarray) -> GenotypeMatrix:
    """Of each sample and the next one of its population."""
    rng = np.random.default_rng(7)
    order = np.argsort(label, kind="stable")
    of = genotypes.dosage[order]
    gametes = rng.random((2, *of.shape)) < np.stack([of, np.roll(of, -1, axis=0)]) / 2
    return replace(genotypes, dosage=gametes.sum(axis=0).astype(np.int8))


def test_samples_of_the_reference_and_their_children_are_not_outside_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are counted in their population, and so more like it than any new sample."""
    genotypes, label, held_out = world()
    trained = ~held_out & (label != "P4")
    same = genotypes.select(samples=trained)
    same = replace(same, sample_id=np.char.add("other_", same.sample_id.astype(str)))
    others = {
        "copies": same,
        "copies with errors": errors(same, 0.005),
        "children": children(same, label[trained]),
        "new": of(held_out & (label != "P4")),
        "new, with errors": errors(of(held_out & (label != "P4")), 0.005),
    }

    def outside(found: AncestryCaller) -> dict[str, float]:
        return {k: (found.call(x).typicality < 0.01).mean() for k, x in others.items()}

    assert max(outside(caller()).values()) < 0.06
    found = caller().call(others["copies with errors"])
    right = found.population.columns.to_numpy()[found.population.to_numpy().argmax(axis=1)]
    assert (right == label[trained]).mean() > 0.95
    # Control: neither what they are counted nor their errors are taken out.
    monkeypatch.setattr(calls, "mean_shift", lambda part, plain, own: np.zeros((2, 4)))
    without = outside(learnt())
    assert min(without["copies"], without["copies with errors"], without["children"]) > 0.8


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
    apart = []
    for row in shown:
        new = hidden(of(np.isin(population, ["P0", "P1"])), row["sites"])
        apart.append((without.call(new).typicality < 0.01).mean() - row["A"])
    # Between few sites and many the share climbs steeply, and 80 samples tell the threshold.
    assert np.abs(apart).max() < 0.2
    assert np.abs(apart).mean() < 0.1


def test_what_typicality_tells_by_linked_sites_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of samples of another ancestry it tells fewer by these than by as many random ones."""
    new = of(world()[2])
    assert np.isfinite(caller().call(new).power).all()
    monkeypatch.setattr(
        calls, "effective_sites", lambda dosage, there, variants: np.full(len(dosage), 2000.0)
    )
    found = caller().call(new)
    assert np.isnan(found.power).all()
    assert np.isfinite(found.typicality).all()


def test_a_population_may_be_named_like_a_superpopulation() -> None:
    genotypes, population, held_out = world()
    label = pd.Series(population).where(population != "P4")
    group = label.map({"P0": "P1", "P1": "P1", "P2": "B", "P3": "B"})
    found = AncestryCaller.learn(genotypes, label, group, ~held_out, 0)
    assert found is not None
    calls_ = found.call(of(held_out))
    frame = calls_.frame()
    np.testing.assert_array_equal(frame["p_P1"], calls_.group["P1"])
    np.testing.assert_array_equal(frame["p_population_P1"], calls_.population["P1"])
    assert frame.columns.is_unique


def test_populations_that_are_far_apart_are_calibrated() -> None:
    """By so few samples of so many the loss is flat: steps of single precision may run away."""
    genotypes, population = balding_nichols(110, 1000, 0.05, 20, 0)
    train = np.arange(len(population)) % 110 < 10
    found = AncestryCaller.learn(genotypes, pd.Series(population), None, train, 0)
    assert found is not None
    for level in found.levels:
        assert all(np.isfinite(value).all() for value in level.state().values())


def test_the_labels_of_the_caller_stay_as_they_are() -> None:
    genotypes, population, held_out = world()
    label = pd.Series(population.astype(object))
    before = label.copy()
    AncestryCaller.learn(genotypes, label, None, ~held_out, 0)
    pd.testing.assert_series_equal(label, before)


def test_one_group_alone_tells_nothing() -> None:
    likelihood, n_sites, label, fold = labelled(300)
    group = np.array([0, 0, 0, 0, 0, 1])
    found = powers(likelihood, n_sites, label, fold, np.zeros((6, 2, 6)), group)
    assert np.isnan(found).tolist() == [True, False]


def test_random_sites_count_in_full_and_linked_ones_by_their_windows() -> None:
    rng = np.random.default_rng(0)
    n_windows, each = 400, 3
    position = WINDOW * np.repeat(np.arange(n_windows), each) + rng.integers(0, WINDOW, 1200)
    variants = pd.DataFrame({"contig": np.where(position < 200 * WINDOW, "1", "2")})
    variants["position"] = position
    order = rng.permutation(1200)  # sites need not be in order
    variants = variants.iloc[order].reset_index(drop=True)
    window = np.repeat(np.arange(n_windows), each)[order]

    def effective(sites: np.ndarray, width: int = WINDOW) -> float:
        dosage = np.ones((1, len(sites)), dtype=np.int8)
        return float(effective_sites(dosage, sites, variants, width)[0])

    assert effective(np.arange(1200)) == pytest.approx(1200)
    some = [effective(rng.permutation(1200)[:150]) for _ in range(50)]
    assert np.mean(some) == pytest.approx(150, rel=0.02)
    # The sites of 50 of 400 windows: f of 1 - (1 - f)^3 = 1 / 8.
    assert effective(np.flatnonzero(window < 50)) == pytest.approx(
        1200 * (1 - (7 / 8) ** (1 / 3)), rel=1e-3
    )
    # Two windows in one hold the sites of 25 of 200; base pairs, one each.
    assert effective(np.flatnonzero(window < 50), 2 * WINDOW) == pytest.approx(
        1200 * (1 - (7 / 8) ** (1 / 6)), rel=1e-3
    )
    assert effective(np.flatnonzero(window < 50), 1) == pytest.approx(150, rel=1e-3)
    one_each = np.unique(window, return_index=True)[1][:50]
    assert effective(one_each) == pytest.approx(50, rel=0.05)
    assert effective(np.arange(0)) <= 1
    # A sample with missing genotypes has what is left; another contig is another window.
    dosage = np.ones((2, 1200), dtype=np.int8)
    dosage[1, window >= 50] = MISSING
    whole, part = effective_sites(dosage, np.arange(1200), variants)
    assert (whole, part) == pytest.approx((1200, 1200 * (1 - (7 / 8) ** (1 / 3))), rel=1e-3)
    variants["position"] %= 200 * WINDOW
    assert effective(np.arange(1200)) == pytest.approx(1200)
    variants["contig"] = "1"
    assert effective(np.flatnonzero(window < 50)) > effective(np.flatnonzero(window < 25))


def test_linked_sites_are_not_taken_for_more_than_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every site of a few windows ten times over: the same evidence, and not ten times as sure."""
    genotypes, population, held_out = world()
    known = held_out & (population != "P4")
    few = np.arange(60)
    label = pd.Series(population).where(population != "P4")
    position = np.arange(N_SITES) * WINDOW * 2
    position[600:1140] = np.repeat(position[:60], 9) + 1 + np.tile(np.arange(9), 60)
    dosage = genotypes.dosage.copy()
    dosage[:, 600:1140] = np.repeat(dosage[:, :60], 9, axis=1)
    variants = genotypes.variants.assign(position=position)
    linked = replace(genotypes, dosage=dosage, variants=variants)
    found = AncestryCaller.learn(linked, label, None, ~held_out, 0)
    assert found is not None
    region = linked.select(samples=np.flatnonzero(known), variants=np.r_[few, np.arange(600, 1140)])

    def excess() -> float:
        p = found.call(region).population
        right = p.columns.to_numpy()[p.to_numpy().argmax(axis=1)] == population[known]
        return float(p.to_numpy().max(axis=1).mean() - right.mean())

    assert found.call(region).effective_sites == pytest.approx(60, rel=0.1)
    assert excess() < 0.1
    # Control: counted one by one.
    monkeypatch.setattr(
        calls, "effective_sites", lambda dosage, there, variants: np.full(len(dosage), 600.0)
    )
    assert excess() > 0.2


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
    sharp = Calibration.learn(*arguments, np.zeros((6, 2, 6)))
    flat = Calibration.learn(*arguments, np.zeros((6, 2, 6)), temperature=0.5)
    u = differences(arguments[0]) / arguments[1][:, None]
    first, second = (c.log_probability(u) for c in (sharp, flat))
    expected = 0.5 * first
    expected -= np.log(np.exp(expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(second, expected, atol=1e-9)
