"""Scores against values worked out by hand, and the whole evaluation on known structure."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting_helpers import make_table

from ancestry_ddvi.errors import InputError
from ancestry_ddvi.reporting import evaluate, headline, scores

labellings = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from("abcde"), min_size=n, max_size=n),
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
    )
)


def test_purity_by_hand() -> None:
    # cluster 0: a a b -> 2; cluster 1: b c c c -> 3; 5 of 7
    assert scores.purity(np.array(list("aabbccc")), np.array([0, 0, 0, 1, 1, 1, 1])) == 5 / 7


def test_purity_ceiling_by_hand() -> None:
    labels = np.array(list("aaaabbbccd"))
    assert scores.purity_ceiling(labels, 1) == 0.4
    assert scores.purity_ceiling(labels, 2) == 0.7
    assert scores.purity_ceiling(labels, 9) == 1.0


@given(labellings)
def test_no_clustering_beats_the_ceiling(case: tuple[list[str], list[int]]) -> None:
    labels, clusters = np.array(case[0]), np.array(case[1])
    ceiling = scores.purity_ceiling(labels, len(np.unique(clusters)))
    assert scores.purity(labels, clusters) <= ceiling + 1e-12


def test_perfect_and_useless_clusterings() -> None:
    labels = np.repeat(["a", "b", "c"], 5)
    assert scores.clustering_scores(labels, np.repeat([7, 3, 5], 5)) == pytest.approx(
        {"purity": 1, "completeness": 1, "nmi": 1, "homogeneity": 1, "ari": 1}
    )
    one = scores.clustering_scores(labels, np.zeros(15, int))
    assert one == pytest.approx(
        {"purity": 1 / 3, "completeness": 1, "nmi": 0, "homogeneity": 0, "ari": 0}
    )


def test_nmi_by_hand() -> None:
    # two labels halved into four clusters: I = H(L) = log 2, H(C) = log 4
    labels, clusters = np.repeat(["a", "b"], 4), np.repeat([0, 1, 2, 3], 2)
    assert scores.clustering_scores(labels, clusters)["nmi"] == pytest.approx(2 / 3)


@given(labellings, st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_order_or_names(
    case: tuple[list[str], list[int]], random: Any
) -> None:
    labels, clusters = np.array(case[0]), np.array(case[1])
    order = list(range(len(labels)))
    random.shuffle(order)
    names = dict(zip("abcde", random.sample("vwxyz", 5), strict=True))
    renamed = np.array([names[label] for label in labels])
    expected = scores.clustering_scores(labels, clusters)
    assert scores.clustering_scores(renamed[order], 9 - clusters[order]) == pytest.approx(expected)


@given(st.floats(0.01, 100), st.integers(0, 99))
def test_standardise_forgets_scale_and_place(rms: float, seed: int) -> None:
    z = np.random.default_rng(seed).normal(size=(30, 3))
    scaled = scores.standardise(z * [1e-3, 1, 1e3] + [5, -5, 0], rms)
    assert np.allclose(np.sqrt((scaled**2).mean(axis=0)), rms)
    assert np.allclose(scaled, scores.standardise(z, rms), atol=1e-8 * rms)


def test_standardise_leaves_a_constant_axis_at_zero() -> None:
    z = np.column_stack([np.full(10, 0.1), np.arange(10.0)])
    assert not scores.standardise(z, 10)[:, 0].any()


def square_fst(z: np.ndarray) -> pd.DataFrame:
    names = [f"P{i}" for i in range(len(z))]
    distance = np.linalg.norm(z[:, None] - z[None], axis=2)
    return pd.DataFrame(distance, names, names)


@pytest.mark.parametrize("transform", [np.square, np.sqrt, np.expm1])
def test_fst_correlation_is_one_for_any_monotone_transform(transform: Any) -> None:
    z = np.random.default_rng(0).normal(size=(6, 2))
    population = np.array([f"P{i}" for i in range(6)])
    fst = transform(square_fst(z))
    order = np.random.default_rng(1).permutation(6)
    value, n_pairs = scores.fst_rank_correlation(z[order], population[order], fst)
    assert value == pytest.approx(1)
    assert n_pairs == 15
    reverse = scores.fst_rank_correlation(z, population, -fst)
    assert reverse[0] == pytest.approx(-1)


def test_fst_correlation_takes_only_pairs_that_both_know() -> None:
    z = np.random.default_rng(0).normal(size=(6, 2))
    fst = square_fst(z[:5])
    fst.loc["P0", "P1"] = np.nan
    population = np.array([f"P{i}" for i in range(6)])
    value, n_pairs = scores.fst_rank_correlation(z, population, fst)
    assert value == pytest.approx(1)
    assert n_pairs == 9
    assert np.isnan(scores.fst_rank_correlation(z, np.array(["x"] * 6), fst)[0])


def test_knn_is_perfect_on_islands_and_at_chance_on_noise() -> None:
    table, population, _ = make_table(n_groups=4, n_each=50)
    labels = population.to_numpy(str)
    assert scores.knn_accuracy(table.z, labels, seed=0).mean() == 1
    noise = np.random.default_rng(0).normal(size=(200, 2))
    assert abs(scores.knn_accuracy(noise, labels, seed=0).mean() - 0.25) < 0.1


def test_silhouette_of_a_large_table_is_that_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_SILHOUETTE_SAMPLES", 1_000)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4_000, 1)) + np.repeat([0, 20], 2_000)[:, None]
    value = scores.silhouette(z, np.repeat([0, 1], 2_000), seed=1)
    assert value is not None
    assert value == pytest.approx(0.93, abs=0.02)
    assert value == scores.silhouette(z, np.repeat([0, 1], 2_000), seed=1)
    assert scores.silhouette(z[:5], np.zeros(5)) is None


def run(table: Any, population: Any, superpopulation: Any, **more: Any) -> dict[str, Any]:
    settings = {"fst": None, "seed": 3, "data": "simulated", **more}
    return evaluate(table, population=population, superpopulation=superpopulation, **settings)


def test_evaluate_on_known_structure() -> None:
    table, population, superpopulation = make_table(n_groups=20, n_each=10)
    centroids = table.frame[["z1", "z2"]].groupby(population).mean()
    fst = (
        square_fst(centroids.to_numpy()).set_axis(centroids.index).set_axis(centroids.index, axis=1)
    )
    metrics = run(table, population, superpopulation, fst=fst**2)
    for scaling in ("z_score", "rms_10"):
        assert metrics[f"gmm_20_{scaling}"]["population"]["n_labels"] == 20
        assert metrics[f"gmm_superpopulation_{scaling}"]["n_labels"] == 10
    # 20 islands, wide apart beside reg_covar at RMS 10
    assert metrics["gmm_20_rms_10"]["population"]["nmi"] > 0.95
    assert metrics["gmm_20_rms_10"]["population"]["purity"] > 0.9
    assert metrics["fst_rank_correlation"]["spearman"] == pytest.approx(1)
    assert metrics["superpopulation_oracle"]["purity"] == pytest.approx(0.5)
    assert metrics["superpopulation_oracle"]["completeness"] == pytest.approx(1)
    assert metrics["purity_ceiling_population"]["purity"] == 1
    assert metrics["embedding"]["n_clusters_used"] == 20
    assert len(metrics["embedding"]["mean_sd"]) == 2
    for group in metrics.values():
        assert {"data", "split", "scorer", "seed", "n_samples"} <= set(group)
        assert group["split"].startswith("in-sample")
    assert metrics["gmm_20_z_score"]["seed"] == 2
    assert metrics["knn_population"]["seed"] == 3
    json.dumps(metrics, allow_nan=False)
    shown = {row.key: row.value for row in headline(metrics)}
    assert shown["gmm_20_rms_10.population.nmi"] == metrics["gmm_20_rms_10"]["population"]["nmi"]
    assert metrics == run(table, population, superpopulation, fst=fst**2)


def test_scores_are_those_of_the_published_mixture() -> None:
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.mixture import GaussianMixture

    table, population, _ = make_table(n_groups=8, n_each=12)
    z = table.z - table.z.mean(axis=0)
    z = 10 * z / np.sqrt((z**2).mean(axis=0))
    mixture = GaussianMixture(
        n_components=20, covariance_type="full", reg_covar=1e-2, n_init=10, random_state=2
    )
    expected = normalized_mutual_info_score(population, mixture.fit_predict(z))
    metrics = run(table, population, None)
    assert metrics["gmm_20_rms_10"]["population"]["nmi"] == pytest.approx(expected)


def test_without_labels_only_what_needs_none() -> None:
    table, _, _ = make_table()
    metrics = run(table, None, None)
    assert set(metrics) == {"embedding", "gmm_20_z_score", "gmm_20_rms_10"}
    assert metrics["gmm_20_rms_10"]["silhouette"] > 0
    assert "population" not in metrics["gmm_20_rms_10"]


def test_missing_and_rare_labels_are_left_out_and_counted() -> None:
    table, population, superpopulation = make_table(n_groups=4, n_each=15)
    population = population.astype(object)
    population[0], population[1], population[2] = None, "", np.nan
    population[3] = population[4] = "rare"
    knn = run(table, population, superpopulation)["knn_population"]
    assert (knn["n_unlabelled"], knn["n_in_rare_labels"], knn["n_samples"]) == (3, 2, 55)
    mixture = run(table, population, superpopulation)["gmm_20_rms_10"]
    assert mixture["n_samples"] == 60
    assert (mixture["population"]["n_samples"], mixture["population"]["n_unlabelled"]) == (57, 3)


def test_held_out_samples_are_scored_apart() -> None:
    table, population, superpopulation = make_table(n_groups=4, n_each=20)
    held_out = np.arange(80) % 4 == 0
    metrics = run(table, population, superpopulation, held_out=held_out)
    placed = metrics["held_out_knn_population"]
    assert (placed["n_samples"], placed["n_reference"], placed["accuracy"]) == (20, 60, 1.0)
    assert placed["split"].startswith("held-out")
    assert metrics["gmm_20_rms_10"]["n_samples"] == 60
    assert metrics["knn_population"]["split"].startswith("in-sample")
    # wrong labels among the held-out must show, and only there
    wrong = population.where(~held_out, population.to_numpy()[::-1])
    assert run(table, wrong, None, held_out=held_out)["held_out_knn_population"]["accuracy"] == 0
    everything = run(table, population, None, held_out=np.ones(80, bool))
    assert everything["knn_population"]["split"].startswith("held-out")
    assert "held_out_knn_population" not in everything


@pytest.mark.parametrize("n_each", [1, 2, 5, 9])
def test_too_few_samples_are_a_reason_not_a_crash(n_each: int) -> None:
    table, population, superpopulation = make_table(n_groups=4, n_each=n_each)
    fst = pd.DataFrame(np.zeros((4, 4)), population.unique(), population.unique())
    metrics = run(table, population, superpopulation, fst=fst, held_out=np.arange(4 * n_each) == 0)
    assert "too few" in metrics["gmm_20_rms_10"]["skipped"]
    assert "skipped" in metrics["fst_rank_correlation"]
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("label", ["one", "unique", "none"])
def test_degenerate_labels_are_a_reason_not_a_crash(label: str) -> None:
    table, population, _ = make_table(n_groups=4, n_each=15)
    columns = {"one": ["a"] * 60, "unique": [str(i) for i in range(60)], "none": [None] * 60}
    metrics = run(table, pd.Series(columns[label], dtype=object), population.replace("P0", "P1"))
    assert "skipped" in metrics["knn_population"]
    json.dumps(metrics, allow_nan=False)


@pytest.mark.filterwarnings("error")
def test_a_collapsed_embedding_is_scored_without_a_warning() -> None:
    table, population, superpopulation = make_table(n_groups=4, n_each=15)
    frame = table.frame.assign(z1=0.0, z2=0.0)
    metrics = run(dataclasses.replace(table, frame=frame), population, superpopulation)
    assert metrics["gmm_20_rms_10"]["silhouette"] is None
    assert metrics["gmm_20_rms_10"]["population"]["nmi"] == pytest.approx(0)


def test_a_latent_that_is_not_finite_is_named() -> None:
    table, population, _ = make_table()
    frame = table.frame.assign(z1=table.frame["z1"].where(table.frame.index != 7, np.nan))
    with pytest.raises(InputError, match="'S7'"):
        run(dataclasses.replace(table, frame=frame), population, None)


def test_labels_of_other_samples_are_refused() -> None:
    table, population, _ = make_table()
    with pytest.raises(ValueError, match="order"):
        run(table, population.set_axis(table.sample_id[::-1]), None)
    with pytest.raises(ValueError, match="59 labels for 60"):
        run(table, population[:-1], None)
    with pytest.raises(ValueError, match="held_out"):
        run(table, population, None, held_out=np.zeros(59, bool))


def test_names_of_labels_do_not_matter() -> None:
    table, population, superpopulation = make_table(n_groups=4, n_each=25)
    # Groups that overlap, so that accuracy is neither 0 nor 1.
    z1 = np.random.default_rng(0).normal(size=100) + np.repeat(np.arange(4), 25)
    noisy = dataclasses.replace(table, frame=table.frame.assign(z1=z1, z2=0.0))
    renamed = population.map({"P0": "a,b", "P1": "b=1", "P2": "c</script>", "P3": "ß"})
    first, second = (run(noisy, p, superpopulation) for p in (population, renamed))
    assert 0 < first["knn_population"]["accuracy"] < 1
    for name in ("knn_population", "superpopulation_oracle", "label_silhouette_population"):
        assert first[name] == pytest.approx(second[name])
