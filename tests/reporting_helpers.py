"""Small embeddings with a known structure, for the tests of reporting."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ancestry_ddvi.embedding import EmbeddingTable, ReferencePlaces

HOSTILE_IDS = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "comma,quote\"and'apostrophe",
    "=cmd|'/c calc'!A1",
    "@SUM(1)",
    "-1+1",
    "{{ 7 * 7 }}",
    "%{x}",
    "$\\frac{1}{",
    "Ωμέγα-样本-🧬",
    "x" * 5000,
]


def make_table(
    n_groups: int = 4,
    n_each: int = 15,
    n_latent: int = 2,
    n_pcs: int = 3,
    sample_id: list[str] | None = None,
    seed: int = 0,
) -> tuple[EmbeddingTable, pd.Series, pd.Series]:
    """Groups far apart: a table, its populations P0.. and their superpopulations, two each."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), n_each)
    n = len(group)
    ids = [f"S{i}" for i in range(n)]
    if sample_id is not None:
        ids[: len(sample_id)] = sample_id
    centres = rng.normal(0, 40, (n_groups, n_latent))
    z = centres[group] + rng.normal(0, 0.5, (n, n_latent))
    draws = z + rng.normal(0, 0.1, (10, n, n_latent))
    probability = np.full((n, n_groups), 0.01)
    probability[np.arange(n), group] = 1 - 0.01 * (n_groups - 1)
    table = EmbeddingTable.from_draws(
        draws, np.array(ids), probability, rng.normal(size=(n, n_pcs)), np.zeros(n)
    )
    population = pd.Series([f"P{g}" for g in group])
    return table, population, pd.Series([f"Q{g // 2}" for g in group])


def make_reference(n_groups: int = 4, n_each: int = 10, n_latent: int = 2) -> ReferencePlaces:
    """Samples behind those of `make_table`: populations P0.., of superpopulations Q0.., and one
    sample without a label."""
    group = np.repeat(np.arange(n_groups), n_each)
    z = np.random.default_rng(1).normal(0, 30, (len(group), n_latent)).astype(np.float32)
    population = np.array([f"P{g}" for g in group], dtype=object)
    superpopulation = np.array([f"Q{g // 2}" for g in group], dtype=object)
    population[-1] = superpopulation[-1] = ""
    return ReferencePlaces(z, population.astype(str), superpopulation.astype(str))


def make_calls(n_groups: int = 4, n_each: int = 15) -> pd.DataFrame:
    """Calls of the samples of `make_table` as in ancestry.csv; the first three got none."""
    group = np.repeat(np.arange(n_groups), n_each)
    n = len(group)
    population = np.array([f"P{g}" for g in group], dtype=object)
    superpopulation = np.array([f"Q{g // 2}" for g in group], dtype=object)
    population[:3] = superpopulation[:3] = ["uncertain", "outside reference", "no data"]
    p = np.full((n, n_groups), 0.01)
    p[np.arange(n), group] = 1 - 0.01 * (n_groups - 1)
    p[2] = np.nan
    frame = pd.DataFrame({"sample_id": [f"S{i}" for i in range(n)], "n_sites": 1234})
    frame["effective_sites"] = np.where(np.arange(n) % 2, 1000.0, 345.6)
    frame["typicality"] = np.where(np.arange(n) == 2, np.nan, 0.25)
    frame["typicality_power"] = np.where(np.arange(n) == 2, np.nan, 0.99995)
    frame["superpopulation"] = superpopulation
    frame["superpopulation_probability"] = np.where(np.arange(n) == 2, np.nan, 0.75)
    frame["population"], frame["population_probability"] = population, p.max(axis=1)
    for g in range(0, n_groups, 2):
        frame[f"p_Q{g // 2}"] = p[:, g : g + 2].sum(axis=1)
    return frame.assign(**{f"p_P{g}": p[:, g] for g in range(n_groups)})
