"""Scores of maps: the product's own figures under short names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ancestry_ddvi.errors import InputError
from ancestry_ddvi.reporting import scores
from ancestry_ddvi.reporting.map_scores import (
    IN_SAMPLE,
    score_held_out,
    score_in_sample,
    table_of,
)

N_EACH = 12
GROUP = np.repeat(np.arange(4), N_EACH)
POPULATION = np.array([f"P{g}" for g in GROUP])
SUPERPOPULATION = np.array([f"Q{g // 2}" for g in GROUP])
CENTRES = np.array([[0.0, 0.0], [0.0, 8.0], [60.0, 0.0], [60.0, 9.0]])
FST = pd.DataFrame(
    np.linalg.norm(CENTRES[:, None] - CENTRES, axis=-1),
    index=["P0", "P1", "P2", "P3"],
    columns=["P0", "P1", "P2", "P3"],
)


def places(seed: int = 0) -> np.ndarray:
    return CENTRES[GROUP] + np.random.default_rng(seed).normal(0, 0.5, (len(GROUP), 2))


def test_groups_far_apart_score_high_and_shuffled_labels_do_not() -> None:
    z = places()
    row = score_in_sample(z, POPULATION, SUPERPOPULATION, FST, 0)
    assert set(row) == set(IN_SAMPLE)
    assert row["knn_population"] == row["knn_superpopulation"] == 1
    assert row["fst_rank_correlation"] > 0.9
    assert row["rms_10_purity"] == row["z_score_purity"] == 1
    assert row["rms_10_superpopulation_nmi"] == pytest.approx(1)
    shuffled = np.random.default_rng(1).permutation(len(z))
    control = score_in_sample(z[shuffled], POPULATION, SUPERPOPULATION, FST, 0)
    assert control["knn_population"] < 0.6
    assert control["rms_10_nmi"] < row["rms_10_nmi"] - 0.2
    assert control["rms_10_superpopulation_nmi"] < 0.3


def test_figures_are_those_of_the_scores() -> None:
    z = places() * [1, 0.05]  # the mixture's scale matters here
    row = score_in_sample(z, POPULATION, SUPERPOPULATION, FST, 3)
    for scaling, rms in (("rms_10", 10.0), ("z_score", 1.0)):
        clusters = scores.fit_mixture(scores.standardise(z, rms)).clusters
        for name, value in scores.clustering_scores(POPULATION, clusters).items():
            assert row[f"{scaling}_{name}"] == value
    assert row["knn_population"] == scores.knn_accuracy(z, POPULATION, 3).mean()


def test_what_cannot_be_scored_is_left_out() -> None:
    z = places()
    row = score_in_sample(z, POPULATION, None, None, 0)
    assert not [name for name in row if "superpopulation" in name or "fst" in name]
    few = score_in_sample(z[:30], POPULATION[:30], None, None, 0)
    assert "knn_population" in few
    assert not [name for name in few if name.startswith(("rms_10", "z_score"))]
    assert score_in_sample(z, np.full(len(z), ""), None, None, 0) == {}


def test_samples_without_a_label_do_not_count() -> None:
    population = np.repeat(["P0", "P1"], 40)
    z = np.where(population == "P0", -5.0, 5.0)[:, None] + [0.0, 0.0]
    z[::3] *= -1  # amid the other population
    gaps = population.copy()
    gaps[::3] = ""
    assert score_in_sample(z, gaps, None, None, 0)["knn_population"] == 1
    assert score_in_sample(z, population, None, None, 0)["knn_population"] < 0.8


def test_a_place_that_is_not_finite_is_refused() -> None:
    z = places()
    z[3, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        score_in_sample(z, POPULATION, None, None, 0)


def test_held_out_samples_are_voted_by_training_samples() -> None:
    z = places()
    held_out = np.arange(len(z)) % 4 == 0
    trained_on = ~held_out & (np.arange(len(z)) % 4 != 1)  # some are in neither
    labels = {"population": POPULATION, "superpopulation": SUPERPOPULATION}
    row = score_held_out(z[trained_on], z[held_out], trained_on, held_out, labels)
    assert row["knn_superpopulation"] == 1
    # 6 training samples a population: 15 votes reach the neighbouring one, by ones and fours.
    assert row["knn_population"] == scores.knn_transfer_accuracy(
        z[trained_on], POPULATION[trained_on], z[held_out], POPULATION[held_out]
    )
    swapped = score_held_out(z[trained_on], z[held_out][::-1], trained_on, held_out, labels)
    assert swapped["knn_superpopulation"] == 0


def test_held_out_levels_with_too_few_labels_are_left_out() -> None:
    z = places()
    held_out = np.arange(len(z)) % 4 == 0
    none = np.full(len(z), "")
    row = score_held_out(z[~held_out], z[held_out], ~held_out, held_out, {"population": none})
    assert row == {}


def test_a_table_of_places_has_no_width() -> None:
    z = places()
    table = table_of(z)
    np.testing.assert_array_equal(table.z, z)
    assert (table.z_sd == 0).all()
    assert table.sample_id[:2].tolist() == ["0", "1"]
