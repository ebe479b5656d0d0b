"""The benchmark on digits: equal steps of the decoder, and what a change of code leaves."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from torch import nn

from ancestry_ddvi.ddvi.wake_sleep import JointWakeSleep, Simplified, WakeSleep, n_turns

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("digits", BENCHMARKS / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "digits", module)
    spec.loader.exec_module(module)
    return module


def test_every_method_moves_the_decoder_as_often(
    digits: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by its gradients: those of a sleep step do not reach it."""
    data, moved = digits.Digits.split(0), {}
    for name, method in digits.METHODS.items():
        model = digits.make_model(method, "square", 64, 0)
        decoder: nn.Module = model.likelihood
        seen: list[int] = []
        next(decoder.parameters()).register_hook(lambda gradient, seen=seen: seen.append(1))
        digits.train(model, data, method.objective, 3, 0)
        moved[name] = len(seen)
    assert moved == dict.fromkeys(digits.METHODS, 3)


def test_turns_of_a_round() -> None:
    turns = [n_turns(o) for o in (WakeSleep(), WakeSleep(sleep_steps=3), JointWakeSleep())]
    assert [*turns, n_turns(Simplified())] == [2, 4, 1, 1]


def test_recheck_keeps_what_comes_out_the_same_and_fits_the_rest_again(
    digits: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[tuple[str, str, int]] = []
    figure = {"AEVB": 1.0, "PIS": 2.0}

    def fit_and_score(prior: str, name: str, seed: int, n_steps: int) -> dict[str, float]:
        fits.append((prior, name, seed))
        return {"cpu_seconds": float(len(fits)), "knn": figure[name] + seed}

    monkeypatch.setattr(digits, "fit_and_score", fit_and_score)
    monkeypatch.setattr(digits, "train", lambda *args: None)

    def run(*more: str) -> Any:
        chosen = ("--seeds", "2", "--only", "AEVB", "--only", "PIS", "--steps", "7")
        return CliRunner().invoke(digits.main, [*chosen, "--out", str(tmp_path), *more])

    def rows() -> Any:
        return json.loads((tmp_path / "digits.json").read_text())["priors"]

    assert run().exit_code == 0
    before = rows()
    assert len(fits) == 3 * 2 * 2
    monkeypatch.setattr(digits.common, "code_digest", lambda *folders: "other code")
    figure["PIS"] = 2.5
    refused = run()
    assert refused.exit_code == 1
    assert "--fresh" in refused.output
    assert rows() == before
    fits.clear()
    again = run("--recheck")
    assert again.exit_code == 0
    assert "PIS: comes out otherwise now" in again.output
    # One fit of each prior tells of AEVB, one of all that PIS has changed.
    assert sum(name == "AEVB" for _, name, _ in fits) == 3
    assert sum(name == "PIS" for _, name, _ in fits) == 1 + 3 * 2
    for prior, methods in rows().items():
        assert methods["AEVB"] == before[prior]["AEVB"]
        assert [row["knn"] for row in methods["PIS"].values()] == [2.5, 3.5]
    assert run().exit_code == 0  # they agree from now on
