"""The benchmark of shrinkage tells shrinkage from sampling error, and measures the product."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers import importable
from simulate import balding_nichols

from ancestry_ddvi.ddvi.training import TrainingConfig
from ancestry_ddvi.fitting import EmbedConfig, fit_embedding

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
J, N, K = 26, 100, 8
WHOLE = {"all": slice(None)}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script as a module; what it sets for its own process is undone."""
    with importable("benchmarks") as patch:
        module = importlib.import_module("shrinkage")
        patch.setattr(module, "N_SPLITS", 60)
        yield module


@pytest.fixture
def clouds() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, populations, and who is held out: clouds of width 1, their centres 3 wide."""
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(J), N)
    held_out = np.tile(np.arange(N) % 5 == 0, J)
    centre = 3 * rng.standard_normal((J, K))
    return centre[number] + rng.standard_normal((J * N, K)), number, held_out


def test_two_samples_beside_two_by_hand(script: ModuleType) -> None:
    # Of 0: training -3 and -1, held out -2 and 2; of 1: training 1 and 3, held out 1 and 3.
    x = np.array([[-3.0], [-1], [-2], [2], [1], [3], [1], [3]])
    held_out = np.tile([False, False, True, True], 2)
    found = script.agreement(x, np.repeat([0, 1], 4), held_out, WHOLE)["all"]
    # t = -2, h = 0, variances 2 and 8; t = h = 2, variances 2 and 2. The centre is 0.
    assert found.distance == pytest.approx([4 / (2 / 2 + 8 / 2), 0])
    assert found.shift == pytest.approx([2 / np.sqrt(2), 0])
    assert found.slope == pytest.approx((0 + 4) / (4 - 1 + 4 - 1))
    assert found.spread == pytest.approx(np.sqrt(10 / 4))


def test_what_is_not_shrunk_differs_by_sampling_error(
    script: ModuleType, clouds: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    x, number, held_out = clouds
    found = script.agreement(x, number, held_out, WHOLE)["all"]
    assert found.distance.mean() == pytest.approx(1, abs=0.3)
    assert found.slope == pytest.approx(1, abs=0.02)
    # Training scores that spread three times as far, as some do without the correction.
    noise = np.sqrt(8) * np.random.default_rng(1).standard_normal(x.shape)
    wide = np.where(held_out[:, None], x, x + noise)
    found = script.agreement(wide, number, held_out, WHOLE)["all"]
    assert found.distance.mean() == pytest.approx(1, abs=0.3)
    assert found.slope == pytest.approx(1, abs=0.05)
    assert found.spread == pytest.approx(1 / 3, rel=0.1)


def test_shrinkage_is_seen_and_its_size_told(
    script: ModuleType, clouds: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    x, number, held_out = clouds
    shrunk = np.where(held_out[:, None], 0.8 * x, x)
    groups = {"first": slice(0, 3), "others": slice(3, None)}
    rng = np.random.default_rng(0)
    row = script.measure(shrunk, number, held_out, groups, rng)["others"]
    assert row["slope"] == pytest.approx(0.8, abs=0.02)
    assert np.mean(row["distances"]) > 3
    # By chance: of splits among the same scores, so it is no test of them by themselves.
    low, high = row["by chance"]["slope"]
    assert low < 1 < high < 1.1
    assert row["by chance"]["mean distance"][1] < 1.5
    # Groups are of their own components.
    shrunk[:, :3] = x[:, :3]
    rows = script.measure(shrunk, number, held_out, groups, rng)
    assert rows["first"]["slope"] == pytest.approx(1, abs=0.02)
    assert rows["others"] == {**row, "by chance": rows["others"]["by chance"]}


def test_splits_are_drawn_within_populations(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    number = rng.integers(0, 5, 200)
    held_out = rng.random(200) < 0.3
    drawn = script.split_anew(number, held_out, rng)
    assert (drawn != held_out).any()
    for j in range(5):
        assert drawn[number == j].sum() == held_out[number == j].sum()


def test_populations_without_enough_samples_are_left_out(script: ModuleType) -> None:
    population = np.repeat(["A", "B", "C"], 8)
    trained_on = np.tile([True] * 4 + [False] * 4, 3)
    held_out = ~trained_on
    held_out[[13, 14]] = False  # of B two are left
    held_out[23] = False  # of C there are three, and one of neither part
    names, number = script.numbered(population, trained_on, held_out)
    assert names == ["A", "C"]
    assert number.tolist() == [0] * 8 + [-1] * 8 + [1] * 7 + [-1]


def test_places_are_those_of_the_run_and_without_the_correction(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    genotypes, population = balding_nichols(40, 800, 0.05, 3, 0)
    short = TrainingConfig(map_steps=20, posterior_steps=4)
    config = EmbedConfig(training=short, n_draws=20, holdout=0.2)
    fitted = fit_embedding(genotypes, config)
    places = script.places(fitted, genotypes)
    corrected, raw = places["components"].values()
    train, rho = fitted.trained_on, fitted.model.extractor.shrinkage
    np.testing.assert_array_equal(corrected, fitted.features.x)
    k = len(rho)
    np.testing.assert_allclose(raw[train][:, :k] * rho, corrected[train][:, :k], rtol=1e-4)
    assert rho.min() < 0.8
    np.testing.assert_allclose(raw[~train], corrected[~train], rtol=1e-4, atol=1e-6)
    on_map, as_new = places["map"].values()
    np.testing.assert_array_equal(on_map, fitted.table.z)
    np.testing.assert_allclose(as_new[~train], on_map[~train], atol=1e-3)
    assert np.abs(as_new[train] - on_map[train]).max() > 0.01

    monkeypatch.setattr(script, "fit_embedding", lambda *of: fitted)
    found = script.run(genotypes, population, config)
    counts = np.array(list(found["populations"].values()))
    assert counts.sum(axis=0).tolist() == [train.sum(), fitted.held_out.sum()]
    # Without the correction training samples lie further out.
    assert found["shrinkage"] == pytest.approx(rho)
    assert found["of single components"]["slope"][:2] == pytest.approx(rho[:2], abs=0.1)
    whole = {way: of["all"]["slope"] for way, of in found["places"]["components"].items()}
    assert whole["not corrected"] < whole["corrected"] - 0.02


def test_what_is_said_is_what_was_found(script: ModuleType) -> None:
    chance = {name: [0.9, 1.1] for name in ("mean distance", "distances", "slope", "spread")}
    row = {"distances": [0.5, 1.5], "slope": 1.05, "spread": 1.0, "by chance": chance}
    shrunk = row | {"distances": [2.0, 4.0], "slope": 0.85}
    seed = {
        "places": {
            "components": {"corrected": {"all": row}},
            "map": {"corrected": {"all": shrunk}},
        }
    }
    first, second = script.in_words([seed]).split("- *map*")
    assert "agree within sampling error (mean D 1.00" in first
    assert first.startswith("- *components all*")
    assert "no shrinkage beyond chance" in first
    assert "differ by more than that (mean D 3.00" in second
    assert "nearer to the centre by 15.0 %" in second


def test_the_committed_tables_are_of_the_committed_results(script: ModuleType) -> None:
    path = BENCHMARKS / "results" / "shrinkage.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "N_SPLITS", 500)
        text = script.markdown(json.loads(path.read_text("utf-8")))
    assert text == path.with_suffix(".md").read_text("utf-8")
