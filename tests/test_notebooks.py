"""Notebooks run from their first cell to the last."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ancestry_ddvi.ddvi.wake_sleep import JointWakeSleep, WakeSleep

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def run(name: str, monkeypatch: pytest.MonkeyPatch, **settings: int) -> dict[str, Any]:
    """What the code cells leave, with other values of the settings in the first of them."""
    cells = json.loads((NOTEBOOKS / name).read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for setting, value in settings.items():
        code[0], n = re.subn(rf"^{setting} = \d+", f"{setting} = {value}", code[0], flags=re.M)
        assert n == 1
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(Markdown=str))
    found: dict[str, Any] = {"__name__": "notebook"}
    with torch.random.fork_rng(devices=[]):
        for number, cell in enumerate(code):
            source = re.sub(r"^%.*$", "", cell, flags=re.M)  # IPython's own commands
            exec(compile(source, f"{name}, code cell {number}", "exec"), found)
    return found


def test_the_digits_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("digits.ipynb", monkeypatch, N_STEPS=3, N_DRAWS=2)
    models, objectives = found["models"], found["objectives"]
    assert [ax.get_title() for ax in found["axes"]] == ["prior", *models]
    for name, model in models.items():
        assert np.isfinite(model.elbo(found["x"][:5], n_draws=2)).all()
        # Wake-sleep is the paper's, in turn; in one step it is joint.
        assert ("wake-sleep" in name) == isinstance(objectives[name], WakeSleep)
        assert ("joint" in name) == isinstance(objectives[name], JointWakeSleep)
