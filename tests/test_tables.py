"""embedding.csv: the contract's columns, exact bytes, and ids that come back as they went in."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from reporting_helpers import HOSTILE_IDS, make_table

from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.reporting import write_embedding_csv


def test_golden_file(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "sample_id": ["A", 'b,"c'],
            "z1": [1 / 3, -1234567.0],
            "z1_sd": [0.5, 1e-9],
            "cluster": [2, 1],
            "cluster_probability": [1.0, 0.25],
            "z1_low": [-0.5, -1234568.0],
            "z1_high": [1.5, -1234566.0],
            "region_area": [2.0, np.nan],
            "n_modes": pd.array([2, None], dtype="Int64"),
            "site": [1234567.5, np.nan],
        }
    )
    path = tmp_path / "embedding.csv"
    write_embedding_csv(path, EmbeddingTable(frame, 1, np.zeros((2, 0)), np.zeros(2)))
    assert path.read_bytes() == (
        b"sample_id,z1,z1_sd,cluster,cluster_probability,z1_low,z1_high,region_area,n_modes,"
        b"site\n"
        b"A,0.333333,0.5,2,1,-0.5,1.5,2,2,1234567.5\n"
        b'"b,""c",-1.23457e+06,1e-09,1,0.25,-1.23457e+06,-1.23457e+06,,,\n'
    )


def test_columns_order_and_equal_bytes(tmp_path: Path) -> None:
    table, population, _ = make_table(n_latent=3)
    table = table.with_labels(population.rename("population").to_frame())
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    write_embedding_csv(first, table)
    write_embedding_csv(second, table)
    assert first.read_bytes() == second.read_bytes()
    read = pd.read_csv(first)
    assert list(read.columns) == [
        *["sample_id", "z1", "z2", "z3", "z1_sd", "z2_sd", "z3_sd"],
        *["cluster", "cluster_probability", "z1_low", "z1_high", "z2_low", "z2_high"],
        *["z3_low", "z3_high", "region_area", "n_modes", "population"],
    ]
    assert list(read["sample_id"]) == list(table.sample_id)
    assert np.allclose(read[["z1", "z2", "z3"]], table.z, rtol=1e-5)


def read_ids(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row["sample_id"] for row in csv.DictReader(file)]


def test_hostile_ids_come_back(tmp_path: Path) -> None:
    ids = [*HOSTILE_IDS, "line\nbreak", "carriage\rreturn"]
    table, _, _ = make_table(sample_id=ids)
    write_embedding_csv(tmp_path / "e.csv", table)
    assert read_ids(tmp_path / "e.csv")[: len(ids)] == ids


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1))
def test_any_id_comes_back(tmp_path_factory: object, ids: list[str]) -> None:
    path = Path(tmp_path_factory.mktemp("csv")) / "e.csv"  # type: ignore[attr-defined]
    n = len(ids)
    draws = np.random.default_rng(0).normal(size=(3, n, 1))
    table = EmbeddingTable.from_draws(
        draws, np.array(ids, object), np.ones((n, 1)), np.ones((n, 1)), np.zeros(n)
    )
    write_embedding_csv(path, table)
    assert read_ids(path) == ids
