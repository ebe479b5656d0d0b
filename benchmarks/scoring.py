"""Scores of any map in the product's own measure, and the peers that are scored beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from ancestry_ddvi.baselines.reductions import Fitted, pca, tsne, umap
from ancestry_ddvi.reporting import scores
from ancestry_ddvi.reporting.scores import clustering_scores, fit_mixture, standardise


def score_in_sample(
    z: np.ndarray,
    population: np.ndarray,
    superpopulation: np.ndarray,
    fst: pd.DataFrame,
    seed: int,
) -> dict[str, float]:
    """Every score of a map whose method has seen the samples.

    Parameters
    ----------
    z
        (n_samples, n_latent).
    population, superpopulation
        (n_samples,) labels.
    fst
        Square, populations as index and columns.
    seed
        Shuffles the folds of the neighbour scores.

    Returns
    -------
    Scores by name; those of the mixture of 20 at the two scalings begin with the scaling.
    """
    n_super = len(np.unique(superpopulation))
    row: dict[str, float] = {}
    for scaling, rms in (("rms_10", 10.0), ("z_score", 1.0)):
        scaled = standardise(z, rms)
        of_20 = clustering_scores(population, fit_mixture(scaled).clusters)
        row |= {f"{scaling}_{name}": value for name, value in of_20.items()}
        few = fit_mixture(scaled, n_super).clusters
        row[f"{scaling}_superpopulation_nmi"] = clustering_scores(superpopulation, few)["nmi"]
    row["knn_population"] = float(scores.knn_accuracy(z, population, seed).mean())
    row["knn_superpopulation"] = float(scores.knn_accuracy(z, superpopulation, seed).mean())
    row["fst_rank_correlation"] = scores.fst_rank_correlation(z, population, fst)[0]
    return row


def score_held_out(
    train: np.ndarray,
    new: np.ndarray,
    trained_on: np.ndarray,
    held_out: np.ndarray,
    labels: dict[str, np.ndarray],
) -> dict[str, float]:
    """Neighbour scores of new samples among training samples.

    Parameters
    ----------
    train, new
        (n_train, n_latent), (n_new, n_latent) positions.
    trained_on, held_out
        (n_samples,) bool, which samples are the training ones, and which the new ones.
    labels
        Level -> (n_samples,) labels.
    """
    return {
        f"knn_{level}": scores.knn_transfer_accuracy(
            train, values[trained_on], new, values[held_out]
        )
        for level, values in labels.items()
    }


PEERS: dict[str, Callable[[np.ndarray, int], Fitted]] = {
    "PCA, 2 components": pca,
    "PCA, 10 components": partial(pca, n_latent=10),
    "UMAP": umap,
    "t-SNE": tsne,
}
