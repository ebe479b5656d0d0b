"""LD pruning against a brute-force r^2 of every pair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestry_ddvi.preprocessing.filters import VariantCounts
from ancestry_ddvi.preprocessing.linkage import prune, standardise


def linked_dosage(n_samples: int, n_variants: int, switch: float, seed: int) -> np.ndarray:
    """Haplotypes copied from 6 templates that they leave with probability `switch` a variant."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.1, 0.9, n_variants)
    templates = rng.random((6, n_variants)) < frequency
    copied = rng.integers(6, size=2 * n_samples)
    haplotype = np.empty((2 * n_samples, n_variants), dtype=np.int8)
    for j in range(n_variants):
        leaves = rng.random(len(copied)) < switch
        copied[leaves] = rng.integers(6, size=leaves.sum())
        haplotype[:, j] = templates[copied, j]
    dosage: np.ndarray = haplotype[:n_samples] + haplotype[n_samples:]
    return dosage


def variants_at(position: np.ndarray, contig: np.ndarray | str = "1") -> pd.DataFrame:
    """The two columns that pruning looks at."""
    return pd.DataFrame({"contig": contig, "position": position})


def pruned(
    dosage: np.ndarray,
    variants: pd.DataFrame | None = None,
    window: int = 100,
    step: int = 50,
    max_r2: float = 0.2,
) -> np.ndarray:
    """Prune with the frequencies of the same samples."""
    table = variants_at(np.arange(dosage.shape[1])) if variants is None else variants
    maf = VariantCounts.of(dosage).maf
    return prune(dosage, table, maf, window=window, step=step, max_r2=max_r2)


def r2_of_all_pairs(dosage: np.ndarray) -> np.ndarray:
    """Squared correlations in float64 by another route; missing genotypes take the mean.

    A column that masking left constant correlates with nothing.
    """
    values = dosage.astype(float)
    values[dosage < 0] = np.nan
    values = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    with np.errstate(invalid="ignore"):
        r2: np.ndarray = np.nan_to_num(np.corrcoef(values.T)) ** 2
    return r2


def test_standardise_by_hand() -> None:
    dosage = np.array([[0, 1, 2], [2, 1, -1], [1, 1, 0], [-1, 1, 1]], dtype=np.int8)
    r = np.sqrt(0.5)
    expected = [[-r, 0, r], [r, 0, 0], [0, 0, -r], [0, 0, 0]]
    np.testing.assert_allclose(standardise(dosage), expected, atol=1e-7)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.02, 0.2, 1.0]),
    st.sampled_from([0.05, 0.2, 0.5, 0.8]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted),
    st.sampled_from([0.0, 0.1]),
)
def test_no_linked_pair_is_left_in_a_window_and_none_goes_without_reason(
    seed: int, switch: float, max_r2: float, step_window: list[int], missing: float
) -> None:
    step, window = step_window
    dosage = linked_dosage(30, 90, switch, seed)
    dosage[np.random.default_rng(seed).random(dosage.shape) < missing] = -1
    keep = pruned(dosage, window=window, step=step, max_r2=max_r2)
    r2 = r2_of_all_pairs(dosage)
    np.fill_diagonal(r2, 0)
    shared = np.zeros_like(r2, dtype=bool)
    for start in range(0, 90, step):
        shared[start : start + window, start : start + window] = True
    # Single precision may put a pair that lies on the threshold on either side of it.
    left = r2[np.ix_(keep, keep)][shared[np.ix_(keep, keep)]]
    assert left.size == 0 or left.max() <= max_r2 + 1e-5
    linked_to_any = np.where(shared, r2, 0).max(axis=0) > max_r2 - 1e-5
    assert linked_to_any[~keep].all()


def test_independent_variants_are_all_kept() -> None:
    dosage = np.random.default_rng(0).binomial(2, 0.4, (500, 300)).astype(np.int8)
    assert pruned(dosage).all()


def test_duplicates_are_pruned_to_one() -> None:
    rng = np.random.default_rng(1)
    dosage = np.repeat(rng.binomial(2, 0.4, (400, 12)), 5, axis=1).astype(np.int8)
    flip = np.arange(60) % 5 == 2  # counting the other allele makes no variant a new one
    dosage[:, flip] = 2 - dosage[:, flip]
    keep = pruned(dosage)
    assert keep.reshape(12, 5).sum(axis=1).tolist() == [1] * 12


def test_of_a_linked_pair_the_more_common_variant_stays() -> None:
    common = np.random.default_rng(2).binomial(2, 0.4, 300).astype(np.int8)
    rarer = np.where(np.arange(300) < 40, 0, common).astype(np.int8)
    for columns, expected in (([common, rarer], [True, False]), ([rarer, common], [False, True])):
        assert pruned(np.stack(columns, axis=1)).tolist() == expected


def test_contigs_are_never_mixed() -> None:
    half = np.random.default_rng(3).binomial(2, 0.4, (400, 20)).astype(np.int8)
    dosage = np.hstack([half, half])
    position = np.tile(np.arange(20), 2)
    apart = variants_at(position, np.repeat(["1", "2"], 20))
    assert pruned(dosage, apart).all()
    together = pruned(dosage, variants_at(position))
    assert together.sum() == 20


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_order_of_the_input_is_irrelevant(seed: int) -> None:
    dosage = linked_dosage(60, 80, 0.1, seed)
    table = variants_at(np.arange(80) % 40, np.repeat(["1", "2"], 40))
    order = np.random.default_rng(seed).permutation(80)
    expected = pruned(dosage, table, window=20, step=5)
    shuffled = pruned(dosage[:, order], table.iloc[order], window=20, step=5)
    assert shuffled.tolist() == expected[order].tolist()


@pytest.mark.parametrize(("distance", "n_kept"), [(9, 29), (10, 30)])
def test_only_pairs_within_a_window_count(distance: int, n_kept: int) -> None:
    dosage = np.random.default_rng(4).binomial(2, 0.4, (600, 30)).astype(np.int8)
    dosage[:, 10 + distance] = dosage[:, 10]
    assert pruned(dosage, window=10, step=1).sum() == n_kept


@pytest.mark.parametrize("n_variants", [2, 99, 100, 101, 149, 150, 151, 200, 201])
def test_the_end_of_a_contig_is_pruned_too(n_variants: int) -> None:
    rng = np.random.default_rng(5)
    dosage = rng.binomial(2, 0.4, (600, n_variants)).astype(np.int8)
    dosage[:, -1] = dosage[:, -2]
    assert pruned(dosage).sum() == n_variants - 1


def test_a_variant_that_went_takes_no_other_with_it() -> None:
    """The middle one is linked to both, which are not linked to each other."""
    rng = np.random.default_rng(6)
    first, last = rng.binomial(2, 0.5, 2000), rng.binomial(2, 0.3, 2000)
    middle = np.where(np.arange(2000) % 2 == 0, first, last)
    dosage = np.stack([first, middle, last], axis=1).astype(np.int8)
    assert pruned(dosage, max_r2=0.1).tolist() == [True, False, True]


def test_a_threshold_of_one_prunes_nothing() -> None:
    distinct = np.random.default_rng(7).binomial(2, 0.4, (101, 60)).astype(np.int8)
    dosage = np.repeat(distinct, 2, axis=1)
    columns = standardise(dosage)
    assert (columns.T @ columns).max() > 1  # the rounding that must not prune
    assert pruned(dosage, max_r2=1.0).all()
