"""Every metric of a finished embedding, each with its data, split, scorer and seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.errors import InputError, counted
from ancestry_ddvi.reporting.scores import (
    N_COMPONENTS,
    N_FOLDS,
    N_NEIGHBOURS,
    PROTOCOL_SEED,
    clustering_scores,
    expected_calibration_error,
    fit_mixture,
    fst_rank_correlation,
    knn_accuracy,
    knn_transfer_accuracy,
    purity,
    purity_ceiling,
    silhouette,
    standardise,
)

__all__ = [
    "class_scores",
    "clustering_scores",
    "evaluate",
    "fit_mixture",
    "fst_rank_correlation",
    "held_out_knn",
    "knn_accuracy",
    "knn_transfer_accuracy",
    "label_values",
    "purity",
    "purity_ceiling",
    "silhouette",
    "standardise",
]

SCALINGS = {"z_score": 1.0, "rms_10": 10.0}
_PROTOCOL = "full covariances, reg_covar 1e-2, 10 starts, random_state 2"


@dataclass(frozen=True)
class _Scored:
    """The samples that one `evaluate` scores, and what every group of metrics has to say."""

    z: np.ndarray
    labels: dict[str, np.ndarray]  # level -> (n_samples,) str, "" where missing
    data: str
    split: str
    seed: int

    def group(self, scorer: str, n_samples: int, seed: int, **values: Any) -> dict[str, Any]:
        return {
            "data": self.data,
            "split": self.split,
            "scorer": scorer,
            "seed": seed,
            "n_samples": n_samples,
            **values,
        }


def evaluate(
    table: EmbeddingTable,
    *,
    population: pd.Series | None,
    superpopulation: pd.Series | None,
    fst: pd.DataFrame | None,
    seed: int,
    data: str,
    held_out: np.ndarray | None = None,
) -> dict[str, Any]:
    """Score an embedding in every way its labels allow.

    Parameters
    ----------
    table
        The embedding.
    population, superpopulation
        (n_samples,) labels in the table's order; missing or empty ones are left out and counted.
    fst
        Hudson FST, square, populations as index and columns.
    seed
        Of the run: shuffles the folds. The mixture keeps the protocol's own.
    data
        What was embedded, in words.
    held_out
        (n_samples,) True for the samples the model was not trained on. The in-sample groups then
        score the others only, and `held_out_knn_*` places these among them. If all are True, every
        group is a held-out one.

    Returns
    -------
    Groups of metrics by name, ready for JSON, each with `data`, `split`, `scorer`, `seed` and
    `n_samples`; what could not be measured has `skipped` with the reason.

    Raises
    ------
    InputError
        If a latent is not finite.
    ValueError
        If labels or mask do not belong to the table's samples.
    """
    bad = np.flatnonzero(~np.isfinite(table.z).all(axis=1))
    if len(bad):
        raise InputError(
            f"embedding: sample {str(table.sample_id[bad[0]])!r} has a latent that is not finite "
            f"({len(bad)} such samples); train again with another --seed, or check the input"
        )
    given = {"population": population, "superpopulation": superpopulation}
    labels = {level: label_values(s, table) for level, s in given.items() if s is not None}
    if held_out is None:
        held_out = np.zeros(len(table.frame), bool)
    if np.shape(held_out) != (len(table.frame),):
        raise ValueError(f"held_out has shape {np.shape(held_out)}, not ({len(table.frame)},)")
    held_out = np.asarray(held_out, bool)
    all_new = bool(held_out.all())
    rows = held_out if all_new else ~held_out
    split = (
        "held-out: the model was trained on none of these samples"
        if all_new
        else "in-sample: the model was trained on these samples"
    )
    scored = _Scored(
        table.z[rows], {level: values[rows] for level, values in labels.items()}, data, split, seed
    )
    groups = {"embedding": _embedding(scored, table, rows)}
    for scaling, rms in SCALINGS.items():
        groups[f"gmm_20_{scaling}"] = _gmm_20(scored, scaling, rms)
    if "superpopulation" in labels:
        for scaling, rms in SCALINGS.items():
            groups[f"gmm_superpopulation_{scaling}"] = _gmm_superpopulation(scored, scaling, rms)
    for level in labels:
        groups[f"purity_ceiling_{level}"] = _ceiling(scored, level)
    if len(labels) == 2:
        groups["superpopulation_oracle"] = _oracle(scored)
    for level in labels:
        groups[f"label_silhouette_{level}"] = _label_silhouette(scored, level)
        groups[f"knn_{level}"] = _knn(scored, level)
    if fst is not None and population is not None:
        groups["fst_rank_correlation"] = _fst(scored, fst)
    if held_out.any() and not all_new:
        for level, values in labels.items():
            groups[f"held_out_knn_{level}"] = held_out_knn(table.z, values, held_out, level, data)
    return groups


def class_scores(
    table: EmbeddingTable,
    labels: pd.Series | None,
    held_out: np.ndarray,
    *,
    seed: int,
    data: str,
) -> dict[str, Any]:
    """Score the classes of a model that labels were learnt from.

    Parameters
    ----------
    table
        With classes.
    labels
        (n_samples,) in the table's order; missing ones are not scored.
    held_out
        (n_samples,) bool: samples that nothing was learnt from, their labels least of all.
    seed, data
        See `evaluate`.

    Returns
    -------
    `classes`: how well classifier and map agree; `held_out_classes`, if there is a label to score:
    one that is no class is counted and cannot be got right.
    """
    assert table.classes is not None
    assert table.classes_on_map is not None
    q, on_map = table.classes.to_numpy(), table.classes_on_map
    every = _Scored(table.z, {}, data, "all samples", seed)
    groups = {
        "classes": every.group(
            "classifier q(l | x) against p(l | z) averaged over the posterior: share of samples "
            "with the same likeliest class, and mean total variation",
            len(q),
            seed,
            n_classes=q.shape[1],
            agreement=float((q.argmax(axis=1) == on_map.argmax(axis=1)).mean()),
            total_variation=float(0.5 * np.abs(q - on_map).sum(axis=1).mean()),
        )
    }
    values = np.array([], str) if labels is None else label_values(labels, table)
    rows = held_out & (values != "") if len(values) else np.zeros(len(q), bool)
    if rows.any():
        guess = table.frame["class"].to_numpy(str)
        new = _Scored(table.z, {}, data, "held-out: nothing was learnt from these samples", seed)
        groups["held_out_classes"] = new.group(
            "likeliest class of q(l | x)",
            int(rows.sum()),
            seed,
            accuracy=float((guess == values)[rows].mean()),
            n_unknown_class=int((~np.isin(values, table.classes.columns))[rows].sum()),
        )
    return groups


def call_scores(
    population: pd.DataFrame,
    group: pd.DataFrame,
    of_population: pd.Series | None,
    of_group: pd.Series | None,
    held_out: np.ndarray,
    *,
    seed: int,
    data: str,
) -> dict[str, Any]:
    """Score ancestry calls against labels of samples that nothing was learnt from.

    Parameters
    ----------
    population, group
        (n_samples, ...) probabilities, columns named; nan where nothing was called.
    of_population, of_group
        (n_samples,) labels; missing ones, and those that are no column, are not scored.
    held_out
        (n_samples,) bool.
    seed, data
        See `evaluate`.

    Returns
    -------
    `calls_population` and `calls_superpopulation`, those that there are labels for.
    """
    groups = {}
    for level, table, labels in (
        ("population", population, of_population),
        ("superpopulation", group, of_group),
    ):
        if labels is None or not table.shape[1]:
            continue
        true, p = labels.fillna("").astype(str).to_numpy(str), table.to_numpy()
        names = table.columns.to_numpy(str)
        rows = held_out & np.isfinite(p).all(axis=1) & np.isin(true, names)
        if not rows.any():
            continue
        correct = names[p[rows].argmax(axis=1)] == true[rows]
        sure = p[rows].max(axis=1) >= 0.9
        scored = _Scored(np.empty((0, 0)), {}, data, "held-out: no genotype was learnt from", seed)
        groups[f"calls_{level}"] = scored.group(
            "likeliest of the calibrated probabilities; confidently wrong: at .9 or more",
            int(rows.sum()),
            seed,
            accuracy=float(correct.mean()),
            calibration_error=expected_calibration_error(p[rows].max(axis=1), correct),
            confidently_wrong=float((sure & ~correct).mean()),
        )
    return groups


def label_values(labels: pd.Series, table: EmbeddingTable) -> np.ndarray:
    """Give (n_samples,) labels as text, "" where missing.

    Raises
    ------
    ValueError
        If the series is of another length, or is indexed by ids in another order.
    """
    if len(labels) != len(table.frame):
        raise ValueError(f"{len(labels)} labels for {len(table.frame)} samples")
    by_position = isinstance(labels.index, pd.RangeIndex)
    if not by_position and list(labels.index.astype(str)) != list(table.sample_id):
        raise ValueError("labels are not in the order of the table's samples")
    values = labels.astype(object).where(labels.notna(), "").astype(str).str.strip()
    return values.to_numpy(dtype=str)


def _embedding(scored: _Scored, table: EmbeddingTable, rows: np.ndarray) -> dict[str, Any]:
    frame = table.frame[rows]
    return scored.group(
        "clusters: prior components that are the likeliest of at least one sample; mean_sd: "
        "posterior sd of each latent, averaged over samples",
        len(frame),
        scored.seed,
        n_latent=table.n_latent,
        n_clusters_used=int(frame["cluster"].nunique()),
        mean_cluster_probability=float(frame["cluster_probability"].mean()),
        mean_sd=[float(sd) for sd in table.z_sd[rows].mean(axis=0)],
    )


def _gmm_20(scored: _Scored, scaling: str, rms: float) -> dict[str, Any]:
    n = len(scored.z)
    scorer = (
        f"Gaussian mixture of {N_COMPONENTS} components ({_PROTOCOL}) on latents "
        f"{_scaling_words(scaling)}, fitted to all samples without labels; labelled ones scored"
    )
    if n < 2 * N_COMPONENTS:
        few = counted(n, "sample is", "samples are")
        reason = f"{few} too few for {N_COMPONENTS} components (at least 40)"
        return scored.group(scorer, n, PROTOCOL_SEED, skipped=reason)
    z = standardise(scored.z, rms)
    fit = fit_mixture(z)
    values: dict[str, Any] = {
        "silhouette": silhouette(z, fit.clusters, scored.seed),
        "bic": fit.bic,
        "mean_log_likelihood": fit.mean_log_likelihood,
        "converged": fit.converged,
    }
    for level in scored.labels:
        values[level] = _label_scores(scored, level, fit.clusters)
    return scored.group(scorer, n, PROTOCOL_SEED, **values)


def _gmm_superpopulation(scored: _Scored, scaling: str, rms: float) -> dict[str, Any]:
    n, level = len(scored.z), "superpopulation"
    k = len(_levels(scored.labels[level]))
    scorer = (
        f"Gaussian mixture of {k} components, one a superpopulation ({_PROTOCOL}) on latents "
        f"{_scaling_words(scaling)}, against superpopulations"
    )
    if k < 2 or k > 50 or n < 2 * k:
        reason = f"{k} superpopulations in {n} samples (2 to 50, and 2 samples each, are needed)"
        return scored.group(scorer, n, PROTOCOL_SEED, skipped=reason)
    fit = fit_mixture(standardise(scored.z, rms), k)
    values = _label_scores(scored, level, fit.clusters)
    return scored.group(
        scorer, values.pop("n_samples"), PROTOCOL_SEED, converged=fit.converged, **values
    )


def _label_scores(scored: _Scored, level: str, clusters: np.ndarray) -> dict[str, Any]:
    values = scored.labels[level]
    known = values != ""
    counts = {
        "n_samples": int(known.sum()),
        "n_unlabelled": int((~known).sum()),
        "n_labels": len(_levels(values)),
    }
    if counts["n_labels"] < 2:
        return {**counts, "skipped": "fewer than 2 labels"}
    return {**counts, **clustering_scores(values[known], clusters[known])}


def _ceiling(scored: _Scored, level: str) -> dict[str, Any]:
    values = _levels_only(scored.labels[level])
    scorer = f"the best purity any {N_COMPONENTS} clusters could reach against these labels"
    if not len(values):
        return scored.group(scorer, 0, scored.seed, skipped="no sample is labelled")
    return scored.group(
        scorer, len(values), scored.seed, purity=purity_ceiling(values, N_COMPONENTS)
    )


def _oracle(scored: _Scored) -> dict[str, Any]:
    known = (scored.labels["population"] != "") & (scored.labels["superpopulation"] != "")
    fine, coarse = (scored.labels[level][known] for level in ("population", "superpopulation"))
    n = int(known.sum())
    scorer = (
        "what a clustering that knows the superpopulation and nothing else scores against "
        "populations: an embedding below it adds nothing within continents"
    )
    if len(np.unique(fine)) < 2:
        return scored.group(scorer, n, scored.seed, skipped="fewer than 2 populations")
    return scored.group(scorer, n, scored.seed, **clustering_scores(fine, coarse))


def _label_silhouette(scored: _Scored, level: str) -> dict[str, Any]:
    known = scored.labels[level] != ""
    n = int(known.sum())
    scorer = f"mean silhouette of the {level} labels on the latents as they are"
    value = silhouette(scored.z[known], scored.labels[level][known], scored.seed)
    if value is None:
        reason = "needs at least 2 labels and fewer labels than samples"
        return scored.group(scorer, n, scored.seed, skipped=reason)
    return scored.group(scorer, n, scored.seed, silhouette=value)


def _knn(scored: _Scored, level: str) -> dict[str, Any]:
    values = scored.labels[level]
    names, sizes = np.unique(_levels_only(values), return_counts=True)
    keep = np.isin(values, names[sizes >= N_FOLDS])
    n, k = int(keep.sum()), int((sizes >= N_FOLDS).sum())
    scorer = (
        f"{N_NEIGHBOURS} nearest neighbours in the latents as they are, {N_FOLDS} stratified folds "
        f"shuffled with the seed: {level} of a fold's samples voted by the other folds; chance: "
        "always the commonest label"
    )
    counts = {
        "n_labels": k,
        "n_unlabelled": int((values == "").sum()),
        "n_in_rare_labels": int(len(values) - n - (values == "").sum()),
    }
    # A training part holds at least n - ceil(n / 5) - n_labels samples; 2 n / 3 is a safe bound.
    if k < 2 or 2 * n // 3 < N_NEIGHBOURS:
        reason = f"{k} labels with at least {N_FOLDS} samples, {n} samples in all: too few"
        return scored.group(scorer, n, scored.seed, **counts, skipped=reason)
    accuracy = knn_accuracy(scored.z[keep], values[keep], scored.seed)
    return scored.group(
        scorer,
        n,
        scored.seed,
        **counts,
        accuracy=float(accuracy.mean()),
        accuracy_sd_over_folds=float(accuracy.std(ddof=1)),
        chance=purity_ceiling(values[keep], 1),
    )


def _fst(scored: _Scored, fst: pd.DataFrame) -> dict[str, Any]:
    known = scored.labels["population"] != ""
    n = int(known.sum())
    scorer = (
        "Spearman rank correlation of Euclidean distances between population centroids in the "
        "latents as they are with Hudson FST, over all pairs of populations"
    )
    value, n_pairs = fst_rank_correlation(scored.z[known], scored.labels["population"][known], fst)
    if np.isnan(value):
        reason = f"{n_pairs} usable pairs of populations with FST (at least 3 that differ)"
        return scored.group(scorer, n, scored.seed, n_pairs=n_pairs, skipped=reason)
    return scored.group(scorer, n, scored.seed, n_pairs=n_pairs, spearman=value)


def held_out_knn(
    z: np.ndarray, values: np.ndarray, held_out: np.ndarray, level: str, data: str
) -> dict[str, Any]:
    """Place held-out samples among the others: one group of metrics, see `evaluate`.

    Parameters
    ----------
    z
        (n_samples, n_latent).
    values
        (n_samples,) labels, "" where missing.
    held_out
        (n_samples,) bool.
    level, data
        What the labels and the samples are, in words.
    """
    reference, query = (values != "") & ~held_out, (values != "") & held_out
    n_reference, n = int(reference.sum()), int(query.sum())
    group: dict[str, Any] = {
        "data": data,
        "split": "held-out: the model was not trained on these samples",
        "scorer": f"{level} of held-out samples voted by their {N_NEIGHBOURS} nearest training "
        "samples in the latents as they are; chance: the commonest training label",
        "seed": None,  # nothing random in it
        "n_samples": n,
        "n_reference": n_reference,
    }
    if n == 0 or n_reference < N_NEIGHBOURS or len(np.unique(values[reference])) < 2:
        reason = f"{n} labelled held-out samples, {n_reference} labelled training samples: too few"
        return {**group, "skipped": reason}
    names, sizes = np.unique(values[reference], return_counts=True)
    accuracy = knn_transfer_accuracy(z[reference], values[reference], z[query], values[query])
    chance = float(np.mean(values[query] == names[sizes.argmax()]))
    return {**group, "accuracy": accuracy, "chance": chance}


def _levels_only(values: np.ndarray) -> np.ndarray:
    known: np.ndarray = values[values != ""]
    return known


def _levels(values: np.ndarray) -> np.ndarray:
    return np.unique(_levels_only(values))


def _scaling_words(scaling: str) -> str:
    return "z-scored axis by axis" if scaling == "z_score" else "scaled to RMS 10 axis by axis"
