"""Hudson's FST by hand and on drift of known size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import make_variants
from hypothesis import given, settings
from hypothesis import strategies as st
from simulate import balding_nichols

from ancestry_ddvi.errors import LabelFileError
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.preprocessing.fst import PopulationAlleles, hudson_fst_matrix


def genotypes(dosage: np.ndarray) -> GenotypeMatrix:
    """Wrap dosages."""
    sample_id = np.array([f"S{i}" for i in range(len(dosage))])
    return GenotypeMatrix(dosage.astype(np.int8), sample_id, make_variants(dosage.shape[1]))


def hudson_by_formula(a: np.ndarray, b: np.ndarray) -> float:
    """Bhatia et al. 2013, equation 10, a variant at a time."""
    numerator = denominator = 0.0
    for column_a, column_b in zip(a.T, b.T, strict=True):
        called_a, called_b = column_a[column_a >= 0], column_b[column_b >= 0]
        if len(called_a) == 0 or len(called_b) == 0:
            continue
        p, q = called_a.mean() / 2, called_b.mean() / 2
        numerator += (p - q) ** 2
        numerator -= p * (1 - p) / (2 * len(called_a) - 1)
        numerator -= q * (1 - q) / (2 * len(called_b) - 1)
        denominator += p * (1 - q) + q * (1 - p)
    return numerator / denominator


def test_known_answer() -> None:
    """Variant 1: p = 1/4, q = 1; N = 9/16 - (3/16)/3 - 0 = 1/2, D = 3/4.

    Variant 2: p = 1/2, q = 1/2; N = 0 - (1/4)/3 - (1/4)/3 = -1/6, D = 1/2. So FST is
    (1/2 - 1/6) / (3/4 + 1/2) = 4/15, while the mean of ratios would be 1/6.
    """
    dosage = np.array([[0, 0], [1, 2], [2, 1], [2, 1]])
    fst = hudson_fst_matrix(genotypes(dosage), np.array(["a", "a", "b", "b"]))
    np.testing.assert_allclose(fst, [[0, 4 / 15], [4 / 15, 0]], rtol=1e-12)


def test_populations_are_sorted_and_small_ones_and_unlabelled_samples_left_out() -> None:
    simulated, population = balding_nichols(10, 200, 0.1, 3, seed=0)
    labels = pd.Series(population, dtype=object)
    labels[:10] = "z"
    labels[[10, 20]] = [None, np.nan]
    labels[29] = "alone"
    fst = hudson_fst_matrix(simulated, labels)
    assert list(fst.index) == list(fst.columns) == ["P1", "P2", "z"]
    pieces = {"P1": slice(11, 20), "P2": slice(21, 29), "z": slice(0, 10)}
    for a, rows in pieces.items():
        for b, others in pieces.items():
            if a != b:
                expected = hudson_by_formula(simulated.dosage[rows], simulated.dosage[others])
                assert fst.loc[a, b] == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0, 0.7))
def test_missing_genotypes_are_left_out_of_the_counts(seed: int, missing: float) -> None:
    simulated, population = balding_nichols(4, 60, 0.1, 3, seed=seed)
    dosage = simulated.dosage.copy()
    dosage[np.random.default_rng(seed).random(dosage.shape) < missing] = -1
    dosage[:, :3] = simulated.dosage[:, :3]  # so that every pair has variants in common
    fst = hudson_fst_matrix(genotypes(dosage), population)
    np.testing.assert_array_equal(fst, fst.T)
    assert (np.diag(fst) == 0).all()
    expected = hudson_by_formula(dosage[:4], dosage[4:8])
    assert fst.loc["P0", "P1"] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_simulated_drift_is_recovered() -> None:
    """4,000 variants leave a standard error near 2 % of F; the margin is about four of them."""
    for drift in (0.02, 0.1):
        fst = hudson_fst_matrix(*balding_nichols(40, 4000, drift, 4, seed=3)).to_numpy()
        np.testing.assert_allclose(fst[np.triu_indices(4, k=1)], drift, rtol=0.09)


def test_one_population_split_at_random_has_none() -> None:
    simulated, _ = balding_nichols(100, 4000, 0.1, 1, seed=4)
    fst = hudson_fst_matrix(simulated, np.tile(["a", "b"], 50))
    assert abs(fst.to_numpy()[0, 1]) < 0.001


def test_nothing_called_in_common_is_unknown_not_zero() -> None:
    dosage = np.array([[0, -1], [1, -1], [-1, 1], [-1, 2]])
    fst = hudson_fst_matrix(genotypes(dosage), np.array(["a", "a", "b", "b"]))
    assert np.isnan(fst.to_numpy()[0, 1])


def test_labels_must_match_the_samples() -> None:
    with pytest.raises(LabelFileError, match="3 labels for 4 samples"):
        hudson_fst_matrix(genotypes(np.ones((4, 2))), np.array(["a", "a", "b"]))


def test_no_labels_give_an_empty_table() -> None:
    fst = hudson_fst_matrix(genotypes(np.ones((4, 2))), np.array([None] * 4, dtype=object))
    assert fst.shape == (0, 0)


def test_counts_of_parts_add_up() -> None:
    simulated, labels = balding_nichols(20, 500, 0.05, 3, seed=1)
    whole = hudson_fst_matrix(simulated, labels)
    alleles = PopulationAlleles(labels)
    # No population is whole in any part, and the last part has one of them alone.
    for rows in (slice(0, 7), slice(7, 59), slice(59, 60)):
        alleles.add(simulated.select(samples=np.arange(60)[rows]), rows)
    pd.testing.assert_frame_equal(alleles.hudson_fst(), whole, check_exact=True)
