"""Small embeddings with a known structure, for the tests of reporting."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ancestry_ddvi.embedding import EmbeddingTable

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
