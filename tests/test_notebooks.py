"""Notebooks run from their first cell to the last."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ancestry_ddvi
from ancestry_ddvi import GenotypeMatrix, fit_embedding, read_genotypes
from ancestry_ddvi.ddvi.training import TrainingConfig
from ancestry_ddvi.ddvi.wake_sleep import JointWakeSleep, WakeSleep
from ancestry_ddvi.fitting import EmbedConfig

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


def test_the_quick_start_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a part of the samples and variants, and of the steps."""

    def read(path: str) -> GenotypeMatrix:
        genotypes = read_genotypes(path)
        some = np.arange(0, genotypes.n_samples, 11)
        return genotypes.select(samples=some, variants=np.arange(0, genotypes.n_variants, 4))

    short = EmbedConfig(training=TrainingConfig(map_steps=40, posterior_steps=4), n_draws=20)
    monkeypatch.setattr(ancestry_ddvi, "read_genotypes", read)
    monkeypatch.setattr(ancestry_ddvi, "fit_embedding", partial(fit_embedding, config=short))
    found = run("quickstart.ipynb", monkeypatch)
    new = found["new"]
    assert len(found["fitted"].table.frame) == (~new).sum() > 100
    assert found["figure"].axes[0].collections
    surely, hardly = (found[name].z_sd.mean() for name in ("placed", "sparse"))
    assert hardly > surely
