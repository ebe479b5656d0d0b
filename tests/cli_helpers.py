"""The command line as users start it, and settings that make it quick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ancestry_ddvi
from ancestry_ddvi.ddvi.training import TrainingConfig
from ancestry_ddvi.fitting import EmbedConfig

QUICK = EmbedConfig(training=TrainingConfig(map_steps=60, posterior_steps=5), n_draws=50)
QUICK_OPTIONS = ("--map-steps", "60", "--posterior-steps", "5", "--draws", "50")


def command(*args: str | Path, strict: bool = False) -> list[str]:
    """The command's words; `strict` turns any warning of any library into an error."""
    return [sys.executable, *["-W", "error"] * strict, "-m", "ancestry_ddvi", *map(str, args)]


def environment() -> dict[str, str]:
    """Let a process that starts elsewhere find the package under test."""
    home = str(Path(ancestry_ddvi.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": home, "PYTHONWARNINGS": ""}


def run_cli(*args: str | Path, cwd: Path, strict: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        command(*args, strict=strict),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def strict_json(path: Path) -> Any:
    """Parse JSON as other languages do: without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(f"{path.name} holds {name}, which is no JSON")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too, with its bytes."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else b"folder"
        for p in sorted(folder.rglob("*"))
    }
