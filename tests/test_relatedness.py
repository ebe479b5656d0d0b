"""KING-robust kinship by its formula, on pedigrees and beside plink2; sets without relatives."""

from __future__ import annotations

import shutil
import subprocess
import tracemalloc
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import write_vcf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from simulate import balding_nichols

from ancestry_ddvi.preprocessing import relatedness
from ancestry_ddvi.preprocessing.relatedness import (
    DEGREES,
    RelatedPairs,
    detectable_kinship,
    related_pairs,
    relation,
    unrelated,
)

needs_plink2 = pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
ALL = -np.inf
"""A least kinship that every pair with an estimate has."""


def kinship_by_formula(x: np.ndarray, y: np.ndarray) -> Fraction | None:
    """Manichaikul et al. 2010, equation 11, from the counts that it names; i has fewer het.

    Exact: the rounded sum of the three terms falls on either side of a cutoff that it equals.
    """
    both = (x >= 0) & (y >= 0)
    x, y = x[both], y[both]
    het_i, het_j = sorted([int((x == 1).sum()), int((y == 1).sum())])
    if het_i == 0:
        return None
    het_het = int(((x == 1) & (y == 1)).sum())
    opposite = int((np.abs(x - y) == 2).sum())
    return (
        Fraction(het_het - 2 * opposite, 2 * het_i)
        + Fraction(1, 2)
        - Fraction(het_i + het_j, 4 * het_i)
    )


def as_dict(pairs: RelatedPairs) -> dict[tuple[int, int], float]:
    """Kinship by pair of indices."""
    keys = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    return dict(zip(keys, pairs.kinship.tolist(), strict=True))


def pairs_of(edges: list[tuple[int, int]]) -> RelatedPairs:
    """Pairs with nothing but indices to look at."""
    first, second = np.array(sorted(edges), dtype=np.int64).reshape(-1, 2).T
    return RelatedPairs(first, second, np.full(len(first), 0.25), 1000)


def child(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One allele of each parent's two at every variant, independently."""
    transmitted: np.ndarray = rng.binomial(1, a / 2) + rng.binomial(1, b / 2)
    return transmitted.astype(np.int8)


@pytest.fixture(scope="module")
def pedigree() -> tuple[np.ndarray, dict[tuple[int, int], float]]:
    """Three generations among strangers of two populations: dosages, and kinship above 0."""
    simulated, _ = balding_nichols(12, 20_000, 0.1, 2, seed=1)
    founders = simulated.dosage
    rng = np.random.default_rng(2)
    father, mother, wife, second_wife, husband = founders[:5]
    son, daughter = child(father, mother, rng), child(father, mother, rng)
    half_brother = child(father, second_wife, rng)
    grandson, cousin = child(son, wife, rng), child(daughter, husband, rng)
    later = [son, daughter, half_brother, grandson, cousin, grandson]
    f, m, w, v, h, s, d, b, g, c, twin = [0, 1, 2, 3, 4, *range(24, 30)]
    expected = {(f, s): 4, (m, s): 4, (f, d): 4, (m, d): 4, (s, d): 4, (f, b): 4, (v, b): 4}
    expected |= {(s, b): 8, (d, b): 8, (h, c): 4, (d, c): 4, (f, c): 8, (m, c): 8, (s, c): 8}
    expected |= {(b, c): 16, (g, twin): 2}
    for x in (g, twin):
        expected |= {(w, x): 4, (s, x): 4, (f, x): 8, (m, x): 8, (d, x): 8, (b, x): 16}
    expected |= {(g, c): 16, (c, twin): 16}
    return np.vstack([founders, *later]), {pair: 1 / n for pair, n in expected.items()}


def test_a_pedigree(pedigree: tuple[np.ndarray, dict[tuple[int, int], float]]) -> None:
    """Standard error of an estimate from 20,000 unlinked variants: about 0.007."""
    dosage, expected = pedigree
    found = as_dict(related_pairs(dosage, min_kinship=ALL))
    assert len(found) == 30 * 29 // 2
    for (i, j), kinship in found.items():
        strangers = 0.0 if (i < 12 or i >= 24) == (j < 12 or j >= 24) else None
        wanted = expected.get((i, j), strangers)
        if wanted is None:
            assert kinship < -0.03, "samples of two populations are further apart than strangers"
        else:
            assert kinship == pytest.approx(wanted, abs=0.025), (i, j)
    degrees = {4: "first degree", 8: "second degree", 16: "third degree", 2: "duplicate or twin"}
    second = {pair for pair, wanted in expected.items() if wanted >= 1 / 8}
    kept = as_dict(related_pairs(dosage, min_kinship=0.0884))
    assert set(kept) == second
    assert kept[26 + 1, 29] == 0.5
    assert all(relation(x) == degrees[round(1 / expected[pair])] for pair, x in kept.items())


GENOTYPES = st.tuples(st.integers(0, 9), st.integers(0, 14)).flatmap(
    lambda shape: hnp.arrays(np.int8, shape, elements=st.integers(-1, 2))
)


@settings(deadline=None, max_examples=150)
@given(
    GENOTYPES,
    st.data(),
    st.sampled_from([(1024, 2048), (4, 5), (1, 1), (3, 100)]),
    st.booleans(),
    st.sampled_from([ALL, 0.0, 0.25]),
    st.booleans(),
)
def test_the_formula(
    dosage: np.ndarray,
    data: st.DataObject,
    tile: tuple[int, int],
    fortran: bool,
    least: float,
    single: bool,
) -> None:
    """Whatever is missing, however it is cut and lies in memory, in single or double precision."""
    columns = data.draw(st.none() | st.permutations(range(dosage.shape[1])))
    variants = None if columns is None else np.array(columns[: len(columns) // 2 + 1], dtype=int)
    used = dosage if variants is None else dosage[:, variants]
    expected = {
        (i, j): kinship
        for i, j in combinations(range(len(dosage)), 2)
        if (kinship := kinship_by_formula(used[i], used[j])) is not None
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relatedness, "TILE", tile)
        patch.setattr(relatedness, "EXACT", 2**24 if single else 0)
        laid_out = np.asfortranarray(dosage) if fortran else np.ascontiguousarray(dosage)
        pairs = related_pairs(laid_out, min_kinship=least, variants=variants)
    assert pairs.n_variants == used.shape[1]
    found = as_dict(pairs)
    assert found == {
        pair: pytest.approx(float(x), abs=1e-12) for pair, x in expected.items() if x >= least
    }
    by_rank = [(-x, i, j) for (i, j), x in found.items()]
    assert by_rank == sorted(by_rank)


def test_by_hand() -> None:
    """Het 2 and 3; both at one variant; opposite at one: (1 - 2) / 4 + 1/2 - 5 / 8 = -3/8."""
    dosage = np.array([[1, 1, 0, 0, 2, -1], [1, 0, 2, 1, 1, 1]], dtype=np.int8)
    assert as_dict(related_pairs(dosage, min_kinship=-1)) == {(0, 1): -3 / 8}


def test_the_matrix_is_not_copied_as_a_whole() -> None:
    dosage = np.zeros((64, 200_000), dtype=np.int8, order="F")
    dosage[:, ::3] = 1
    tracemalloc.start()
    try:
        related_pairs(dosage, min_kinship=0.1, variants=np.arange(0, 200_000, 2))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < dosage.nbytes / 2


def test_progress_ends_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relatedness, "TILE", (10, 10))
    seen: list[float] = []
    dosage = np.ones((25, 30), dtype=np.int8)
    related_pairs(dosage, min_kinship=0, progress=seen.append)
    assert seen == pytest.approx(np.arange(1, 7) / 6)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_missing_genotypes_do_not_bias(
    pedigree: tuple[np.ndarray, dict[tuple[int, int], float]], missing: float
) -> None:
    dosage, expected = pedigree
    rng = np.random.default_rng(3)
    holes = rng.random(dosage.shape) < missing
    found = as_dict(related_pairs(np.where(holes, -1, dosage).astype(np.int8), min_kinship=ALL))
    error = [found[pair] - wanted for pair, wanted in expected.items()]
    assert abs(np.mean(error)) < 0.005
    assert np.abs(error).max() < 0.025


def test_samples_without_an_estimate_are_never_related() -> None:
    """One without a called genotype, one without a heterozygous one, and duplicates of both."""
    rng = np.random.default_rng(4)
    dosage = rng.binomial(2, 0.5, (6, 500)).astype(np.int8)
    dosage[[0, 1]] = -1
    dosage[[2, 3]] = 2 * rng.integers(2, size=500)
    dosage[5] = dosage[4]
    assert as_dict(related_pairs(dosage, min_kinship=ALL)) == {(4, 5): 0.5}


def test_a_pair_called_at_no_variant_in_common_has_no_estimate() -> None:
    dosage = np.array([[1, 1, -1, -1], [-1, -1, 1, 1]], dtype=np.int8)
    assert as_dict(related_pairs(dosage, min_kinship=ALL)) == {}


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (2, 0), (0, 0)])
def test_nothing_to_compare(shape: tuple[int, int]) -> None:
    pairs = related_pairs(np.ones(shape, dtype=np.int8), min_kinship=ALL)
    assert len(pairs.first) == len(pairs.second) == len(pairs.kinship) == 0
    assert unrelated(pairs, shape[0]).tolist() == [True] * shape[0]


def plink2(folder: Path, *arguments: str) -> None:
    """Run it on one thread, with its results at x.* in the folder."""
    command = ["plink2", "--threads", "1", "--out", str(folder / "x"), *arguments]
    subprocess.run(command, check=True, capture_output=True)


@needs_plink2
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_plink2_finds_the_same_kinship(
    tmp_path: Path,
    pedigree: tuple[np.ndarray, dict[tuple[int, int], float]],
    missing: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every pair; its table has six digits."""
    monkeypatch.setattr(relatedness, "TILE", (8, 300))
    dosage = pedigree[0][:, :2000].copy()
    dosage[np.random.default_rng(5).random(dosage.shape) < missing] = -1
    sample_id = [f"S{i}" for i in range(len(dosage))]
    vcf = write_vcf(tmp_path / "x.vcf", dosage, sample_id)
    plink2(tmp_path, "--vcf", str(vcf), "--make-king-table")
    table = pd.read_csv(tmp_path / "x.kin0", sep="\t")
    index = table[["#IID1", "IID2"]].map(sample_id.index).to_numpy()
    theirs = {(min(p), max(p)): x for p, x in zip(index.tolist(), table["KINSHIP"], strict=True)}
    ours = as_dict(related_pairs(dosage, min_kinship=ALL))
    assert len(theirs) == 30 * 29 // 2
    assert ours == {pair: pytest.approx(x, rel=1e-5, abs=1e-9) for pair, x in theirs.items()}


@needs_plink2
def test_plink2_keeps_as_many_samples(
    tmp_path: Path, pedigree: tuple[np.ndarray, dict[tuple[int, int], float]]
) -> None:
    dosage = pedigree[0][:, :5000]
    sample_id = [f"S{i}" for i in range(len(dosage))]
    vcf = write_vcf(tmp_path / "x.vcf", dosage, sample_id)
    plink2(tmp_path, "--vcf", str(vcf), "--king-cutoff", "0.0884")
    theirs = (tmp_path / "x.king.cutoff.in.id").read_text().splitlines()[1:]
    ours = unrelated(related_pairs(dosage, min_kinship=0.0884), len(dosage))
    assert ours.sum() == len(theirs) < len(dosage)


@pytest.mark.parametrize(
    ("kinship", "name"),
    [
        (0.5, "duplicate or twin"),
        (0.354, "duplicate or twin"),
        (0.3539, "first degree"),
        (0.177, "first degree"),
        (0.1769, "second degree"),
        (0.0884, "second degree"),
        (0.0883, "third degree"),
        (0.0442, "third degree"),
        (0.0441, "unrelated"),
        (-0.3, "unrelated"),
    ],
)
def test_degrees(kinship: float, name: str) -> None:
    assert relation(kinship) == name


@st.composite
def graphs(draw: st.DrawFn, max_samples: int = 14) -> tuple[int, list[tuple[int, int]]]:
    """Samples, and which of them are related."""
    n = draw(st.integers(2, max_samples))
    return n, draw(st.lists(st.sampled_from(list(combinations(range(n), 2))), unique=True))


def neighbours(n: int, edges: list[tuple[int, int]]) -> list[set[int]]:
    """The relatives of each sample."""
    relatives: list[set[int]] = [set() for _ in range(n)]
    for i, j in edges:
        relatives[i].add(j)
        relatives[j].add(i)
    return relatives


@settings(deadline=None, max_examples=300)
@given(graphs(), st.data())
def test_no_pair_is_left_and_nobody_goes_without_reason(
    graph: tuple[int, list[tuple[int, int]]], data: st.DataObject
) -> None:
    n, edges = graph
    rate = data.draw(st.none() | hnp.arrays(float, n, elements=st.sampled_from([0.9, 0.95, 1])))
    keep = unrelated(pairs_of(edges), n, rate)
    assert keep.shape == (n,)
    assert not any(keep[i] and keep[j] for i, j in edges)
    for i, relatives in enumerate(neighbours(n, edges)):
        assert keep[i] or any(keep[j] for j in relatives)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=9))
def test_of_families_without_a_cycle_as_many_as_can_be_stay(draws: list[int]) -> None:
    """Each sample is related to one before it or to none; the largest of all subsets, tried out."""
    n = len(draws) + 1
    parents = [draw % (i + 2) - 1 for i, draw in enumerate(draws)]
    edges = [(parent, i + 1) for i, parent in enumerate(parents) if parent >= 0]
    best = max(
        subset.bit_count()
        for subset in range(2**n)
        if not any(subset >> i & subset >> j & 1 for i, j in edges)
    )
    assert unrelated(pairs_of(edges), n).sum() == best


def test_of_two_the_less_called_goes_then_the_later() -> None:
    kept = unrelated(pairs_of([(0, 1), (2, 3)]), 5, np.array([0.9, 0.95, 0.9, 0.9, 1]))
    assert kept.tolist() == [False, True, True, False, True]


def test_the_one_with_most_relatives_goes_whatever_its_call_rate() -> None:
    """Two parents, 0 and 1, of four: each child is related to both, and here to no other child."""
    family = pairs_of([(parent, i) for parent in (0, 1) for i in range(2, 6)])
    kept = unrelated(family, 6, np.array([1, 1, 0.9, 0.9, 0.9, 0.9]))
    assert kept.tolist() == [False, False, True, True, True, True]


def test_but_the_only_relative_of_another_goes_first() -> None:
    """Three chains of two that meet in 0: without the middles 1, 3 and 5, 0 can stay."""
    chains = pairs_of([(0, 1), (1, 2), (0, 3), (3, 4), (0, 5), (5, 6)])
    assert np.flatnonzero(unrelated(chains, 7)).tolist() == [0, 2, 4, 6]


def test_a_set_of_equals_shrinks_to_the_best_called() -> None:
    clique = pairs_of(list(combinations(range(5), 2)))
    kept = unrelated(clique, 5, np.array([0.9, 0.97, 0.99, 0.98, 0.96]))
    assert np.flatnonzero(kept).tolist() == [2]


def test_one_that_went_early_returns_once_all_its_relatives_went_too() -> None:
    """6 goes first, as the last of those with most relatives; 1, 2 and 5 follow."""
    edges = [(0, 1), (0, 2), (1, 3), (1, 6), (2, 4), (2, 6), (3, 5), (4, 5), (5, 6)]
    assert np.flatnonzero(unrelated(pairs_of(edges), 7)).tolist() == [0, 3, 4, 6]


def test_few_variants_show_close_relatives_only() -> None:
    assert detectable_kinship(0) == np.inf
    assert detectable_kinship(100) == 0.5
    assert detectable_kinship(4000) < DEGREES[2][0] < detectable_kinship(3000)
    # The control: strangers, whose largest coefficient stays below.
    rng = np.random.default_rng(3)
    p = rng.uniform(0.05, 0.5, 1000)
    strangers = rng.binomial(2, p, (400, 1000)).astype(np.int8)
    found = related_pairs(strangers, min_kinship=-1)
    assert found.kinship.max() < detectable_kinship(1000) < 2 * found.kinship.max()
