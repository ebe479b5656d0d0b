"""Where results come from: versions, settings, input, what each filter took, time and memory."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch

from ancestry_ddvi import __version__
from ancestry_ddvi.checkpoint import EmbeddingModel
from ancestry_ddvi.console import Console
from ancestry_ddvi.ddvi.loop import History
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.preprocessing.alignment import Matched

LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "scikit-allel",
    "cyvcf2",
    "bed-reader",
)


def describe_run(
    about: GenotypeMatrix,
    n_samples: int,
    model: EmbeddingModel,
    matched: Matched | None,
    not_scored: Mapping[str, int],
    parameters: Mapping[str, Any],
    history: History | None,
    labels: Mapping[str, Any] | None,
    command: str,
) -> dict[str, Any]:
    """Everything a reader needs to run it again and to see what was left out where.

    `about` may be without the samples, of which there are `n_samples`. `history` is None if the
    model was trained by an earlier run, whose filters and settings then stand under `model`;
    `matched` says what the input has of its variants. `not_scored` counts the samples that no
    metric rests on, by reason.
    """
    counts: dict[str, Any] = {
        "samples": n_samples,
        "samples trained on": 0 if history is None else model.provenance["n_training_samples"],
        "samples not scored": dict(not_scored),
        "samples without labels": labels and labels["samples without a row"],
        "label rows without genotypes": labels and labels["rows without genotypes"],
        "biallelic SNPs read": about.n_variants,
        "records left out": dict(about.left_out),
    }
    if matched is not None:
        counts["variants of the model"] = len(model.extractor.variants)
        counts["variants of the model, by what the file has"] = matched.by_words()
    else:
        counts["variants filtered"] = dict(model.extractor.funnel)
        counts["variants used"] = len(model.extractor.variants)
    return {
        "version": __version__,
        "command": command,
        "seed": parameters["seed"],
        "input": dict(about.source),
        "positions translated to": matched and matched.build,
        "labels": labels,
        "counts": counts,
        "parameters": dict(parameters),
        "model": model.provenance,
        "training": None if history is None else asdict(history),
        "threads": torch.get_num_threads(),
        "platform": {"python": platform.python_version(), "machine": platform.machine()},
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def measured(console: Console) -> dict[str, Any]:
    """What the run took, known only at its end."""
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {
        "seconds": {k: round(v, 3) for k, v in console.seconds.items()},
        "cpu_seconds": {k: round(v, 3) for k, v in console.cpu_seconds.items()},
        "peak_memory_mb": round(peak, 1),
        "warnings": console.warnings,
    }


_KINDS = {
    "samples not scored": "not scored",
    "records left out": "left out",
    "variants filtered": "filtered",
    "variants of the model, by what the file has": "in the file",
}


def summary_rows(run: Mapping[str, Any], frame: pd.DataFrame) -> list[tuple[str, str]]:
    """The run in a few lines of name and value; `frame` is the table of the embedding."""
    rows: list[tuple[str, str]] = []
    for name, value in run["counts"].items():
        if isinstance(value, dict):
            kind = _KINDS[name]
            rows += [(f"  {kind}: {reason}", f"{n:,}") for reason, n in value.items() if n]
        elif value is not None:
            rows.append((name, f"{value:,}"))
    return [
        *rows,
        ("clusters", f"{frame['cluster'].nunique()}"),
        ("seconds", f"{sum(run['seconds'].values()):.0f}"),
        ("peak memory", f"{run['peak_memory_mb']:.0f} MB"),
    ]
