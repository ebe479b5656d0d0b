"""Methods side by side: one table with intervals, and a grid of their maps.

    mean +- t_{.975, n-1} s / sqrt(n)      over n seeds, s their standard deviation

The interval says how far the seed matters; the samples are the same throughout.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.reporting.map_scores import IN_SAMPLE, table_of
from ancestry_ddvi.reporting.plots import save_maps

Rows = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
"""Method -> seed -> split -> figures."""

COLUMNS = {
    "rms_10_nmi": "NMI",
    "rms_10_purity": "purity",
    "rms_10_completeness": "completeness",
    "rms_10_superpopulation_nmi": "NMI, superpop.",
    "knn_population": "kNN, pop.",
    "knn_superpopulation": "kNN, superpop.",
    "fst_rank_correlation": "FST rank corr.",
    "held_out.knn_population": "kNN, pop., held-out",
    "held_out.knn_superpopulation": "kNN, superpop., held-out",
    "elbo": "ELBO",
    "held_out.elbo": "ELBO, held-out",
    "mean_sd": "mean sd",
    "cpu_seconds": "CPU s",
}
"""Columns of the table to read, of those that were measured; the csv has all."""

_ALL = list(dict.fromkeys([*COLUMNS, *IN_SAMPLE]))
_DIGITS = {"elbo": 2, "held_out.elbo": 2, "cpu_seconds": 1}
_SHORT = (
    *("rms_10_nmi", "rms_10_purity", "knn_population", "held_out.knn_population"),
    *("elbo", "mean_sd", "cpu_seconds"),
)

PUBLISHED_DATA = "published: another data set (Affymetrix 6.0, 3,450 samples)"
PUBLISHED_SEEDS = 3
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "gaussian": {"purity": (0.28, 0.02), "completeness": (0.78, 0.16), "nmi": (0.59, 0.08)},
    "iaf": {"purity": (0.29, 0.04), "completeness": (0.73, 0.06), "nmi": (0.55, 0.06)},
    "adversarial": {"purity": (0.37, 0.06), "completeness": (0.76, 0.11), "nmi": (0.63, 0.02)},
    "ddvi": {"purity": (0.45, 0.03), "completeness": (0.75, 0.05), "nmi": (0.66, 0.04)},
}
"""Piriyakulkij, Wang & Kuleshov 2025, 1000 Genomes: mean and 95 % interval over 3 seeds."""
_PUBLISHED_TITLES = {
    "gaussian": "AEVB",
    "iaf": "AEVB-IAF",
    "adversarial": "AAEB",
    "ddvi": "DDVI",
}


@dataclass(frozen=True)
class Line:
    """A method in the table.

    Attributes
    ----------
    method, title
        Its name on the command line and in words.
    data
        What was measured on.
    n_seeds, n_failed
        Seeds with a map, and fits that diverged.
    cells
        Column -> mean and half width of the 95 % interval, None where there is one seed.
    """

    method: str
    title: str
    data: str
    n_seeds: int
    n_failed: int
    cells: dict[str, tuple[float, float | None]]

    def cell(self, column: str) -> str:
        """Mean and interval as text; empty where not measured."""
        if column not in self.cells:
            return ""
        mean, half = self.cells[column]
        digits = _DIGITS.get(column, 3)
        return f"{mean:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


@dataclass(frozen=True)
class Summary:
    """The table as text for a terminal, and as JSON-ready rows."""

    text: str
    rows: list[dict[str, Any]]


def t_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half width of the 95 % interval; None for a single value."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return float(values[0]), None
    half = t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    return float(np.mean(values)), float(half)


def lines(methods: Rows, titles: Mapping[str, str], data: str) -> list[Line]:
    """Methods in the order of `titles`, the published row of one below ours."""
    out = []
    for name in (name for name in titles if name in methods):
        fits = [split for seed in methods[name].values() for split in seed.values()]
        cells = {}
        for column in _ALL:
            values = _values(methods[name], column)
            if values:
                cells[column] = t_interval(values)
        n_failed = sum("failed" in fit for fit in fits)
        n_seeds = len(_values(methods[name], "cpu_seconds"))
        out.append(Line(name, titles[name], data, n_seeds, n_failed, cells))
        if name in PUBLISHED and "rms_10_nmi" in cells:
            theirs = {f"rms_10_{k}": (mean, half) for k, (mean, half) in PUBLISHED[name].items()}
            title = f"{_PUBLISHED_TITLES[name]}, as published"
            out.append(Line(name, title, PUBLISHED_DATA, PUBLISHED_SEEDS, 0, dict(theirs)))
    return out


def write_comparison(
    folder: Path,
    methods: Rows,
    *,
    titles: Mapping[str, str],
    data: str,
    settings: Mapping[str, Any],
    places: Mapping[str, np.ndarray],
    sample_id: np.ndarray,
    population: pd.Series | None,
    superpopulation: pd.Series | None,
    command: str,
) -> Summary:
    """Write comparison.csv, comparison.md, comparison.png and comparison.pdf.

    Parameters
    ----------
    folder
        An existing folder.
    methods
        Figures of every finished fit.
    titles
        Of all methods, in the order of the table.
    data
        The input in a word.
    settings
        With `--steps`, `--holdout`, `samples`, `variants` and `options` (`n_draws`), for the text.
    places
        Method -> (n_samples, 2) places of the first seed, nan for samples that are not drawn.
    sample_id, population, superpopulation
        (n_samples,) each.
    command
        The command line.
    """
    table = lines(methods, titles, data)
    _write_csv(folder / "comparison.csv", table)
    text = _markdown(table, settings, command)
    (folder / "comparison.md").write_text(text, "utf-8", errors="backslashreplace")
    if places:
        drawn = np.all([np.isfinite(z).all(axis=1) for z in places.values()], axis=0)
        labels = {
            level: None if values is None else values[drawn].reset_index(drop=True)
            for level, values in (
                ("population", population),
                ("superpopulation", superpopulation),
            )
        }
        tables = {
            titles[name]: table_of(places[name][drawn], sample_id[drawn])
            for name in titles
            if name in places
        }
        save_maps(tables, folder / "comparison.png", folder / "comparison.pdf", **labels)
    return Summary(_text(table), [_json_row(line) for line in table])


def _values(seeds: Mapping[str, Mapping[str, Mapping[str, Any]]], column: str) -> list[float]:
    """One figure of every seed that has it."""
    split = "held_out" if column.startswith("held_out.") else "in_sample"
    rows = (seed.get(split, {}) for seed in seeds.values())
    found = (row.get(column.removeprefix("held_out.")) for row in rows)
    return [float(value) for value in found if value is not None]


def _measured(table: Sequence[Line], columns: Sequence[str]) -> list[str]:
    return [c for c in columns if any(c in line.cells for line in table)]


def _write_csv(path: Path, table: Sequence[Line]) -> None:
    """A row a method: of each column the mean, and the ends of its interval."""
    columns = _measured(table, _ALL)
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        ends = [f"{c}{end}" for c in columns for end in ("", "_low", "_high")]
        writer.writerow(["method", "title", "data", "seeds", "failed", *ends])
        for line in table:
            row = [line.method, line.title, line.data, line.n_seeds, line.n_failed]
            for column in columns:
                row += _ends(line.cells.get(column))
            writer.writerow(row)


def _ends(cell: tuple[float, float | None] | None) -> list[str]:
    if cell is None:
        return ["", "", ""]
    mean, half = cell
    if half is None:
        return [f"{mean:.6g}", "", ""]
    return [f"{value:.6g}" for value in (mean, mean - half, mean + half)]


def _json_row(line: Line) -> dict[str, Any]:
    cells = {
        column: {"mean": mean, "half_width_95": half} for column, (mean, half) in line.cells.items()
    }
    return {
        "method": line.method,
        "title": line.title,
        "data": line.data,
        "seeds": line.n_seeds,
        "failed": line.n_failed,
        "columns": cells,
    }


def _text(table: Sequence[Line]) -> str:
    """The main columns for a terminal, means only."""
    columns = _measured(table, _SHORT)
    rows = [["", *(COLUMNS[c] for c in columns)]]
    rows += [[line.title, *(line.cell(c).split(" ")[0] for c in columns)] for line in table]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    )


def _markdown(table: Sequence[Line], settings: Mapping[str, Any], command: str) -> str:
    columns = _measured(table, list(COLUMNS))
    header = ["method", "seeds", *(COLUMNS[c] for c in columns)]
    rows = [[line.title, str(line.n_seeds), *(line.cell(c) for c in columns)] for line in table]
    text = [
        "# Comparison",
        "",
        f"{settings['samples']:,} samples, {settings['variants']:,} variants. Cells: mean over "
        "seeds ± half of the 95 % t interval.",
        "",
        *_table(header, rows),
        "",
    ]
    text += [
        f"{line.title}, fits that diverged: {line.n_failed}; the table is of the others.\n"
        for line in table
        if line.n_failed
    ]
    scored = "rms_10_nmi" in columns or "knn_population" in columns
    text.append(_HOW.format(n_steps=settings["--steps"], n_draws=settings["options"]["n_draws"]))
    if scored:
        text.append(_SCORES)
    if any(line.data == PUBLISHED_DATA for line in table):
        text.append(_ABOUT_PUBLISHED)
    if settings["--holdout"] > 0:
        text.append(_HELD_OUT.format(share=settings["--holdout"]))
    text.append(f"Command: `{command}`\n")
    return "\n".join(text)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown lines, first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *rows)]


_HOW = """All methods see the same features of the same samples, and no method sees a label. AEVB to
PIS and the variants of DDVI are one latent variable model with another posterior each: the same
decoder, learnt mixture prior, widths and {n_steps:,} gradient steps, on the plain objective of
their paper, without the neighbour and distance terms of ancestry-ddvi. Wake-sleep takes so many
wake steps, and as many sleep steps between them, which leave the decoder alone. The prior of AAEB
stays as it was drawn; AAEB has no density, hence no ELBO, and nothing that would keep its draws
wide. DDVI (ancestry-ddvi) is what `ancestry-ddvi embed` trains, in its own phases: they are longer,
look for neighbours in features whose noise is taken away, and add noise as missing genotypes would.
Each rival has the learning rate, of four, with the best bound on the bundled data.
ELBO: in nats, mean over {n_draws:,} draws of the chain a sample. Mean sd: of the posterior draws,
in units of the method's own axes. CPU s: from features to places, in one thread; reading and
scoring are not in it.
"""

_SCORES = """In-sample scores are of the samples that the method was fitted to, by posterior means.
NMI, purity, completeness: a Gaussian mixture of 20 (full covariances, reg_covar 1e-2, 10 starts,
random_state 2) on axes at RMS 10, against populations; superpop.: as many components as there are
superpopulations. kNN: vote of the 15 nearest neighbours, 5 stratified folds of the labels. FST rank
corr.: Spearman correlation of the distances between population centroids with Hudson FST. Scores on
z-scored axes are in the csv.
"""

_ABOUT_PUBLISHED = """As published: Piriyakulkij, Wang & Kuleshov, AAAI 2025, on another data set
(1000 Genomes on the Affymetrix 6.0 chip, 3,450 samples, 26 populations), ± a 95 % interval over 3
seeds, the same mixture on latents at their own scale: a reference, not the same measurement.
"""

_HELD_OUT = """Held-out: a second fit of each seed learns nothing from {share:.0%} of the
samples, which are placed afterwards; kNN there is the vote of training samples.
"""
