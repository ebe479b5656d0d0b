"""Two alleles make a dosage: a table to check by eye, and the shapes it comes in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ancestry_ddvi.loaders.calls import HalfCallError, dosage_of, polyploid
from ancestry_ddvi.loaders.source import HALF_CALL, HAPLOID, CallRule

# Two alleles, then the copies of ALT 1 with half calls taken as missing, reference and haploid.
TABLE = [
    ((0, 0), 0, 0, 0),
    ((0, 1), 1, 1, 1),
    ((1, 0), 1, 1, 1),
    ((1, 1), 2, 2, 2),
    ((0, 2), 0, 0, 0),
    ((1, 2), 1, 1, 1),
    ((2, 2), 0, 0, 0),
    ((-1, -1), -1, -1, -1),
    ((-1, -2), -1, -1, -1),
    ((-2, -2), -1, -1, -1),
    ((0, -2), 0, 0, 0),
    ((1, -2), 2, 2, 2),
    ((2, -2), 0, 0, 0),
    ((-1, 0), -1, 0, 0),
    ((0, -1), -1, 0, 0),
    ((-1, 1), -1, 1, 2),
    ((1, -1), -1, 1, 2),
    ((2, -1), -1, 0, 0),
]
ALLELES = np.array([row[0] for row in TABLE])


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize(("column", "rule"), [(1, "missing"), (2, "reference"), (3, "haploid")])
def test_table(column: int, rule: str, dtype: type) -> None:
    calls = CallRule(rule)
    first, second = ALLELES.astype(dtype).T
    dosage = dosage_of(first, second, 1, calls)
    assert dosage.dtype == np.int8
    assert dosage.tolist() == [row[column] for row in TABLE]
    assert calls.by_rule == {HALF_CALL.format(rule): 5, HAPLOID: 3}


@pytest.mark.parametrize("rule", ["missing", "reference", "haploid"])
def test_the_other_alt(rule: str) -> None:
    """Counting ALT 2 is counting ALT 1 with the two names exchanged."""
    renamed = np.array([-2, -1, 0, 2, 1])[ALLELES + 2]
    a = dosage_of(*ALLELES.T, 2, CallRule(rule))
    np.testing.assert_array_equal(a, dosage_of(*renamed.T, 1, CallRule(rule)))


def test_half_call_is_named_where_none_is_allowed() -> None:
    alleles = np.zeros((3, 5, 2), dtype=np.int8)
    alleles[0, 0] = -1  # missing
    alleles[0, 1] = 1, -2  # haploid
    calls = CallRule("error")
    assert dosage_of(alleles[..., 0], alleles[..., 1], 1, calls)[0].tolist() == [-1, 2, 0, 0, 0]
    alleles[1, 4] = -1, 1
    alleles[2, 0] = 1, -1
    with pytest.raises(HalfCallError, match="sample column 4") as caught:
        dosage_of(alleles[..., 0], alleles[..., 1], 1, calls)
    assert caught.value.at == (1, 4)


def test_nothing_to_count() -> None:
    empty = np.zeros((0, 3), dtype=np.int8)
    assert dosage_of(empty, empty, 1, CallRule()).shape == (0, 3)
    calls = CallRule()
    whole = np.array([0, 1], dtype=np.int8)
    assert dosage_of(whole, whole[::-1], 1, calls).tolist() == [1, 1]
    assert not calls.by_rule


@given(
    alleles=arrays(np.int8, (4, 5, 2), elements=st.integers(-2, 3)),
    rule=st.sampled_from(["missing", "reference", "haploid"]),
)
def test_arrays_as_one_by_one(alleles: np.ndarray, rule: str) -> None:
    first, second = alleles[..., 0], alleles[..., 1]
    together, apart = CallRule(rule), CallRule(rule)
    dosage = dosage_of(first, second, 1, together)
    for at in np.ndindex(4, 5):
        assert dosage_of(first[at][None], second[at][None], 1, apart)[0] == dosage[at]
        assert dosage_of(second[at][None], first[at][None], 1, CallRule(rule))[0] == dosage[at]
    assert together.by_rule == apart.by_rule


def test_polyploid() -> None:
    calls = {
        (0, 1, -2, -2): False,
        (0, -2, -2, -2): False,
        (-1, -1, -2, -2): False,
        (-1, -1, -1, -1): False,
        (0, 1, 1, -2): True,
        (0, 1, -1, -2): True,
        (-1, -1, -1, 0): True,
        (0, 0, 0, 0): True,
    }
    assert polyploid(np.array(list(calls))).tolist() == list(calls.values())
    assert polyploid(np.zeros((2, 3, 2))).shape == (2, 3)
    assert not polyploid(np.zeros((2, 3, 2))).any()
