"""The map as a figure for print: every sample, a legend beside it, nothing in pyplot's state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ancestry_ddvi.credible import outlines
from ancestry_ddvi.embedding import EmbeddingTable, ReferencePlaces
from ancestry_ddvi.reporting.palette import (
    MAX_GROUPS,
    UNLABELLED,
    Group,
    label_groups,
    map_groups,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: Any = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so every machine draws the same
    "font.size": 7.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # text stays text, which journals ask for
    "svg.fonttype": "none",
}
MAX_REGIONS = 50
"""New samples above which their 90 % regions are not drawn."""

_MIN_DRAWS = 10  # fewer have no shape to draw
_MAX_NAMED = 12
_MAX_PANELS = 12
_LAYERS = 6
_RASTER_ABOVE = 5_000
_NAME_LENGTH = 28
_LEADER_FROM = 16  # points from centroid to name, above which a line joins them
_LEGEND_ROW = 10.3  # points


def draw_map(
    table: EmbeddingTable,
    ax: Axes,
    *,
    population: pd.Series | None = None,
    superpopulation: pd.Series | None = None,
    dimensions: tuple[int, int] = (0, 1),
    legend: bool = True,
    names: bool = True,
    reference: ReferencePlaces | None = None,
) -> Axes:
    """Draw two latents, equal aspect, coloured by the finest labels there are.

    Parameters
    ----------
    table
        The embedding; with one latent, a strip a group is drawn instead.
    ax
        Where to draw.
    population, superpopulation
        (n_samples,) labels in the table's order. Without any, colour is the cluster.
    dimensions
        The latents on the two axes, counted from 0.
    legend
        Whether to put a legend to the right of `ax`, outside it.
    names
        Whether to write the groups' names where they are.
    reference
        Samples of the model: with them, these give the colours, the legend and the names, faintly,
        and the table's samples are drawn on top in black, with the 90 % regions of their draws
        and their ids if there are few.

    Returns
    -------
    `ax`.

    Raises
    ------
    ValueError
        If there is no such latent, or labels do not belong to the table's samples.
    """
    if reference is not None and table.n_latent > 1 and len(reference.z):
        return _draw_on_reference(table, reference, ax, dimensions, legend=legend)
    groups = map_groups(table, population, superpopulation)
    if table.n_latent == 1:
        return _draw_strips(table.z[:, 0], groups, ax)
    if not all(0 <= d < table.n_latent for d in dimensions):
        raise ValueError(f"dimensions {dimensions} of an embedding with {table.n_latent} latents")
    z = table.z[:, list(dimensions)]
    _draw_points(z, groups, ax)
    _finish_axes(ax, dimensions)
    if names:
        _name_centroids(z, groups, ax)
    if legend:
        _draw_legend(groups, ax)
    return ax


def _finish_axes(ax: Axes, dimensions: tuple[int, int]) -> None:
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.04)
    for axis, dimension in zip((ax.xaxis, ax.yaxis), dimensions, strict=True):
        axis.set_label_text(f"Latent {dimension + 1}")
    ax.spines[["top", "right"]].set_visible(False)


def _draw_on_reference(
    table: EmbeddingTable,
    reference: ReferencePlaces,
    ax: Axes,
    dimensions: tuple[int, int],
    *,
    legend: bool,
) -> Axes:
    """Reference faint, new samples on top."""
    axes = list(dimensions)
    behind, z = reference.z[:, axes].astype(float), table.z[:, axes]
    families = reference.superpopulation if (reference.superpopulation != "").any() else None
    groups = label_groups(reference.population, families)
    if len(groups) > MAX_GROUPS:
        groups = label_groups(reference.superpopulation)
    _draw_points(behind, groups, ax, alpha=0.3)
    few = len(z) <= MAX_REGIONS
    draws = table.draws if few else None
    outlined = draws is not None and len(draws) >= _MIN_DRAWS
    if draws is not None and outlined:
        _draw_regions(draws[:, :, axes], ax)
    ax.scatter(
        z[:, 0],
        z[:, 1],
        s=22 if few else float(np.clip(9 * (2500 / len(z)) ** 0.5, 0.5, 9)),
        c="black",
        marker="o",
        linewidths=0.5 if few else 0.1,
        edgecolors="white",
        zorder=4,
        rasterized=len(z) > _RASTER_ABOVE,
    )
    _finish_axes(ax, dimensions)
    named = len(z) <= _MAX_NAMED
    taken = _name_samples(table.sample_id, z, ax) if named else np.empty((0, 4))
    _name_centroids(behind, groups, ax, taken)
    if legend:
        _draw_legend(groups, ax, n_new=len(z), regions=outlined)
    return ax


def _draw_regions(draws: np.ndarray, ax: Axes) -> None:
    """The 90 % regions of (n_draws, n_samples, 2) draws, those of the table."""
    for outline in outlines(draws):
        ax.contour(
            *np.moveaxis(outline.at, -1, 0),
            outline.density,
            levels=[outline.bound],
            colors="black",
            linewidths=0.8,
            zorder=3.5,
        )


def save_map(
    table: EmbeddingTable,
    path_png: Path,
    path_pdf: Path,
    *,
    population: pd.Series | None = None,
    superpopulation: pd.Series | None = None,
    reference: ReferencePlaces | None = None,
) -> None:
    """Write the map as png (300 dpi) and pdf (text as text); equal input gives equal bytes.

    More than two latents are drawn two by two, up to 24.
    """
    with _style():
        _save(_figure(table, population, superpopulation, reference), path_png, path_pdf)


def save_maps(
    tables: Mapping[str, EmbeddingTable],
    path_png: Path,
    path_pdf: Path,
    *,
    population: pd.Series | None = None,
    superpopulation: pd.Series | None = None,
) -> None:
    """Write maps of the same samples side by side, a panel each under its title, one legend.

    Axes have no numbers, since those of different methods have nothing in common.
    """
    labelled = population is not None or superpopulation is not None
    with _style():
        figure, panels = _panels(len(tables), side=2.4, n_columns=4)
        last = min(4, len(tables)) - 1
        for i, (title, table) in enumerate(tables.items()):
            draw_map(
                table,
                panels[i],
                population=population,
                superpopulation=superpopulation,
                legend=labelled and i == last,
                names=False,
            )
            panels[i].set(xlabel="", ylabel="", xticks=[], yticks=[])
            panels[i].set_title(title, parse_math=False)
        _save(figure, path_png, path_pdf)


def _save(figure: Figure, path_png: Path, path_pdf: Path) -> None:
    # Measured once: "tight" would draw the figure once more for each file.
    box = figure.get_tightbbox().padded(0.1)
    figure.savefig(path_png, dpi=300, bbox_inches=box, metadata={"Software": None})
    figure.savefig(path_pdf, dpi=300, bbox_inches=box, metadata={"CreationDate": None})


def _figure(
    table: EmbeddingTable,
    population: pd.Series | None,
    superpopulation: pd.Series | None,
    reference: ReferencePlaces | None,
) -> Figure:
    pairs = panel_pairs(table.n_latent)
    figure, panels = _panels(len(pairs), side=5.2 if len(pairs) == 1 else 3.0, n_columns=3)
    last = min(3, len(pairs)) - 1
    for i, pair in enumerate(pairs):
        draw_map(
            table,
            panels[i],
            population=population,
            superpopulation=superpopulation,
            dimensions=pair,
            legend=i == last,  # the end of the first row: what is right of it is free
            reference=reference,
        )
    return figure


def _panels(n: int, *, side: float, n_columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with n square axes, `side` inches each, row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_columns = min(n_columns, n)
    n_rows = -(-n // n_columns)
    figure = Figure(figsize=(n_columns * side, n_rows * side))
    FigureCanvasAgg(figure)
    # Fixed margins: names are placed by measuring, so axes must not move afterwards.
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    figure.subplots_adjust(0.08, 0.08, 0.98, 0.98, wspace=0.25, hspace=0.25)
    for ax in grid.flat[n:]:
        ax.set_axis_off()
    return figure, list(grid.flat[:n])


def panel_pairs(n_latent: int) -> list[tuple[int, int]]:
    """Latents two by two; an odd last one is paired with its predecessor. At most 12 pairs."""
    if n_latent == 1:
        return [(0, 0)]
    firsts = [*range(0, n_latent - 1, 2), *([n_latent - 2] if n_latent % 2 else [])]
    return [(first, first + 1) for first in firsts][:_MAX_PANELS]


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes; that is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _draw_points(z: np.ndarray, groups: Sequence[Group], ax: Axes, *, alpha: float = 0.9) -> None:
    n = len(z)
    size = float(np.clip(9 * (2500 / max(n, 1)) ** 0.5, 0.5, 20))
    # Drawn group by group, the last group would cover the others wherever they overlap. Samples
    # are dealt into layers instead, each with all groups; those of one marker are drawn at once.
    layer = np.random.default_rng(0).integers(0, _LAYERS, n)
    alike: dict[tuple[str, bool], list[Group]] = {}
    for group in groups:
        alike.setdefault((group.marker, group.name == UNLABELLED), []).append(group)
    for level in range(_LAYERS):
        for (marker, unlabelled), some in alike.items():
            chosen = [np.flatnonzero(group.member & (layer == level)) for group in some]
            rows = np.concatenate(chosen)
            if not len(rows):
                continue
            ax.scatter(
                z[rows, 0],
                z[rows, 1],
                s=size,
                c=np.repeat([group.colour for group in some], [len(own) for own in chosen]),
                marker=marker,
                linewidths=0.15,
                edgecolors="white",
                alpha=alpha,
                zorder=1.0 if unlabelled else 2.0 + level / 100,
                rasterized=n > _RASTER_ABOVE,
            )


def _draw_strips(z: np.ndarray, groups: Sequence[Group], ax: Axes) -> Axes:
    jitter = np.random.default_rng(0).uniform(-0.32, 0.32, len(z))
    for row, group in enumerate(groups):
        ax.scatter(
            z[group.member],
            row + jitter[group.member],
            s=6,
            c=group.colour,
            marker=group.marker,
            linewidths=0,
            alpha=0.8,
            rasterized=len(z) > _RASTER_ABOVE,
        )
    ax.set_yticks(range(len(groups)), [_legend_name(group) for group in groups])
    for text, group in zip(ax.get_yticklabels(), groups, strict=True):
        text.set_parse_math(False)
        text.set_color(group.colour)
    ax.set_ylim(len(groups) - 0.4, -0.6)
    ax.set_xlabel("Latent 1")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _name_centroids(
    z: np.ndarray, groups: Sequence[Group], ax: Axes, taken: np.ndarray | None = None
) -> None:
    """Write each group's name near its median, where it hides least and meets no other name.

    A name that finds no free place is left to the legend. `taken`: (n, 4) boxes that are not free.
    """
    cloud = np.random.default_rng(0).permutation(z)[:5000]
    paper = _Paper(ax, cloud, np.empty((0, 4)) if taken is None else taken)
    reach = 0.09 * paper.side  # farther off, a name could be anyone's
    offsets = np.concatenate([np.zeros((1, 2)), *_rings(np.arange(6, max(reach, 7), 3))])
    for group in sorted(groups, key=lambda group: -group.n_samples):
        if group.name == UNLABELLED or not group.n_samples:
            continue
        name = _short(group.name, 12)
        centre = np.median(z[group.member], axis=0)
        half = np.array([0.5 * 4.6 * len(name) + 1.0, 4.0])
        best = paper.room(centre, offsets, half, np.linalg.norm(offsets, axis=1))
        if best is not None:
            far = bool(np.linalg.norm(offsets[best]) > _LEADER_FROM)
            _write(name, centre, offsets[best], ax, _darker(group.colour), bold=True, leader=far)


def _name_samples(names: np.ndarray, z: np.ndarray, ax: Axes) -> np.ndarray:
    """Write the ids beside their samples, the nearest free place first; return (n, 4) boxes."""
    paper = _Paper(ax, z, np.empty((0, 4)))
    dots = paper.points(z)
    paper.taken = np.concatenate([dots - 3, dots + 3], axis=1)
    rings = np.concatenate(_rings(np.arange(6, max(0.15 * paper.side, 7), 3)))
    for name, place in zip(names, z, strict=True):
        text = _short(str(name), 20)
        half = np.array([0.5 * 4.1 * len(text) + 1.0, 4.0])
        # Of the box, what is nearest the dot lies on the ring.
        offsets = rings + np.sign(rings.round(6)) * half
        gap = np.linalg.norm(rings, axis=1)
        best = paper.room(place, offsets, half, gap)
        if best is None:
            offset, leader = half + 4, False
        else:
            offset, leader = offsets[best], bool(gap[best] > 8)
        _write(text, place, offset, ax, "black", bold=False, leader=leader)
    return paper.taken


class _Paper:
    """What is free of an axes, in points.

    Parameters
    ----------
    ax
        With its final limits.
    cloud
        (n, 2) data that names should not hide.
    taken
        (n, 4) boxes that are not free: left, bottom, right, top.
    """

    def __init__(self, ax: Axes, cloud: np.ndarray, taken: np.ndarray) -> None:
        ax.apply_aspect()
        self._scale = 72 / float(ax.figure.dpi)
        self._ax = ax
        self.cloud = self.points(cloud)
        self.taken = taken
        self.frame = np.asarray(ax.bbox.extents) * self._scale
        self.side = float(min(self.frame[2:] - self.frame[:2]))

    def points(self, z: np.ndarray) -> np.ndarray:
        """Data coordinates (..., 2) in points."""
        return np.asarray(self._ax.transData.transform(z)) * self._scale

    def room(
        self, place: np.ndarray, offsets: np.ndarray, half: np.ndarray, cost: np.ndarray
    ) -> int | None:
        """Which offset gives a box of this half size the best free place, which is then taken."""
        middles = self.points(place) + offsets
        boxes = np.concatenate([middles - half, middles + half], axis=1)
        free = (boxes[:, :2] >= self.frame[:2]).all(axis=1)
        free &= (boxes[:, 2:] <= self.frame[2:]).all(axis=1)
        for other in self.taken:
            free &= ~((boxes[:, :2] < other[2:]) & (boxes[:, 2:] > other[:2])).all(axis=1)
        if not free.any():
            return None
        hidden = _n_inside(self.cloud, boxes)
        best = int(np.argmin(np.where(free, hidden / len(self.cloud) * 400 + cost, np.inf)))
        self.taken = np.vstack([self.taken, boxes[best]])
        return best


def _rings(radii: np.ndarray) -> list[np.ndarray]:
    """(18, 2) offsets for each radius."""
    angles = np.deg2rad(np.arange(0, 360, 20))
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [radius * ring for radius in radii]


def _write(
    text: str,
    place: np.ndarray,
    offset: np.ndarray,
    ax: Axes,
    colour: str,
    *,
    bold: bool,
    leader: bool,
) -> None:
    from matplotlib.patheffects import withStroke

    line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5}
    line |= {"shrinkA": 0, "shrinkB": 0, "zorder": 4}
    ax.annotate(
        text,
        tuple(place),
        tuple(offset),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=6.5,
        fontweight="bold" if bold else "normal",
        color=colour,
        parse_math=False,
        zorder=5 if bold else 6,
        annotation_clip=False,
        path_effects=[withStroke(linewidth=1.8, foreground="white", alpha=0.9)],
        arrowprops=line if leader else None,
    )


def _n_inside(cloud: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n_boxes,) how many points of the (n, 2) cloud each box hides."""
    near = cloud[
        ((cloud > boxes[:, :2].min(axis=0)) & (cloud < boxes[:, 2:].max(axis=0))).all(axis=1)
    ]
    x, y = np.ascontiguousarray(near.T)
    left, bottom, right, top = boxes.T[:, :, None]
    n: np.ndarray = np.count_nonzero((x > left) & (x < right) & (y > bottom) & (y < top), axis=1)
    return n


def _draw_legend(
    groups: Sequence[Group], ax: Axes, *, n_new: int = 0, regions: bool = False
) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, colour: str = "none", marker: str = "") -> Any:
        return Line2D(
            [], [], color="none", marker=marker, markersize=4.5, markerfacecolor=colour,
            markeredgewidth=0, label=label,
        )  # fmt: skip

    handles: list[Any] = []
    headings: set[int] = set()
    family = ""
    if n_new:
        handles.append(entry(f"new samples ({n_new:,})", "black", "o"))
        if regions:
            handles.append(Line2D([], [], color="black", linewidth=0.8, label="90 % regions"))
        handles.append(entry(" "))
    for group in groups:
        if group.family and group.family != family:
            total = sum(other.n_samples for other in groups if other.family == group.family)
            headings.add(len(handles))
            handles.append(entry(f"{_short(group.family)} ({total:,})"))
        family = group.family
        handles.append(entry(_legend_name(group), group.colour, group.marker))
    figure = ax.get_figure(root=True)
    height = figure.get_figheight() if figure else 5.0
    n_rows = max(1, int(72 * height / _LEGEND_ROW))
    legend: Any = ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0,
        frameon=False,
        handlelength=1,
        handletextpad=0.4,
        labelspacing=0.35,
        columnspacing=1,
        ncols=-(-len(handles) // n_rows),
    )
    for i, text in enumerate(legend.get_texts()):
        text.set_parse_math(False)
        if i in headings:
            text.set_fontweight("bold")


def _legend_name(group: Group) -> str:
    return f"{_short(group.name)} ({group.n_samples:,})"


def _short(name: str, length: int = _NAME_LENGTH) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _darker(colour: str) -> str:
    return "#" + "".join(f"{int(int(colour[i : i + 2], 16) * 0.7):02x}" for i in (1, 3, 5))
