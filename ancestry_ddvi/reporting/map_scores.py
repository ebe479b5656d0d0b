"""The few scores by which maps are compared, whatever drew them, in the measures of `evaluate`.

    score_in_sample(z, population, superpopulation, fst, seed)       samples the map was fitted to
    score_held_out(train, new, trained_on, held_out, labels)         samples placed on it afterwards

Names begin with the scaling where a mixture of 20 is fitted, whose `reg_covar` is absolute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.reporting.metrics import SCALINGS, evaluate, held_out_knn

_OF_CLUSTERS = ("purity", "completeness", "nmi", "homogeneity", "ari")

IN_SAMPLE: dict[str, tuple[str, ...]] = {
    **{
        f"{scaling}_{name}": (f"gmm_20_{scaling}", "population", name)
        for scaling in SCALINGS
        for name in _OF_CLUSTERS
    },
    **{
        f"{scaling}_superpopulation_nmi": (f"gmm_superpopulation_{scaling}", "nmi")
        for scaling in SCALINGS
    },
    "knn_population": ("knn_population", "accuracy"),
    "knn_superpopulation": ("knn_superpopulation", "accuracy"),
    "fst_rank_correlation": ("fst_rank_correlation", "spearman"),
}
"""Score -> where it stands in what `evaluate` returns."""


def table_of(z: np.ndarray, sample_id: np.ndarray | None = None) -> EmbeddingTable:
    """Positions (n_samples, n_latent) as a table of certain places in one cluster, without a bound.

    Ids are numbers where none are given.
    """
    ids = np.arange(len(z)).astype(str) if sample_id is None else sample_id
    draws, one = np.stack([z, z]), np.ones((len(z), 1))
    return EmbeddingTable.from_draws(draws, ids, one, z, np.full(len(z), np.nan))


def score_in_sample(
    z: np.ndarray,
    population: np.ndarray,
    superpopulation: np.ndarray | None,
    fst: pd.DataFrame | None,
    seed: int,
) -> dict[str, float]:
    """Every score of a map whose method has seen the samples.

    Parameters
    ----------
    z
        (n_samples, n_latent), finite.
    population, superpopulation
        (n_samples,) labels, "" where missing.
    fst
        Square, populations as index and columns.
    seed
        Shuffles the folds of the neighbour scores.

    Returns
    -------
    Scores by name; what the labels or the number of samples do not allow is left out.

    Raises
    ------
    InputError
        If a latent is not finite.
    """
    groups = evaluate(
        table_of(z),
        population=pd.Series(population),
        superpopulation=None if superpopulation is None else pd.Series(superpopulation),
        fst=fst,
        seed=seed,
        data="",
    )
    found = {name: _at(groups, path) for name, path in IN_SAMPLE.items()}
    return {name: value for name, value in found.items() if value is not None}


def score_held_out(
    train: np.ndarray,
    new: np.ndarray,
    trained_on: np.ndarray,
    held_out: np.ndarray,
    labels: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """Neighbour scores of new samples among training samples.

    Parameters
    ----------
    train, new
        (n_train, n_latent), (n_new, n_latent) positions.
    trained_on, held_out
        (n_samples,) bool, which samples are the training ones, and which the new ones.
    labels
        Level -> (n_samples,) labels, "" where missing.

    Returns
    -------
    `knn_` and the level -> accuracy; a level with too few labels is left out.
    """
    z = np.concatenate([train, new])
    is_new = np.repeat([False, True], [len(train), len(new)])
    row = {}
    for level, values in labels.items():
        ordered = np.concatenate([values[trained_on], values[held_out]])
        accuracy = held_out_knn(z, ordered, is_new, level, "").get("accuracy")
        if accuracy is not None:
            row[f"knn_{level}"] = float(accuracy)
    return row


def _at(groups: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = groups
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return None if value is None else float(value)
