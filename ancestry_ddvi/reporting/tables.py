"""The embedding as a csv file, byte for byte the same for the same numbers."""

from __future__ import annotations

import csv
from pathlib import Path

from ancestry_ddvi.embedding import EmbeddingTable


def write_embedding_csv(path: Path, table: EmbeddingTable) -> None:
    """Write `sample_id, z1..zD, z1_sd..zD_sd, cluster, cluster_probability`, then label columns.

    Six significant digits for the numbers of the embedding; labels are written as they are, and
    whatever holds a comma, a quote or a line break is quoted.
    """
    axes = range(1, table.n_latent + 1)
    numbers = [f"z{d}" for d in axes] + [f"z{d}_sd" for d in axes] + ["cluster_probability"]
    text = {name: [f"{value:.6g}" for value in table.frame[name]] for name in numbers}
    frame = table.frame.assign(**text)
    written = frame.to_csv(index=False, lineterminator="\n")
    if "\r" in written:  # a line break to readers, yet left unquoted by the csv module before 3.13
        written = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)
    Path(path).write_text(written, encoding="utf-8", newline="\n")
