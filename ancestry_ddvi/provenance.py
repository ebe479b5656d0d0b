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
from ancestry_ddvi.preprocessing.alignment import OF_CALLS, OF_MAP, Matched

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
    sites: Matched | None,
    not_scored: Mapping[str, int],
    not_called: Mapping[str, int] | None,
    parameters: Mapping[str, Any],
    history: History | None,
    labels: Mapping[str, Any] | None,
    command: str,
) -> dict[str, Any]:
    """Everything a reader needs to run it again and to see what was left out where.

    `about` may be without the samples, of which there are `n_samples`. `history` is None if the
    model was trained by an earlier run, whose filters and settings then stand under `model`;
    `matched` says what the input has of the map's variants, `sites` of those of the calls.
    `not_scored` counts the samples that no metric rests on, by reason, `not_called` those that got
    no ancestry call; None if nobody could.
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
    if not_called is not None:
        counts["samples without an ancestry call"] = dict(not_called)
    if matched is None:
        counts["variants filtered"] = dict(model.extractor.funnel)
    tables = dict(zip((OF_MAP, OF_CALLS), model.tables, strict=False))
    for name, found in ((OF_MAP, matched), (OF_CALLS, sites)):
        if name in tables:
            counts[name] = len(tables[name])
        if found is not None:
            counts[f"{name}, by what the file has"] = found.by_words()
    return {
        "version": __version__,
        "command": command,
        "seed": parameters["seed"],
        "input": dict(about.source),
        "genome build": matched and {"file": matched.build, "model": matched.model_build},
        "positions translated to": matched.build if matched and matched.is_translated else None,
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
    "samples without an ancestry call": "not called",
    "records left out": "left out",
    "variants filtered": "filtered",
    f"{OF_MAP}, by what the file has": "in the file",
    f"{OF_CALLS}, by what the file has": "in the file",
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
