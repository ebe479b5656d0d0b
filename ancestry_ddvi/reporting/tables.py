"""The embedding as a csv file, byte for byte the same for the same numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from ancestry_ddvi.embedding import EmbeddingTable


def write_embedding_csv(path: Path, table: EmbeddingTable) -> None:
    """Write `sample_id, z1..zD, z1_sd..zD_sd, cluster, cluster_probability`, `class,
    class_probability` if labels were learnt from, `z1_low, z1_high.., region_area, n_modes`, then
    label columns.

    Six significant digits for the numbers of the embedding; labels are written as they are, and
    whatever holds a comma, a quote or a line break is quoted. What is not known is left empty.
    """
    axes = range(1, table.n_latent + 1)
    numbers = [f"z{d}" for d in axes] + [f"z{d}_sd" for d in axes] + ["cluster_probability"]
    numbers += ["class_probability"] * (table.classes is not None)
    numbers += [f"z{d}_{end}" for d in axes for end in ("low", "high")] + ["region_area"]
    text = {name: _digits(table.frame[name], 6) for name in numbers}
    _write(path, table.frame.assign(**text))


def write_classes_csv(path: Path, table: EmbeddingTable) -> None:
    """Write `sample_id` and the probability of every class, a column each, named by the class.

    A table without classes is a mistake of the caller's.
    """
    assert table.classes is not None
    text = pd.DataFrame({name: _digits(column, 6) for name, column in table.classes.items()})
    text.insert(0, "sample_id", table.sample_id, allow_duplicates=True)
    _write(path, text)


def write_ancestry_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write the calls of every sample (`ancestry.AncestryCalls.frame`), four significant digits;
    what is not known is left empty."""
    text: dict[str, list[str]] = {
        str(name): _digits(column, 4) for name, column in frame.items() if column.dtype.kind == "f"
    }
    _write(path, frame.assign(**text))


def _digits(values: pd.Series, n: int) -> list[str]:
    return [f"{value:.{n}g}" if pd.notna(value) else "" for value in values]


def _write(path: Path, frame: pd.DataFrame) -> None:
    written = frame.to_csv(index=False, lineterminator="\n")
    if "\r" in written:  # a line break to readers, yet left unquoted by the csv module before 3.13
        written = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)
    Path(path).write_text(written, encoding="utf-8", newline="\n")
