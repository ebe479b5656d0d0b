"""What people look at and hand on: metrics, maps, the page, covariates. Reads tables only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ancestry_ddvi.embedding import EmbeddingTable, ReferencePlaces
from ancestry_ddvi.reporting.covariates import unfit_id, write_covariates
from ancestry_ddvi.reporting.headline import Headline, headline
from ancestry_ddvi.reporting.html import json_ready, write_report_html
from ancestry_ddvi.reporting.metrics import call_scores, class_scores, evaluate
from ancestry_ddvi.reporting.plots import MAX_REGIONS, draw_map, save_map
from ancestry_ddvi.reporting.tables import (
    write_ancestry_csv,
    write_classes_csv,
    write_embedding_csv,
)

__all__ = [
    "MAX_REGIONS",
    "Headline",
    "Report",
    "call_scores",
    "class_scores",
    "draw_map",
    "evaluate",
    "headline",
    "save_map",
    "unfit_id",
    "write_ancestry_csv",
    "write_classes_csv",
    "write_covariates",
    "write_embedding_csv",
    "write_report",
    "write_report_html",
]


@dataclass(frozen=True)
class Report:
    """What `write_report` wrote, and what is to be known of the columns of covariates.tsv, if
    anything."""

    files: tuple[Path, ...]
    covariates_note: str | None


def write_report(
    table: EmbeddingTable,
    out_dir: Path,
    *,
    population: pd.Series | None,
    superpopulation: pd.Series | None,
    metrics: Mapping[str, Any],
    run: Mapping[str, Any],
    fid: Sequence[str] | None = None,
    warnings: Sequence[str] = (),
    covariates: bool = True,
    pictures: bool = True,
    reference: ReferencePlaces | None = None,
    ancestry: pd.DataFrame | None = None,
    card: Mapping[str, Any] | None = None,
    placed: bool = False,
) -> Report:
    """Write embedding.csv, covariates.tsv, map.png, map.pdf, report.html and metrics.json,
    classes.csv if labels were learnt from, and ancestry.csv if there are calls.

    Parameters
    ----------
    table
        The embedding, label columns included.
    out_dir
        An existing folder; a caller that wants all or nothing gives a temporary one and renames.
    population, superpopulation
        (n_samples,) labels in the table's order.
    metrics
        What `evaluate` returned.
    run
        Provenance, shown in the page.
    fid
        (n_samples,) family ids for the covariates; 0 by default.
    warnings
        Sentences for the top of the page.
    covariates
        Whether to write covariates.tsv, which `unfit_id` may say is impossible.
    pictures
        Whether to write the map and the page, which take longer than all else for a few samples.
    reference
        Labelled samples of the model, drawn behind those of the table.
    ancestry
        (n_samples, ...) calls (`ancestry.AncestryCalls.frame`).
    card
        What the model says of itself (`reference_models.card_of`), for the page.
    placed
        Whether the map is that of an earlier run.

    Raises
    ------
    InputError
        If a sample id or a value cannot stand in a covariate file.
    """
    out_dir = Path(out_dir)
    drawn = ["map.png", "map.pdf", "report.html"] if pictures else []
    names = ["embedding.csv", *drawn, "metrics.json"]
    note: str | None = None
    if covariates:  # first: it may refuse the ids
        names.insert(1, "covariates.tsv")
        path = out_dir / "covariates.tsv"
        note = _of_columns(table, write_covariates(path, table, fid=fid, placed=placed), placed)
        warnings = [*warnings, *([note] if note else [])]
    write_embedding_csv(out_dir / "embedding.csv", table)
    if table.classes is not None:
        names.insert(1, "classes.csv")
        write_classes_csv(out_dir / "classes.csv", table)
    if ancestry is not None:
        names.insert(1, "ancestry.csv")
        write_ancestry_csv(out_dir / "ancestry.csv", ancestry)
    if pictures:
        labels: dict[str, Any] = {"population": population, "superpopulation": superpopulation}
        labels["reference"] = reference
        save_map(table, out_dir / "map.png", out_dir / "map.pdf", **labels)
        write_report_html(
            out_dir / "report.html",
            table,
            metrics,
            run,
            **labels,
            warnings=warnings,
            ancestry=ancestry,
            card=card,
        )
    text = json.dumps(json_ready(metrics), indent=2, allow_nan=False, ensure_ascii=False)
    (out_dir / "metrics.json").write_text(text + "\n", encoding="utf-8")
    return Report(tuple(out_dir / name for name in names), note)


def _of_columns(table: EmbeddingTable, explained: Sequence[str], placed: bool) -> str | None:
    """What to know of columns of covariates.tsv that are constant or explained by others."""
    # Of fewer samples than columns all are explained, and nobody regresses on such a file alone.
    if not explained or (placed and len(table.frame) <= table.pcs.shape[1] + table.n_latent + 1):
        return None
    said = (
        "has all columns, so that files of other samples fit below; constant in these samples, or "
        "explained by the columns before"
        if placed
        else "leaves out what the columns before explain, or is constant"
    )
    return f"covariates.tsv {said}: {', '.join(explained)}"
