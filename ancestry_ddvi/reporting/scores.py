r"""Scores of any (n, d) array of latents against labels, clusters or genetic distances.

Clustering is scored by the published protocol: a Gaussian mixture of 20 full covariances,
`reg_covar` 1e-2, 10 starts, `random_state` 2, fitted to the latents without labels. `reg_covar` is
an absolute variance, so the score depends on the scale of the axes; both scalings in use are
reported and never mixed.

    purity        = 1/n sum_c max_l n_{lc}            n_{lc}: samples of label l in cluster c
    purity ceiling = 1/n (sum of the k largest labels) reached by k clusters, each one whole label
    NMI           = I(L; C) / ((H(L) + H(C)) / 2)

With 20 clusters against 5 labels NMI stays far below 1 however good the map, so superpopulations
are also scored with as many components as there are superpopulations.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

N_COMPONENTS = 20
PROTOCOL_SEED = 2
N_NEIGHBOURS = 15
N_FOLDS = 5
# Silhouette takes n^2 distances; a sample of this size estimates it to about .005.
_SILHOUETTE_SAMPLES = 5_000


def standardise(z: np.ndarray, rms: float = 1.0) -> np.ndarray:
    """Centre each axis and scale it to root mean square `rms`.

    Parameters
    ----------
    z
        (n_samples, n_latent).
    rms
        1 is the z-score.

    Returns
    -------
    (n_samples, n_latent); an axis without spread becomes 0.
    """
    centred = np.asarray(z, float) - np.mean(z, axis=0)
    spread = np.sqrt(np.mean(centred**2, axis=0))
    real = spread > 1e-12 * np.abs(z).max(axis=0)  # less is rounding of a constant, not spread
    scaled: np.ndarray = np.divide(rms * centred, spread, out=np.zeros_like(centred), where=real)
    return scaled


def contingency(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Count samples by (label, cluster): (n_labels, n_clusters)."""
    rows, row = np.unique(np.asarray(labels, str), return_inverse=True)
    columns, column = np.unique(clusters, return_inverse=True)
    counts = np.zeros((len(rows), len(columns)), int)
    np.add.at(counts, (row, column), 1)
    return counts


def purity(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Share of samples that carry the commonest label of their cluster."""
    counts = contingency(labels, clusters)
    return float(counts.max(axis=0).sum() / counts.sum())


def purity_ceiling(labels: np.ndarray, n_clusters: int) -> float:
    """Give the best purity that any `n_clusters` clusters could reach against `labels`."""
    sizes = np.sort(np.unique(np.asarray(labels, str), return_counts=True)[1])[::-1]
    return float(sizes[:n_clusters].sum() / sizes.sum())


def clustering_scores(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Purity, completeness, homogeneity, NMI (arithmetic) and ARI of clusters against labels.

    Parameters
    ----------
    labels, clusters
        (n_samples,) each, n_samples >= 1.
    """
    from sklearn import metrics

    homogeneity, completeness, _ = metrics.homogeneity_completeness_v_measure(labels, clusters)
    return {
        "purity": purity(labels, clusters),
        "completeness": float(completeness),
        "nmi": float(metrics.normalized_mutual_info_score(labels, clusters)),
        "homogeneity": float(homogeneity),
        "ari": float(metrics.adjusted_rand_score(labels, clusters)),
    }


@dataclass(frozen=True)
class MixtureFit:
    """A fitted Gaussian mixture: (n_samples,) clusters and how well it explains the latents."""

    clusters: np.ndarray
    bic: float
    mean_log_likelihood: float
    converged: bool


def fit_mixture(
    z: np.ndarray, n_components: int = N_COMPONENTS, seed: int = PROTOCOL_SEED
) -> MixtureFit:
    """Fit the published protocol's mixture to `z`, (n_samples, n_latent), already scaled."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        n_components, covariance_type="full", reg_covar=1e-2, n_init=10, random_state=seed
    )
    with warnings.catch_warnings():  # convergence is reported in the result, not on the terminal
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = mixture.fit_predict(z)
    return MixtureFit(
        clusters, float(mixture.bic(z)), float(mixture.score(z)), bool(mixture.converged_)
    )


def silhouette(z: np.ndarray, labels: np.ndarray, seed: int = 0) -> float | None:
    """Mean silhouette of `labels` in `z`; None unless there are 2 to n_samples - 1 labels.

    Above 5,000 samples a random 5,000, drawn with `seed`, stand for all.
    """
    from sklearn.metrics import silhouette_score

    if len(z) > _SILHOUETTE_SAMPLES:
        keep = np.random.default_rng(seed).choice(len(z), _SILHOUETTE_SAMPLES, replace=False)
        z, labels = z[keep], labels[keep]
    if not 2 <= len(np.unique(labels)) < len(z):
        return None
    return float(silhouette_score(z, labels))


def knn_accuracy(
    z: np.ndarray, labels: np.ndarray, seed: int, n_neighbours: int = N_NEIGHBOURS
) -> np.ndarray:
    """Share of samples whose nearest neighbours outvote into their own label, fold by fold.

    Parameters
    ----------
    z
        (n_samples, n_latent).
    labels
        (n_samples,), every label at least 5 times.
    seed
        Shuffles the stratified folds.

    Returns
    -------
    (5,) accuracy of each fold.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_score(KNeighborsClassifier(n_neighbours), z, labels, cv=folds)
    return np.asarray(scores, float)


def knn_transfer_accuracy(
    reference: np.ndarray,
    reference_labels: np.ndarray,
    query: np.ndarray,
    query_labels: np.ndarray,
    n_neighbours: int = N_NEIGHBOURS,
) -> float:
    """Share of query samples whose nearest reference samples outvote into their own label."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(n_neighbours).fit(reference, reference_labels)
    return float(model.score(query, query_labels))


def fst_rank_correlation(
    z: np.ndarray, population: np.ndarray, fst: pd.DataFrame
) -> tuple[float, int]:
    """Spearman correlation of the distances of population centroids with their FST.

    Parameters
    ----------
    z
        (n_samples, n_latent).
    population
        (n_samples,).
    fst
        Square, populations as index and columns. Only populations found in both count, and a pair
        without a finite FST is left out.

    Returns
    -------
    The correlation (nan with fewer than 3 pairs, or where either side is constant) and the number
    of pairs it rests on.
    """
    from scipy.stats import spearmanr

    population = np.asarray(population, str)
    known = set(fst.index.astype(str))
    names = [name for name in np.unique(population) if name in known]
    if len(names) < 3:
        return float("nan"), len(names) * (len(names) - 1) // 2
    centroids = np.array([z[population == name].mean(axis=0) for name in names])
    first, second = np.triu_indices(len(names), 1)
    distance = np.linalg.norm(centroids[first] - centroids[second], axis=1)
    square = fst.set_axis(fst.index.astype(str), axis=0).set_axis(fst.columns.astype(str), axis=1)
    expected = square.loc[names, names].to_numpy(float)[first, second]
    finite = np.isfinite(expected)
    distance, expected = distance[finite], expected[finite]
    if len(expected) < 3 or np.ptp(distance) == 0 or np.ptp(expected) == 0:
        return float("nan"), len(expected)
    return float(spearmanr(distance, expected).statistic), len(expected)


def expected_calibration_error(
    probability: np.ndarray, correct: np.ndarray, n_bins: int = 10
) -> float:
    """Mean distance of confidence and accuracy over equal bins of confidence, weighted by size.

    Naeini, Cooper & Hauskrecht 2015; `probability` (n,) of the class that was called, and whether
    it was `correct` (n,).
    """
    bins = np.clip((probability * n_bins).astype(int), 0, n_bins - 1)
    error = 0.0
    for b in np.unique(bins):
        inside = bins == b
        gap = probability[inside].mean() - correct[inside].mean()
        error += float(abs(gap) * inside.mean())
    return error
