"""One self-contained page: the map to explore, the metrics with their meaning, the provenance.

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

from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.reporting.headline import headline
from ancestry_ddvi.reporting.metrics import label_values
from ancestry_ddvi.reporting.palette import (
    MAX_GROUPS,
    Group,
    cluster_groups,
    label_groups,
)

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
        Sentences shown above the map.
    title
        Of the page.
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
    page = environment.get_template("report.html.j2").render(
        title=title,
        n_samples=len(table.frame),
        points=json_ready(map_data(table, population, superpopulation)),
        headline=headline(dict(metrics)),
        metrics=json_ready(metrics),
        run=json_ready(run),
        warnings=list(warnings),
        plotly=Markup(get_plotlyjs()),  # the library's own source
    )
    # An id that is no valid unicode must not cost the whole page.
    Path(path).write_text(page, encoding="utf-8", errors="replace", newline="\n")


def map_data(
    table: EmbeddingTable, population: pd.Series | None, superpopulation: pd.Series | None
) -> dict[str, Any]:
    """Gather what the page's script draws: ids, latents, and one colouring per column."""
    broad = None if superpopulation is None else label_values(superpopulation, table)
    colourings: dict[str, list[Group]] = {}
    if population is not None:
        colourings["population"] = label_groups(label_values(population, table), broad)
    if broad is not None:
        colourings["superpopulation"] = label_groups(broad)
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
        "colourings": {
            name: _colouring(groups, len(table.frame))
            for name, groups in colourings.items()
            if 1 <= len(groups) <= MAX_GROUPS + 1
        },
    }


def _colouring(groups: Sequence[Group], n: int) -> dict[str, Any]:
    of_sample = np.zeros(n, int)
    for i, group in enumerate(groups):
        of_sample[group.member] = i
    return {
        "group_of_sample": of_sample.tolist(),
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
