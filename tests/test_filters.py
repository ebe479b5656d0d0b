"""Counts and filters against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import make_variants
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.preprocessing import filters
from ancestry_ddvi.preprocessing.filters import (
    VariantCounts,
    column_blocks,
    filter_variants,
    sample_call_rate,
)

dosages = arrays(
    np.int8,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.integers(-1, 2),
)

# Columns: common, half missing, nobody called, monomorphic, fixed for the counted allele, rare,
# heterozygous wherever it is called.
BY_HAND = np.array(
    [
        [0, -1, -1, 0, 2, 0, 1],
        [1, 2, -1, 0, 2, 0, 1],
        [2, -1, -1, 0, 2, 0, -1],
        [1, 1, -1, 0, 2, 1, 1],
    ],
    dtype=np.int8,
)


def genotypes(dosage: np.ndarray) -> GenotypeMatrix:
    """Wrap dosages."""
    sample_id = np.array([f"S{i}" for i in range(len(dosage))])
    return GenotypeMatrix(dosage, sample_id, make_variants(dosage.shape[1]))


def test_counts_by_hand() -> None:
    counts = VariantCounts.of(BY_HAND)
    assert counts.n_called.tolist() == [4, 2, 0, 4, 4, 4, 3]
    assert counts.n_counted.tolist() == [4, 3, 0, 0, 8, 1, 3]
    assert counts.call_rate.tolist() == [1, 0.5, 0, 1, 1, 1, 0.75]
    np.testing.assert_array_equal(counts.allele_frequency, [0.5, 0.75, np.nan, 0, 1, 0.125, 0.5])
    np.testing.assert_array_equal(counts.maf, [0.5, 0.25, np.nan, 0, 0, 0.125, 0.5])
    assert counts.varies.tolist() == [True, True, False, False, False, True, False]


def test_filters_by_hand_in_their_order() -> None:
    keep, funnel = filter_variants(VariantCounts.of(BY_HAND), min_call_rate=0.75, min_maf=0.2)
    assert keep.tolist() == [True, False, False, False, False, False, False]
    assert funnel == {"call rate below 0.75": 2, "monomorphic": 3, "MAF below 0.2": 1}


def test_a_variant_that_nobody_is_called_at_never_passes() -> None:
    keep, funnel = filter_variants(VariantCounts.of(BY_HAND), min_call_rate=0, min_maf=0)
    assert keep.tolist() == [True, True, False, False, False, True, False]
    assert funnel["monomorphic"] == 4


@pytest.mark.parametrize("counted", [2, 18])
def test_thresholds_are_inclusive_for_either_counted_allele(counted: int) -> None:
    """1 - 18/20 in floating point is 0.0999..., which must not fail a threshold of 0.1."""
    dosage = np.zeros((10, 1), dtype=np.int8)
    dosage[: counted // 2] = 2
    keep, _ = filter_variants(VariantCounts.of(dosage), min_call_rate=1, min_maf=0.1)
    assert keep.tolist() == [True]
    keep, _ = filter_variants(VariantCounts.of(dosage), min_call_rate=1, min_maf=0.1001)
    assert keep.tolist() == [False]


@given(dosages, st.floats(0, 1), st.floats(0, 0.5))
def test_each_variant_is_kept_or_counted_once_whichever_allele_is_counted(
    dosage: np.ndarray, min_call_rate: float, min_maf: float
) -> None:
    swapped = np.where(dosage < 0, dosage, 2 - dosage).astype(np.int8)
    (keep, funnel), (keep_swapped, funnel_swapped) = (
        filter_variants(VariantCounts.of(d), min_call_rate=min_call_rate, min_maf=min_maf)
        for d in (dosage, swapped)
    )
    assert keep.sum() + sum(funnel.values()) == dosage.shape[1]
    assert keep.tolist() == keep_swapped.tolist()
    assert funnel == funnel_swapped


@given(dosages)
def test_counts_do_not_depend_on_blocks(dosage: np.ndarray) -> None:
    whole, rates = VariantCounts.of(dosage), sample_call_rate(genotypes(dosage))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "BLOCK_BYTES", 3 * len(dosage))
        blocks = VariantCounts.of(dosage)
        assert sample_call_rate(genotypes(dosage)).tolist() == rates.tolist()
    assert blocks.n_called.tolist() == whole.n_called.tolist()
    assert blocks.n_counted.tolist() == whole.n_counted.tolist()
    assert blocks.varies.tolist() == whole.varies.tolist()
    assert whole.varies.tolist() == [len({*column} - {-1}) > 1 for column in dosage.T]
    assert whole.n_called.tolist() == [int((column >= 0).sum()) for column in dosage.T]
    assert whole.n_counted.tolist() == [int(column[column >= 0].sum()) for column in dosage.T]


@given(st.integers(0, 10**7), st.integers(0, 10**6), st.sampled_from([1, 4]))
def test_blocks_cover_each_column_once_in_bounded_memory(
    n_rows: int, n_columns: int, size: int
) -> None:
    blocks = column_blocks(n_rows, n_columns, size)
    edges = [0] + [block.stop for block in blocks]
    assert [block.start for block in blocks] == edges[:-1]
    assert edges[-1] == n_columns
    widest = max((block.stop - block.start for block in blocks), default=0)
    assert widest <= 1 or widest * n_rows * size <= filters.BLOCK_BYTES


def test_sample_call_rate_by_hand() -> None:
    np.testing.assert_allclose(sample_call_rate(genotypes(BY_HAND)), [5 / 7, 6 / 7, 4 / 7, 6 / 7])


def test_sample_call_rate_is_exact_on_a_threshold() -> None:
    dosage = np.full((1, 10), -1, dtype=np.int8)
    dosage[0, 0] = 1
    assert sample_call_rate(genotypes(dosage)) >= 0.1


def test_no_variants_is_not_the_samples_fault() -> None:
    assert sample_call_rate(genotypes(np.zeros((3, 0), dtype=np.int8))).tolist() == [1, 1, 1]
