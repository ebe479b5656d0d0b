"""One self-contained page: the ancestry calls, the map to explore, the metrics with their meaning,
the provenance, and the card of the model.

Sample ids and labels are hostile input. They reach the page through the template, which escapes,
or as JSON in which no `<` survives; the page's script writes them as text, never as markup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.embedding import EmbeddingTable, ReferencePlaces
from ancestry_ddvi.reporting.headline import headline
from ancestry_ddvi.reporting.metrics import label_values
from ancestry_ddvi.reporting.palette import (
    MAX_GROUPS,
    Group,
    call_groups,
    cluster_groups,
    label_groups,
)

CALL_LEVELS = ("superpopulation", "population")

MAX_ROWS = 50
"""Samples in the table of calls; ancestry.csv has all."""

# matplotlib marker -> plotly symbol
_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "<": "triangle-left",
    ">": "triangle-right",
    "p": "pentagon",
    "h": "hexagon",
    "d": "diamond-tall",
    ".": "circle",
}


def write_report_html(
    path: Path,
    table: EmbeddingTable,
    metrics: Mapping[str, Any],
    run: Mapping[str, Any],
    *,
    population: pd.Series | None = None,
    superpopulation: pd.Series | None = None,
    warnings: Sequence[str] = (),
    title: str = "Map of genetic ancestry",
    reference: ReferencePlaces | None = None,
    ancestry: pd.DataFrame | None = None,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write the page; it needs no network and forbids itself any.

    Parameters
    ----------
    path
        Where to write.
    table
        The embedding; its label columns can be chosen as colours too, if they have 2 to 60 values.
    metrics
        What `evaluate` returned.
    run
        Provenance, of any depth, shown as it is.
    population, superpopulation
        (n_samples,) labels in the table's order.
    warnings
        Sentences shown above the map, below the calls.
    title
        Of the page.
    reference
        Labelled samples of the model, drawn faintly behind those of the table.
    ancestry
        (n_samples, ...) calls, with the columns of ancestry.csv: a table of the first `MAX_ROWS`,
        colours to choose, and shown of the sample under the pointer.
    card
        What the model says of itself, JSON-ready, of any depth.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("ancestry_ddvi.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Colourings keep their order, and nothing that JSON cannot say gets through.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    points = map_data(table, population, superpopulation, reference, ancestry)
    page = environment.get_template("report.html.j2").render(
        title=title,
        n_samples=len(table.frame),
        n_reference=0 if reference is None else len(reference.z),
        calls=None if ancestry is None else call_rows(ancestry, points["colourings"]),
        call_levels=[] if ancestry is None else [x for x in CALL_LEVELS if x in ancestry],
        points=json_ready(points),
        card=None if card is None else json_ready(card),
        headline=headline(dict(metrics)),
        metrics=json_ready(metrics),
        run=json_ready(run),
        warnings=list(warnings),
        plotly=Markup(get_plotlyjs()),  # the library's own source
    )
    # An id that is no valid unicode must not cost the whole page.
    Path(path).write_text(page, encoding="utf-8", errors="replace", newline="\n")


def call_rows(
    ancestry: pd.DataFrame, colourings: Mapping[str, Mapping[str, Any]], most: int = MAX_ROWS
) -> list[dict[str, Any]]:
    """The first calls as text for a table, each with the colour that it has on the map.

    Parameters
    ----------
    ancestry
        (n_samples, ...) with the columns of ancestry.csv.
    colourings
        Of `map_data`; calls of a level that has none go without a colour.
    most
        Rows, at most.
    """
    names = _callable(ancestry)
    rows = []
    for i, row in enumerate(ancestry.head(most).to_dict("records")):
        calls = []
        for level in (x for x in CALL_LEVELS if x in ancestry):
            colouring = colourings.get(f"{level} call")
            of_sample = colouring and colouring["groups"][colouring["group_of_sample"][i]]
            is_call, p = row[level] in names, row[f"{level}_probability"]
            # Superpopulations come first, and may have one population, as probable as themselves.
            likeliest = [name for name in names if row[f"p_{name}"] == p]
            calls.append(
                {
                    "name": row[level],
                    "is_call": is_call,
                    "likeliest": None
                    if is_call or not likeliest
                    else likeliest[0 if level == CALL_LEVELS[0] else -1],
                    "colour": of_sample["colour"] if of_sample and is_call else None,
                    "probability": _share(p),
                }
            )
        effective = float(row["effective_sites"])
        rows.append(
            {
                "id": str(row["sample_id"]),
                "calls": calls,
                "typicality": _share(row["typicality"]),
                "power": _share(row["typicality_power"]),
                "n_sites": f"{row['n_sites']:,}",
                "effective": f"{effective:,.0f}" if effective < row["n_sites"] / 2 else None,
            }
        )
    return rows


def _share(value: float) -> str:
    """Three decimals, and neither 0 nor 1 of what is only near; nothing of what is not known."""
    if not math.isfinite(value):
        return "–"
    if 0 < value < 0.001:
        return "< 0.001"
    return "> 0.999" if 0.999 < value < 1 else f"{value:.3f}"


def map_data(
    table: EmbeddingTable,
    population: pd.Series | None,
    superpopulation: pd.Series | None,
    reference: ReferencePlaces | None = None,
    ancestry: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Gather what the page's script draws: ids, latents, and one colouring per column.

    A colouring by labels or calls is one of the reference, too, so that a name has one colour.
    """
    fine, coarse = (
        None if labels is None else label_values(labels, table)
        for labels in (population, superpopulation)
    )
    behind = None if reference is None else (reference.population, reference.superpopulation)
    colourings: dict[str, list[Group]] = {}
    if fine is not None:
        colourings["population"] = label_groups(*_with_reference(fine, coarse, behind))
    if coarse is not None:
        colourings["superpopulation"] = label_groups(
            coarse if behind is None else np.concatenate([coarse, behind[1]])
        )
    colourings |= _call_colourings(ancestry, behind)
    colourings["cluster"] = cluster_groups(table.frame["cluster"].to_numpy())
    if table.classes is not None:
        colourings["class"] = label_groups(label_values(table.frame["class"], table), None)
    for column in table.frame.columns[table.n_own :]:
        labels = table.frame[column].reset_index(drop=True)
        same = any(
            labels.equals(s.reset_index(drop=True))
            for s in (population, superpopulation)
            if s is not None
        )
        if not same and labels.nunique() <= MAX_GROUPS:
            colourings.setdefault(str(column), label_groups(label_values(labels, table), None))
    return {
        "id": table.sample_id.tolist(),
        "z": _rounded(table.z.T),
        "sd": _rounded(table.z_sd.T),
        "probability": _rounded(table.frame["cluster_probability"].to_numpy(float)),
        "modes": [None if pd.isna(n) else int(n) for n in table.frame["n_modes"]],
        "calls": _calls(ancestry),
        "reference": None
        if reference is None
        else {
            "z": _rounded(reference.z.T.astype(float)),
            "population": _numbered(reference.population),
        },
        "colourings": {
            name: _colouring(groups, len(table.frame))
            for name, groups in colourings.items()
            if 1 <= len(groups) <= MAX_GROUPS + 1
        },
    }


_Behind = tuple[np.ndarray, np.ndarray] | None
"""Populations and superpopulations of the reference."""


def _with_reference(
    fine: np.ndarray, coarse: np.ndarray | None, behind: _Behind
) -> tuple[np.ndarray, np.ndarray | None]:
    """Populations and their families, of the table's samples and then of the reference."""
    if behind is None:
        return fine, coarse
    own = np.full(len(fine), "") if coarse is None else coarse
    families = np.concatenate([own, behind[1]])
    return np.concatenate([fine, behind[0]]), families if (families != "").any() else None


def _call_colourings(ancestry: pd.DataFrame | None, behind: _Behind) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = {}
    if ancestry is None:
        return found
    called = set(_callable(ancestry))
    for level in CALL_LEVELS:
        if level in ancestry:
            values, families = ancestry[level].to_numpy(str), None
            if level == "population":
                values, families = _with_reference(values, None, behind)
            elif behind is not None:
                values = np.concatenate([values, behind[1]])
            found[f"{level} call"] = call_groups(values, families, called)
    return found


def _callable(ancestry: pd.DataFrame) -> list[str]:
    """Names that a call can have; what else stands there says why there is none."""
    return [str(name).removeprefix("p_") for name in ancestry if str(name).startswith("p_")]


def _calls(ancestry: pd.DataFrame | None) -> dict[str, Any] | None:
    """What is shown of a sample under the pointer."""
    if ancestry is None:
        return None
    return {
        "n_sites": ancestry["n_sites"].tolist(),
        "typicality": _rounded(ancestry["typicality"].to_numpy(float)),
        "levels": {
            level: {
                **_numbered(ancestry[level].to_numpy(str)),
                "probability": _rounded(ancestry[f"{level}_probability"].to_numpy(float)),
            }
            for level in CALL_LEVELS
            if level in ancestry
        },
    }


def _numbered(values: np.ndarray) -> dict[str, Any]:
    """Text with many repeats: the names, and which of them each is."""
    names, number = np.unique(values, return_inverse=True)
    return {"names": names.tolist(), "number": number.tolist()}


def _colouring(groups: Sequence[Group], n: int) -> dict[str, Any]:
    """Groups of the first n samples and, where the groups know them, of the reference behind."""
    of_sample = np.zeros(len(groups[0].member), int)
    for i, group in enumerate(groups):
        of_sample[group.member] = i
    return {
        "group_of_sample": of_sample[:n].tolist(),
        "group_of_reference": of_sample[n:].tolist(),
        "groups": [
            {
                "name": group.name,
                "family": group.family,
                "colour": group.colour,
                "symbol": _SYMBOLS[group.marker],
            }
            for group in groups
        ],
    }


def _rounded(values: np.ndarray) -> list[Any]:
    """Six significant digits: more would only make the page larger."""
    shorten = np.vectorize(lambda value: float(f"{value:.6g}"), otypes=[float])
    return list(shorten(values).tolist())


def json_ready(value: Any) -> Any:
    """Turn numpy values into plain ones and what is not finite into None, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return json_ready(value.tolist())
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, np.generic):
        return json_ready(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
