"""Which colour and marker a sample gets on every map, static or interactive.

Populations of one superpopulation share a hue and differ in lightness and marker; hues are taken
in OKLCH (Ottosson 2020), where equal steps look equal. Markers carry the difference for readers,
printers and screens that lose the colours.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import pandas as pd

from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.reporting.metrics import label_values

MAX_GROUPS = 60
UNLABELLED = "no label"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d")
# Superpopulation -> lightest and darkest colour, each (lightness, chroma, hue). The hues customary
# for the 1000 Genomes. The lightness bands were searched so that no two families meet in normal,
# red-, green- or blue-blind vision: where two hues fall together (blue and purple without red), the
# bands stay apart.
_Lch = tuple[float, float, float]
_FAMILIES: dict[str, tuple[_Lch, _Lch]] = {
    "AFR": ((0.82, 0.16, 84.0), (0.54, 0.16, 62.0)),
    "AMR": ((0.64, 0.20, 22.0), (0.38, 0.20, 5.0)),
    "EAS": ((0.86, 0.14, 155.0), (0.60, 0.14, 180.0)),
    "EUR": ((0.80, 0.17, 230.0), (0.54, 0.17, 262.0)),
    "SAS": ((0.56, 0.18, 330.0), (0.34, 0.18, 302.0)),
}
# For names not known above and for clusters: hues far apart, in an order that keeps the first few
# of any length apart too.
_OTHER_HUES = (250.0, 60.0, 160.0, 350.0, 110.0, 300.0, 205.0, 25.0, 135.0, 275.0)
_GREYS = (0.62, 0.2, 0.8, 0.42)


@dataclass(frozen=True)
class Group:
    """Samples drawn alike.

    Attributes
    ----------
    name
        Population, superpopulation or cluster, as the legend gives it.
    family
        Heading it stands under in the legend; "" for none.
    colour
        `#rrggbb`.
    marker
        A matplotlib marker.
    member
        (n_samples,) True where the sample belongs to it.
    """

    name: str
    family: str
    colour: str
    marker: str
    member: np.ndarray

    @property
    def n_samples(self) -> int:
        """How many samples it has."""
        return int(self.member.sum())


def map_groups(
    table: EmbeddingTable,
    population: pd.Series | None = None,
    superpopulation: pd.Series | None = None,
) -> list[Group]:
    """Group samples by the finest labels a legend can hold.

    Populations if there are 1 to 60, else superpopulations, else the table's clusters, else all
    samples as one. Unlabelled samples come first, grey, so that they are drawn below the others.
    """
    n = len(table.frame)
    broad = None if superpopulation is None else label_values(superpopulation, table)
    for series in (population, superpopulation):
        if series is None:
            continue
        values = label_values(series, table)
        if 1 <= len(np.unique(values[values != ""])) <= MAX_GROUPS:
            return label_groups(values, broad if series is population else None)
    clusters = table.frame["cluster"]
    if clusters.nunique() <= MAX_GROUPS:
        return cluster_groups(clusters.to_numpy())
    return [Group("sample", "", _oklch(0.5, 0.0, 0.0), MARKERS[0], np.ones(n, bool))]


def label_groups(values: np.ndarray, families: np.ndarray | None = None) -> list[Group]:
    """Colour (n_samples,) labels, "" where missing, by the family most of their samples have.

    Without `families`, a label that is itself a known superpopulation has its hue.
    """
    names = [str(name) for name in np.unique(values[values != ""])]
    family_of = {
        name: "" if families is None else _commonest(families[values == name]) for name in names
    }
    order = sorted({family_of[name] for name in names})
    groups = []
    if (values == "").any():
        groups.append(Group(UNLABELLED, "", _oklch(0.8, 0.0, 0.0), ".", values == ""))
    if families is None or order == [""]:
        for i, name in enumerate(names):
            colour = shades(name, 1)[0] if name in _FAMILIES else _distinct(i)
            groups.append(Group(name, "", colour, MARKERS[i % len(MARKERS)], values == name))
        return groups
    strangers = [family for family in order if family not in _FAMILIES]
    for family in order:
        members = [name for name in names if family_of[name] == family]
        position = strangers.index(family) if family in strangers else 0
        for i, (name, colour) in enumerate(
            zip(members, shades(family, len(members), position), strict=True)
        ):
            groups.append(Group(name, family, colour, MARKERS[i % len(MARKERS)], values == name))
    return groups


def call_groups(
    values: np.ndarray, families: np.ndarray | None, called: Collection[str]
) -> list[Group]:
    """Colour (n_samples,) ancestry calls like labels, and what stands in the place of a call, which
    is not among the names `called`, in greys."""
    words = [str(word) for word in np.unique(values)[::-1] if word and word not in called]
    groups = label_groups(np.where(np.isin(values, words), "", values), families)
    uncalled = [
        Group(word, "no call", _oklch(_GREYS[i % len(_GREYS)], 0.0, 0.0), marker, values == word)
        for i, (word, marker) in enumerate(zip(words, cycle("oXsD"), strict=False))
    ]
    return [
        group for group in groups if group.name != UNLABELLED or (values == "").any()
    ] + uncalled


def cluster_groups(clusters: np.ndarray) -> list[Group]:
    """Colour (n_samples,) cluster numbers, in the order of the numbers."""
    return [
        Group(f"cluster {c}", "", _distinct(i), MARKERS[i % len(MARKERS)], clusters == c)
        for i, c in enumerate(np.unique(clusters))
    ]


def shades(family: str, n: int, position: int = 0) -> list[str]:
    """Give `n` colours of a family's hue, light to dark; `position` picks an unknown one's hue."""
    turn, place = divmod(position, len(_OTHER_HUES))
    hue = _OTHER_HUES[place] + 18 * turn
    light, dark = _FAMILIES.get(family, ((0.74, 0.15, hue - 10), (0.44, 0.15, hue + 10)))
    steps = np.linspace(0, 1, n) if n > 1 else np.array([0.5])
    return [_oklch(*((1 - t) * np.array(light) + t * np.array(dark))) for t in steps]


def _distinct(i: int) -> str:
    """Colour i of an endless list: once round the hues, then again darker or lighter."""
    turn, place = divmod(i, len(_OTHER_HUES))
    return _oklch((0.62, 0.45, 0.76)[turn % 3], 0.15, _OTHER_HUES[place])


def _commonest(values: np.ndarray) -> str:
    names, counts = np.unique(values[values != ""], return_counts=True)
    return str(names[counts.argmax()]) if len(names) else ""


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    """OKLCH -> sRGB hex; chroma gives way where the screen cannot show it."""
    to_lms = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    angle = np.deg2rad(hue)
    for scale in np.linspace(1, 0, 51):
        lab = [lightness, scale * chroma * np.cos(angle), scale * chroma * np.sin(angle)]
        linear = to_rgb @ (to_lms @ lab) ** 3
        if linear.min() >= -1e-4 and linear.max() <= 1 + 1e-4:
            break
    linear = linear.clip(0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb)
