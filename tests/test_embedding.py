"""The table after the model, on numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ancestry_ddvi.embedding import EmbeddingTable


@pytest.fixture
def table() -> EmbeddingTable:
    # (3 draws, 2 samples, 2 latents)
    draws = np.array([[[1, 10], [0, 0]], [[2, 10], [0, 3]], [[3, 10], [0, 6]]], dtype=np.float32)
    probability = np.array([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]])
    return EmbeddingTable.from_draws(
        draws, np.array(["b", "a"]), probability, np.eye(2), np.zeros(2)
    )


def test_known_numbers(table: EmbeddingTable) -> None:
    expected = pd.DataFrame(
        {
            "sample_id": ["b", "a"],
            "z1": [2.0, 0.0],
            "z2": [10.0, 3.0],
            "z1_sd": [1.0, 0.0],  # of 1, 2, 3, with n - 1
            "z2_sd": [0.0, 3.0],
            "cluster": [2, 1],  # counted from 1
            "cluster_probability": [0.7, 0.5],
            "z1_low": [1.1, 0.0],  # 5 % of the way from the least to the next
            "z1_high": [2.9, 0.0],
            "z2_low": [10.0, 0.3],
            "z2_high": [10.0, 5.7],
            "region_area": [np.nan, np.nan],  # three draws show no region
            "n_modes": pd.array([None, None], dtype="Int64"),
        }
    )
    pd.testing.assert_frame_equal(table.frame, expected, check_dtype=False)
    assert table.n_latent == 2
    np.testing.assert_array_equal(table.z, [[2, 10], [0, 3]])
    np.testing.assert_array_equal(table.z_sd, [[1, 0], [0, 3]])
    np.testing.assert_array_equal(table.pcs, np.eye(2), np.zeros(2))
    assert table.sample_id.tolist() == ["b", "a"]


def test_many_latents_keep_their_order() -> None:
    draws = np.tile(np.arange(12.0), (2, 3, 1))
    ids = np.array(["x", "y", "z"])
    table = EmbeddingTable.from_draws(draws, ids, np.ones((3, 1)), np.zeros((3, 0)), np.zeros(3))
    np.testing.assert_array_equal(table.z, np.tile(np.arange(12.0), (3, 1)))
    assert list(table.frame.columns[:13]) == ["sample_id", *(f"z{d}" for d in range(1, 13))]


def test_labels_are_joined_by_place(table: EmbeddingTable) -> None:
    # Indexed by id, in the table's order, which is not the alphabet's.
    labels = pd.DataFrame({"pop": ["FIN", None], "n": ["007", "1e5"]}, index=["b", "a"])
    joined = table.with_labels(labels)
    assert list(joined.frame.columns) == [*table.frame.columns, "pop", "n"]
    assert joined.frame["sample_id"].tolist() == ["b", "a"]
    assert joined.frame["pop"].iloc[0] == "FIN"
    assert pd.isna(joined.frame["pop"].iloc[1])
    assert joined.frame["n"].tolist() == ["007", "1e5"]
    np.testing.assert_array_equal(joined.z, table.z)
    assert "pop" not in table.frame.columns


def test_selected_samples_keep_their_rows(table: EmbeddingTable) -> None:
    part = table.select(np.array([False, True]))
    assert part.sample_id.tolist() == ["a"]
    assert part.frame.index.tolist() == [0]
    np.testing.assert_array_equal(part.z, table.z[1:])
    np.testing.assert_array_equal(part.pcs, table.pcs[1:])
