"""The benchmark of memory places samples that are new, and says when genotypes are held."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import importable
from simulate import balding_nichols

from ancestry_ddvi import read_genotypes
from ancestry_ddvi.writers import write_genotypes

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(tmp_path: Path) -> Iterator[ModuleType]:
    """The script as a module, with few samples for the bundled ones."""
    with importable("benchmarks") as patch:
        module = importlib.import_module("placing_memory")
        genotypes, _ = balding_nichols(5, 400, 0.1, 2, 0)
        write_genotypes(genotypes, tmp_path / "few.vcf")
        patch.setattr(module.common, "GENOTYPES", tmp_path / "few.vcf")
        yield module


def test_samples_are_bundled_ones_with_changes(script: ModuleType, tmp_path: Path) -> None:
    about = script.write_samples(tmp_path / "new.bed", 500, 0)
    bundled = read_genotypes(script.common.GENOTYPES)
    new = read_genotypes(tmp_path / "new.bed")
    assert about == {"variants": 400, "at_once": 10_000}
    assert new.dosage.shape == (500, 400)
    assert not set(new.sample_id) & set(bundled.sample_id)
    differ = new.dosage[:, None] != bundled.dosage
    nearest = differ.mean(axis=2).argmin(axis=1)
    assert set(nearest) == set(range(10))
    own = differ[np.arange(500), nearest]
    missing = new.dosage == -1
    assert missing.mean() == pytest.approx(script.MISSED, rel=0.3)
    assert (own & ~missing).mean() == pytest.approx(script.CHANGED, rel=0.3)


def test_a_run_is_written_placed_and_deleted(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def run(command: list[str]) -> Any:
        part, n, seed = (command[command.index(x) + 1] for x in ("--part", "--size", "--seed"))
        about = script.write_samples(Path(part), int(n), int(seed))
        return SimpleNamespace(said=json.dumps(about))

    def measure(command: list[str]) -> dict[str, float]:
        commands.append(command)
        assert read_genotypes(command[4]).n_samples == 30
        out = Path(command[command.index("--out") + 1])
        out.mkdir()
        (out / "run.json").write_text('{"cpu_seconds": {"read": 1.0}}')
        (out / "embedding.csv").write_bytes(bytes(2**19))
        (out / "model.npz").write_bytes(bytes(2**20))
        return {"cpu_seconds": 2.0, "wall_seconds": 3.0, "peak_mb": 4.0}

    monkeypatch.setattr(script.common, "run", run)
    monkeypatch.setattr(script, "measure", measure)
    folder = tmp_path / "folder"
    folder.mkdir()
    found = script.place(30, 1, "some model", folder)
    assert found["samples"] == 30
    assert found["peak_mb"] == 4
    assert found["tables_mb"] == 0.5
    assert found["stages"] == {"read": 1.0}
    (command,) = commands
    assert command[command.index("--model") + 1] == "some model"
    assert "--no-pictures" in command
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_memory_that_holds_the_genotypes_is_told(script: ModuleType) -> None:
    def run(n: int, peak: float) -> dict[str, Any]:
        sizes = {"samples": n, "variants": 2**20 // 100, "at_once": 10_000}
        return sizes | {"peak_mb": peak, "tables_mb": n / 5000}

    # A sample's genotypes are a hundredth of a MB.
    few = run(1000, 300)
    said = script.in_words([few, run(10_000, 500), run(30_000, 540)])
    assert "grows by 2.0 MB a 1,000 samples" in said
    assert "genotypes are 10.0 MB at a byte each: these are not held" in said
    assert "grow by\n0.20 MB, as text" in said
    assert "seem to be held" in script.in_words([few, run(10_000, 500), run(30_000, 700)])
    # What the first batch takes is no growth.
    assert script.in_words([few, run(10_000, 500)]).startswith("No run has more")


def test_the_committed_tables_are_of_the_committed_results(script: ModuleType) -> None:
    path = BENCHMARKS / "results" / "placing_memory.json"
    results = json.loads(path.read_text("utf-8"))
    assert script.markdown(results) == path.with_suffix(".md").read_text("utf-8")
