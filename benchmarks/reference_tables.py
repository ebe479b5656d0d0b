"""What `reference.py` measured, in tables: means with their range over seeds, goals, the card.

Reads nothing but the results, so that tables and card can be made again from committed ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median
from typing import Any

import common
import numpy as np

from ancestry_ddvi.fitting import EmbedConfig

HOLDOUT = 0.2
OURS = "ancestry-ddvi"
PANELS: dict[str, float] = {"all": 1.0, "10 %": 0.1, "1 %": 0.01, "128": 128.0}
"""Share of the sites, or their number."""

CODE = ("ancestry", "ddvi", "preprocessing")
"""Rooms of the package that the figures come out of."""

LEVELS = ("superpopulation", "population")
CONFIDENT = 0.9
"""From here on probabilities are in the last of the ten bins of calibration."""

REGION = 0.9

FLOORS = {
    "all": {"superpopulation": 0.995, "population": 0.78, "coverage": 0.05, "error": 0.05},
    "10 %": {"superpopulation": 0.99, "coverage": 0.05, "error": 0.05},
    "1 %": {"superpopulation": 0.90, "coverage": 0.05, "error": 0.05, "confidently wrong": 0.01},
    "128": {"coverage": 0.05, "error": 0.05},
}
GOALS = {
    "all": {"superpopulation": 0.998, "population": 0.82, "coverage": 0.02, "error": 0.03},
    "10 %": {"superpopulation": 0.995, "population": 0.68, "coverage": 0.02, "error": 0.03},
    "1 %": {"superpopulation": 0.95, "population": 0.40, "coverage": 0.03, "error": 0.05},
    "128": {"superpopulation": 0.85, "coverage": 0.03, "error": 0.05},
}
NOVEL_GOAL, OTHERS_GOAL = 0.90, 0.02
SECONDS_GOALS = {1: 3.0, 2504: 10.0}
"""Wall seconds by number of samples."""


@dataclass(frozen=True)
class Figure:
    """A figure of all repeats, and that of each.

    Attributes
    ----------
    value
        The mean, or what the joined samples of all give.
    each
        Of every repeat; NaN where it has none.
    pooled
        Whether `value` is of the joined samples, and differs from the repeats' by their size.
    unit
        What the repeats are.
    """

    value: float
    each: tuple[float, ...]
    pooled: bool = False
    unit: str = "seeds"

    @classmethod
    def mean_of(cls, values: Sequence[float]) -> Figure:
        return cls(mean(values), tuple(values))

    def limits(self, digits: int = 3, to: str = " to ") -> str:
        """Least and most of the repeats."""
        known = [x for x in self.each if x == x]
        return f"{min(known):.{digits}f}{to}{max(known):.{digits}f}" if known else ""

    def text(self, digits: int = 3) -> str:
        """As `0.951 (0.946 to 0.960)`; nothing if there is none."""
        if self.value != self.value:
            return ""
        shown = f"{self.value:.{digits}f}"
        return f"{shown} ({self.limits(digits)})" if len(self.each) > 1 else shown


@dataclass(frozen=True)
class Limit:
    """What a figure has to keep."""

    words: str
    keeps: Callable[[float], bool]

    def verdict(self, figure: Figure) -> str:
        """Met or missed, and by how many of the repeats where they do not agree with the whole."""
        met = self.keeps(figure.value)
        text = f"{self.words} {'met' if met else 'missed'}"
        n, all_of_them = sum(map(self.keeps, figure.each)), len(figure.each)
        if figure.pooled or n == met * all_of_them:
            return text
        return f"{text} ({'' if met else 'met '}in {n} of {all_of_them} {figure.unit})"


def at_least(least: float) -> Limit:
    return Limit(f">= {least:g}", lambda value: value >= least)


def at_most(most: float) -> Limit:
    return Limit(f"<= {most:g}", lambda value: value <= most)


def under(limit: float) -> Limit:
    return Limit(f"< {limit:g}", lambda value: value < limit)


def near_region(width: float) -> Limit:
    # .85 to .95 include their ends, whatever the rounding of a difference.
    return Limit(f"{REGION:g} ± {width:g}", lambda value: abs(value - REGION) <= width + 1e-12)


AHEAD = Limit("> 0", lambda value: value > 0)

# A figure that has goals: what it is called in a table, what kind of limit, digits shown.
_KINDS: dict[str, tuple[str, Callable[[float], Limit], int]] = {
    "superpopulation": ("superpopulation accuracy", at_least, 4),
    "population": ("population accuracy", at_least, 4),
    "coverage": ("coverage", near_region, 3),
    "error": ("calibration error, the larger of both levels", at_most, 4),
    "confidently wrong": ("superpopulation wrong at >= .9", at_most, 4),
}


def pooled_error(rows: Sequence[dict[str, Any]]) -> float:
    """Expected calibration error (Naeini et al. 2015) over the samples of all seeds."""
    bins = np.sum([row["bins"] for row in rows], axis=0)
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())


def confident_share(rows: Sequence[dict[str, Any]]) -> float:
    """Share of samples with a probability of at least `CONFIDENT`."""
    bins = np.sum([row["bins"] for row in rows], axis=0)
    return float(bins[-1, 0] / bins[:, 0].sum())


def wrong_of_confident(rows: Sequence[dict[str, Any]]) -> float:
    """Share of these that are wrong; NaN if there are none."""
    n, _, right = np.sum([row["bins"][-1] for row in rows], axis=0)
    return float((n - right) / n) if n else float("nan")


def pooled(
    of: Callable[[Sequence[dict[str, Any]]], float], rows: Sequence[dict[str, Any]]
) -> Figure:
    """A figure of the samples of all seeds, beside that of every seed."""
    return Figure(of(rows), tuple(of([row]) for row in rows), pooled=True)


def summary(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By panel: figures of every way, coverage, and what else a panel has."""
    seeds = [results["seeds"][s] for s in sorted(results["seeds"], key=int)]
    found = {}
    for panel in PANELS:
        rows = [seed[panel] for seed in seeds]
        ways: dict[str, dict[str, Figure]] = {}
        for way in (name for name in rows[0] if "superpopulation" in _table(rows[0][name])):
            ways[way] = {}
            for level in LEVELS:
                of = [row[way][level] for row in rows]
                ways[way] |= {
                    f"{level} accuracy": Figure.mean_of([r["accuracy"] for r in of]),
                    f"{level} calibration error": pooled(pooled_error, of),
                    f"{level} confidently wrong": Figure.mean_of(
                        [r["confidently wrong"] for r in of]
                    ),
                    f"{level} confident": pooled(confident_share, of),
                    f"{level} wrong of confident": pooled(wrong_of_confident, of),
                }
        ways[OURS] |= {
            name: Figure.mean_of([row[OURS][name] for row in rows])
            for name in ("called outside", "uncertain")
        }
        found[panel] = {
            "n_sites": rows[0]["n_sites"],
            "ways": ways,
            "coverage": Figure.mean_of([row["coverage"] for row in rows]),
            "simulated": {
                name: Figure.mean_of([row["simulated"][name] for row in rows])
                for name in rows[0]["simulated"]
            },
        }
    return found


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def left_out(results: dict[str, Any]) -> dict[str, dict[str, dict[str, Figure]]]:
    """By panel and superpopulation, for which the reference has nobody: see `Bench.leave_out`."""
    runs = {group: list(of.values()) for group, of in results.get("left_out", {}).items() if of}
    return {
        panel: {
            group: {
                name: Figure.mean_of([run[panel].get(name, float("nan")) for run in of])
                for name in ("novel", "called", "others")
            }
            for group, of in runs.items()
        }
        for panel in PANELS
    }


@dataclass(frozen=True)
class Lead:
    """Our figure beside the best of the peers in it.

    Attributes
    ----------
    ours, peer
        The figures.
    name
        Of that peer.
    ahead
        By how much ours is the better one, seed by seed; below zero where it is behind.
    goal
        Whether being ahead is a goal.
    """

    ours: Figure
    peer: Figure
    name: str
    ahead: Figure
    goal: bool


def leads(results: dict[str, Any]) -> dict[tuple[str, str, str], Lead]:
    """By panel, level and measure. To be ahead is a goal in accuracy at 1 %, in calibration
    everywhere."""
    found = {}
    for panel, row in summary(results).items():
        for level in LEVELS:
            for measure, sign in (("accuracy", 1), ("calibration error", -1)):
                key = f"{level} {measure}"
                ours = row["ways"][OURS][key]
                peers = {way: of[key] for way, of in row["ways"].items() if way != OURS}
                name = max(peers, key=lambda way: sign * peers[way].value)
                peer = peers[name]
                ahead = Figure(
                    sign * (ours.value - peer.value),
                    tuple(sign * (a - b) for a, b in zip(ours.each, peer.each, strict=True)),
                )
                goal = measure == "calibration error" or panel == "1 %"
                found[panel, level, measure] = Lead(ours, peer, name, ahead, goal)
    return found


def verdicts(results: dict[str, Any]) -> dict[str, list[list[str]]]:
    """By section: every figure that has a goal or a floor, as figure, measured, floor, goal."""
    sections = {
        "Calls and regions": _of_calls(results),
        "A superpopulation left out": _of_left_out(results),
        "Beside the best peer": [
            [f"{panel}: {level} {measure}, ahead of {lead.name}", lead.ahead.text(4), "", verdict]
            for (panel, level, measure), lead in leads(results).items()
            if lead.goal and (verdict := AHEAD.verdict(lead.ahead))
        ],
        "Seconds": [
            [f"{_what(run)}, wall seconds", figure.text(2), "", under(goal).verdict(figure)]
            for run in results.get("times", {}).get("runs", [])
            if (goal := SECONDS_GOALS.get(run["samples"]))
            and (figure := _seconds(run["wall_seconds"]))
        ],
    }
    return {section: rows for section, rows in sections.items() if rows}


def _of_calls(results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for panel, row in summary(results).items():
        ours = row["ways"][OURS]
        errors = [ours[f"{level} calibration error"] for level in LEVELS]
        # By all sites a region holds its own mean, which says nothing.
        coverage, which = (
            (row["simulated"]["coverage"], "simulated samples")
            if panel == "all"
            else (row["coverage"], "held-out samples")
        )
        measured = {
            "superpopulation": ours["superpopulation accuracy"],
            "population": ours["population accuracy"],
            "coverage": coverage,
            "error": Figure(
                max(error.value for error in errors),
                tuple(map(max, *(error.each for error in errors))),
                pooled=True,
            ),
            "confidently wrong": ours["superpopulation confidently wrong"],
        }
        for name, figure in measured.items():
            title, kind, digits = _KINDS[name]
            title += f" of 90 % regions, {which}" if name == "coverage" else ""
            limits = [of[panel].get(name) for of in (FLOORS, GOALS)]
            if any(limits):
                cells = ["" if limit is None else kind(limit).verdict(figure) for limit in limits]
                rows.append([f"{panel}: {title}", figure.text(digits), *cells])
    return rows


def _of_left_out(results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for panel, groups in left_out(results).items():
        if not groups:
            continue
        for name, limit, worst, title in (
            ("novel", at_least(NOVEL_GOAL), min, "its samples called outside"),
            ("others", at_most(OTHERS_GOAL), max, "held-out others called outside"),
        ):
            values = {group: figures[name] for group, figures in groups.items()}
            group = worst(values, key=lambda key, of=values: of[key].value)
            n_met = sum(limit.keeps(figure.value) for figure in values.values())
            rows.append(
                [
                    f"{panel}, {group} left out (worst of {len(values)}): {title}",
                    values[group].text(),
                    "",
                    f"{limit.verdict(values[group])}, met for {n_met} of {len(values)}",
                ]
            )
    return rows


def _seconds(values: Sequence[float]) -> Figure:
    return Figure(median(values), tuple(values), unit="repeats")


def _what(run: dict[str, Any]) -> str:
    n = f"{run['samples']:,} sample{'' if run['samples'] == 1 else 's'}"
    return f"{n}, {'with' if run['pictures'] else 'without'} pictures"


def card(results: dict[str, Any]) -> dict[str, Any]:
    """What the shipped model says of itself: held-out figures of models like it.

    A table is a list of rows, one a number of sites, which stands first.
    """
    means, limits = [], []
    found = summary(results)
    for panel, row in found.items():
        figures = _of_card(row, trivial=panel == "all")
        sites = {"sites": row["n_sites"]}
        # A figure of which there is none is no number, and JSON knows no NaN.
        known = {k: f if f is not None and f.value == f.value else None for k, f in figures.items()}
        means.append(sites | {k: f and f.value for k, f in known.items()})
        limits.append(sites | {k: f and f.limits(to="–") for k, f in known.items()})
    without = [
        {"sites": found[panel]["n_sites"]}
        | {group: figures["novel"].value for group, figures in groups.items()}
        | {"called as others, at most": _most(of["called"].value for of in groups.values())}
        | {"others called outside, at most": _most(of["others"].value for of in groups.values())}
        for panel, groups in left_out(results).items()
        if groups
    ]
    return {
        "from": f"benchmarks/reference.py, {len(results['seeds'])} seeds: models like this one, "
        f"trained without {HOLDOUT:.0%} of the {results['settings']['n_samples']:,} samples, "
        "which were then placed by all sites and by random ones",
        "table": means,
        "least and most of the seeds": limits,
        "superpopulation left out": without,
        "notes": [
            "The table: means over seeds; errors and shares at >= .9 over the samples of all (the "
            "error of a single seed is larger by chance). Wrong among these: of the samples whose "
            "likeliest label has a probability of at least .9.",
            "Called outside: samples of populations that the reference has.",
            "Coverage, held-out: whether the region by these sites holds the place by all sites, "
            "which by all sites it always does. Coverage, simulated: not of held-out samples, but "
            "of samples drawn from the model, whose true places are known.",
            "Superpopulation left out: of each, if the reference has nobody of it, the share that "
            "is called outside; the largest that is called as one of the others; and the largest "
            "share of held-out samples of the others that is called outside.",
        ],
    }


def _most(values: Iterable[float]) -> float | None:
    """None if one of them is not known."""
    known = list(values)
    return None if any(map(math.isnan, known)) else max(known)


def _of_card(row: dict[str, Any], *, trivial: bool) -> dict[str, Figure | None]:
    ours = row["ways"][OURS]
    levels = {
        f"{level}{words}": ours[f"{level} {key}"]
        for level in LEVELS
        for words, key in (
            (" accuracy", "accuracy"),
            (" calibration error", "calibration error"),
            (", share at >= .9", "confident"),
            (", wrong among these", "wrong of confident"),
        )
    }
    return {
        **levels,
        "called outside reference": ours["called outside"],
        "coverage of 90 % regions, held-out": None if trivial else row["coverage"],
        "coverage of 90 % regions, simulated": row["simulated"]["coverage"],
    }


def markdown(results: dict[str, Any]) -> str:
    """Every table."""
    found, settings = summary(results), results["settings"]
    n_seeds = len(results["seeds"])
    command = results.get("command", f"python benchmarks/reference.py --seeds {n_seeds}")
    which = common.settings_in_words(settings["config"], EmbedConfig())
    simulations = list(next(iter(found.values()))["simulated"])
    of_ways = {
        "accuracy": "accuracy",
        "calibration error": "calibration error",
        "confident": "at >= .9",
        "wrong of confident": "wrong among these",
        "confidently wrong": "wrong at >= .9 among all",
    }
    ways = partial(common.table, ["sites: way", *of_ways.values()])
    calls = {
        level: ways(
            [
                f"{panel} ({row['n_sites']:,}): {way}",
                *(values[f"{level} {name}"].text() for name in of_ways),
            ]
            for panel, row in found.items()
            for way, values in row["ways"].items()
        )
        for level in LEVELS
    }
    coverage = [
        [
            panel,
            row["coverage"].text(),
            *(figure.text() for figure in row["simulated"].values()),
            row["ways"][OURS]["called outside"].text(),
            row["ways"][OURS]["uncertain"].text(),
        ]
        for panel, row in found.items()
    ]
    without = [
        [
            f"{panel}: {group}",
            of["novel"].text(),
            at_least(NOVEL_GOAL).verdict(of["novel"]),
            of["called"].text(),
            of["others"].text(),
            at_most(OTHERS_GOAL).verdict(of["others"]),
        ]
        for panel, groups in left_out(results).items()
        for group, of in groups.items()
    ]
    beside = [
        [
            f"{panel}: {level} {measure}",
            lead.ours.text(),
            lead.name,
            lead.peer.text(),
            ("ahead by " if lead.ahead.value > 0 else "behind by ")
            + f"{abs(lead.ahead.value):.4f}",
            f"{sum(map(AHEAD.keeps, lead.ahead.each))} of {len(lead.ahead.each)}",
        ]
        for (panel, level, measure), lead in leads(results).items()
    ]
    goals = "\n\n".join(
        f"### {section}\n\n{common.table(['figure', 'measured', 'floor', 'goal'], rows)}"
        for section, rows in verdicts(results).items()
    )
    return f"""# Placing samples on a labelled reference

`{settings["data"]}`: {settings["n_samples"]:,} samples, {settings["n_variants"]:,} SNPs; {which};
seeds {", ".join(sorted(results["seeds"], key=int))}. Figures are of held-out samples
({settings["holdout"]:.0%}, from which nothing was learnt, close relatives of training samples left
out) where they do not say otherwise. Panels are random sites, the same for all samples of a seed,
other ones for each seed. Cells: mean over seeds (least to most of the seeds).

## Goals and floors

{goals}

Met or missed goes by the mean; where single seeds differ from it, their number is given. The goals
of a superpopulation left out name no number of sites and are put to every one.

## Calls of superpopulations

{calls["superpopulation"]}

## Calls of populations

{calls["population"]}

Expected calibration error (ten bins), shares at a probability of at least .9 and mistakes among
these are of the samples of all seeds, in brackets of single seeds; the error of a single seed is
larger by chance, for it has a fifth of the samples. Neighbours: votes of 15 on 20
shrinkage-corrected components, those of new samples by least squares on the panel. PCA + SVM: four
whitened components of the panel's sites, learnt anew, and scikit-learn's SVC(C=2) with Platt's
probabilities. Random forest: 100 trees on the same 20 components.

## Ours beside the best peer

{
        common.table(
            ["figure", "ours", "best peer", "its figure", "ours is", "seeds ahead"],
            beside,
        )
    }

The best peer is that of the best figure in each row, so not one that could be chosen beforehand.

## Uncertainty of places

{
        common.table(
            [
                "sites",
                "90 % region holds the place by all sites",
                *(f"simulated: {name}" for name in simulations),
                "called outside",
                "uncertain",
            ],
            coverage,
        )
    }

First column: whether the region of a held-out sample, by the panel, holds its posterior mean by all
sites. Simulated, not of held-out samples: z from the prior and x from the decoder with the panel's
median noise; coverage, and Kolmogorov distance of the ranks of the true z among its draws (.02 to
.03 is chance).

## A superpopulation left out

{
        common.table(
            [
                "sites: left out",
                "its samples called outside",
                "goal",
                "its samples called as others",
                "held-out others called outside",
                "goal",
            ],
            without,
        )
    }

Called as others: with a probability of at least the threshold of calls, and typical; empty where it
was not recorded. The rest is `uncertain`.

## Seconds

{_times(results)}

Command: `{command}`
"""


def _times(results: dict[str, Any]) -> str:
    times = results.get("times")
    if times is None:
        return "Not measured yet; `python benchmarks/reference.py --times-only` does."
    table = common.table(
        ["placed", "wall s", "CPU s"],
        [
            [_what(run), *(_seconds(run[f"{kind}_seconds"]).text(2) for kind in ("wall", "cpu"))]
            for run in times["runs"]
        ],
    )
    load, n = f"{times['load']:.1f}", len(times["runs"][0]["wall_seconds"])
    return f"""{times["machine"]}, one thread; load {load} before the start (0: nothing else ran).
`ancestry-ddvi embed NEW.vcf.gz --model {times["model"]}` in a fresh process, imports included,
after a first round that is not counted and lets libraries write their caches; with pictures, and
with `--no-pictures`. Cells: median (least to most) of {n} repeats that take turns. The samples are
those of the data under other names, so that the model calls them.

{table}"""
