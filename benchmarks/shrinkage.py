"""Whether samples that nothing was learnt from lie where those of their population lie that were.

Each population is split: four fifths are learnt from, a fifth is held out (`fit_embedding`). Unless
new samples shrink towards the centre, the two centroids differ by sampling error alone. Of n_j
training and m_j held-out samples of population j, in components k:

    t_jk, h_jk      their centroids, from the centroid of all training samples
    u_jk^2, v_jk^2  their variances within the population
    D_j             sum_k (h_jk - t_jk)^2 / sum_k (u_jk^2 / n_j + v_jk^2 / m_j)      expected: 1
    b               sum_jk t_jk h_jk / sum_jk (t_jk^2 - u_jk^2 / n_j)    1: none, 0: all shrinkage

b is the slope by least squares of held-out centroids on training centroids, less the sampling error
of the latter: a mean of the populations' ratios, weighted by squared distances from the centre.
Variances are not pooled: those of scores without the correction differ several times, and an error
that is too large would hide a difference.

By chance: the same of splits drawn anew, of each population at random, among the same scores.

    python benchmarks/shrinkage.py
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import click
import common
import numpy as np
import torch

from ancestry_ddvi import GenotypeMatrix, read_genotypes, read_labels
from ancestry_ddvi.fitting import EmbedConfig, FittedEmbedding, fit_embedding

HOLDOUT = 0.2
MIN_PART = 3
"""Samples that either part of a population has."""

N_SPLITS = 500
RANGE = (0.05, 0.95)
CORRECTED, RAW = "corrected", "not corrected"
COMPONENTS, MAP = "components", "map"
ALL = "all"
GROUPS = {
    COMPONENTS: {
        "1 to 5": slice(0, 5),
        "6 to 20": slice(5, 20),
        "local": slice(20, None),
        ALL: slice(None),
    },
    MAP: {ALL: slice(None)},
}

QUICK_SAMPLES, QUICK_SITES, QUICK_STEPS = 800, 8000, 100


@dataclass(frozen=True)
class Centroids:
    """Of J populations in K components.

    Attributes
    ----------
    n
        (J,) samples.
    mean
        (J, K).
    squares
        (J, K) sums of squared deviations from the mean.
    """

    n: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, number: np.ndarray) -> Centroids:
        """Of scores x (n, K) of samples of the populations `number` (n,), from 0."""
        belongs = (number == np.arange(number.max() + 1)[:, None]).astype(float)
        n = belongs.sum(axis=1)
        centre = belongs @ x / n[:, None]
        return cls(n, centre, belongs @ (x - centre[number]) ** 2)


@dataclass(frozen=True)
class Agreement:
    """How the two parts of the populations lie.

    Attributes
    ----------
    distance
        (J,) D_j.
    shift
        (J,) distance between the two centroids, in standard deviations of the training samples.
    slope
        b.
    spread
        Standard deviation within populations of held-out samples over that of training samples.
    """

    distance: np.ndarray
    shift: np.ndarray
    slope: float
    spread: float


def agreement(
    x: np.ndarray, number: np.ndarray, held_out: np.ndarray, groups: dict[str, slice]
) -> dict[str, Agreement]:
    """By group of the components of x (n, K), if there are any of it."""
    train, new = (Centroids.of(x[part], number[part]) for part in (~held_out, held_out))
    centre = x[~held_out].mean(axis=0)
    t, h = train.mean - centre, new.mean - centre
    n, m = train.n[:, None], new.n[:, None]
    u2, v2 = train.squares / (n - 1), new.squares / (m - 1)
    found = {}
    for name, k in groups.items():
        if not x[:, k].size:
            continue
        expected = (u2 / n + v2 / m)[:, k].sum(axis=1)
        length = (t**2 - u2 / n)[:, k].sum()
        apart = ((h - t) ** 2)[:, k].sum(axis=1)
        found[name] = Agreement(
            apart / expected,
            np.sqrt(apart / u2[:, k].sum(axis=1)),
            float((t * h)[:, k].sum() / length),
            float(np.sqrt(v2[:, k].sum() / u2[:, k].sum())),
        )
    return found


def split_anew(number: np.ndarray, held_out: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) bool: as many held out of each population as before, at random."""
    drawn = np.empty_like(held_out)
    by_chance = np.lexsort((rng.random(len(number)), number))
    drawn[by_chance] = held_out[np.argsort(number, kind="stable")]
    return drawn


def measure(
    x: np.ndarray,
    number: np.ndarray,
    held_out: np.ndarray,
    groups: dict[str, slice],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """By group: what there is, and the range of the same by chance."""
    drawn = [
        agreement(x, number, split_anew(number, held_out, rng), groups) for _ in range(N_SPLITS)
    ]
    rows = {}
    for name, of in agreement(x, number, held_out, groups).items():
        chance = [each[name] for each in drawn]
        rows[name] = {
            "distances": of.distance.tolist(),
            "shifts": of.shift.tolist(),
            "slope": of.slope,
            "spread": of.spread,
            "by chance": {
                "mean distance": ends([c.distance.mean() for c in chance]),
                "distances": ends(np.concatenate([c.distance for c in chance])),
                "slope": ends([c.slope for c in chance]),
                "spread": ends([c.spread for c in chance]),
            },
        }
    return rows


def ends(values: Any) -> list[float]:
    """Of the 90 % range."""
    low, high = np.quantile(values, RANGE)
    return [float(low), float(high)]


def places(fitted: FittedEmbedding, genotypes: GenotypeMatrix) -> dict[str, dict[str, np.ndarray]]:
    """Scores (n, K) of all samples in the components and on the map.

    Corrected: as the run has them. Not corrected: training samples like new ones, of which the
    extractor corrects nothing; on the map those by the same model.
    """
    raw = fitted.model.extractor.transform(genotypes)
    n_draws = fitted.model.provenance["config"]["n_draws"]
    seed = fitted.model.provenance["seed"]
    as_new = fitted.model.embed_features(raw, genotypes.sample_id, n_draws=n_draws, seed=seed)
    return {
        COMPONENTS: {CORRECTED: fitted.features.x, RAW: raw.x},
        MAP: {CORRECTED: fitted.table.z, RAW: as_new.z},
    }


def numbered(population: np.ndarray, trained_on: np.ndarray, held_out: np.ndarray) -> Any:
    """Names of the populations that have samples enough in both parts, and (n,) the number of each
    sample's, -1 for samples of others and of neither part."""
    names = [
        name
        for name in np.unique(population)
        if min(((population == name) & part).sum() for part in (trained_on, held_out)) >= MIN_PART
    ]
    number = np.full(len(population), -1)
    for j, name in enumerate(names):
        number[(population == name) & (trained_on | held_out)] = j
    return names, number


def run(genotypes: GenotypeMatrix, population: np.ndarray, config: EmbedConfig) -> dict[str, Any]:
    """Fit once and measure."""
    fitted = fit_embedding(genotypes, config)
    names, number = numbered(population, fitted.trained_on, fitted.held_out)
    who = number >= 0
    held_out = fitted.held_out[who]
    rng = np.random.default_rng(config.seed)
    scores = places(fitted, genotypes)
    extractor = fitted.model.extractor
    single = {str(k): slice(k, k + 1) for k in range(len(extractor.shrinkage))}
    found = agreement(scores[COMPONENTS][RAW][who], number[who], held_out, single).values()
    return {
        "populations": {
            name: [
                int(((number == j) & part).sum()) for part in (fitted.trained_on, fitted.held_out)
            ]
            for j, name in enumerate(names)
        },
        "shrinkage": extractor.shrinkage.tolist(),
        "of single components": {
            "eigenvalue": extractor.eigenvalue.tolist(),
            "slope": [of.slope for of in found],
            "spread": [of.spread for of in found],
        },
        "local components": extractor.loadings.shape[1] - len(extractor.shrinkage),
        "places": {
            space: {
                way: measure(x[who], number[who], held_out, GROUPS[space], rng)
                for way, x in of.items()
            }
            for space, of in scores.items()
        },
    }


def joined(seeds: list[dict[str, Any]], space: str, way: str, group: str) -> dict[str, Any]:
    """A row over seeds: distances of all, means of all else."""
    places_of = (seed["places"][space][way] for seed in seeds)
    of = [each[group] for each in places_of if group in each]
    return {
        "distances": [x for each in of for x in each["distances"]],
        **{name: mean(each[name] for each in of) for name in ("slope", "spread")},
        "by chance": {
            name: [mean(x) for x in zip(*(each["by chance"][name] for each in of), strict=True)]
            for name in of[0]["by chance"]
        },
    }


def between(low_high: list[float], digits: int = 2) -> str:
    return " to ".join(f"{x:.{digits}f}" for x in low_high)


def main_table(seeds: list[dict[str, Any]]) -> str:
    rows = []
    for space in GROUPS:
        for group in seeds[0]["places"][space][CORRECTED]:
            for way in (CORRECTED, RAW):
                row = joined(seeds, space, way, group)
                chance = row["by chance"]
                rows.append(
                    [
                        f"{named(space, group)}, {way}",
                        f"{mean(row['distances']):.2f} ({median(row['distances']):.2f})",
                        between(chance["mean distance"]),
                        between(ends(row["distances"])),
                        between(chance["distances"]),
                        f"{row['slope']:.3f}",
                        between(chance["slope"], 3),
                        f"{row['spread']:.3f}",
                        between(chance["spread"], 3),
                    ]
                )
    header = [
        "",
        "D, mean (median)",
        "mean by chance",
        "D, 90 % of populations",
        "by chance",
        "b",
        "by chance",
    ]
    return common.table([*header, "sd, held-out / training", "by chance"], rows)


def named(space: str, group: str) -> str:
    return space if space == MAP else f"{space} {group}"


def in_words(seeds: list[dict[str, Any]]) -> str:
    """What comes out of the scores as the product has them, a line for each group."""
    lines = []
    for space in GROUPS:
        for group in seeds[0]["places"][space][CORRECTED]:
            row = joined(seeds, space, CORRECTED, group)
            found, b = mean(row["distances"]), row["slope"]
            low, high = row["by chance"]["mean distance"]
            low_b, high_b = row["by chance"]["slope"]
            verdict = "agree within sampling error" if found <= high else "differ by more than that"
            shrunk = "no shrinkage beyond chance"
            if not low_b <= b <= high_b:
                toward = "nearer to the centre" if b < 1 else "further from the centre"
                shrunk = f"held-out samples lie {toward} by {100 * abs(1 - b):.1f} %"
            lines.append(
                f"- *{named(space, group)}*: the centroids {verdict} (mean D {found:.2f}, by\n"
                f"  chance {low:.2f} to {high:.2f}); {shrunk}\n"
                f"  (b {b:.3f}, by chance {low_b:.3f} to {high_b:.3f})."
            )
    return "\n".join(lines)


def table_of_components(seeds: list[dict[str, Any]]) -> str:
    rows = []
    for k, rho in enumerate(zip(*(seed["shrinkage"] for seed in seeds), strict=True)):
        of = {
            name: mean(seed["of single components"][name][k] for seed in seeds)
            for name in ("eigenvalue", "slope", "spread")
        }
        cells = [mean(rho), of["slope"], of["spread"]]
        rows.append([str(k + 1), f"{of['eigenvalue']:.2f}", *(f"{x:.3f}" for x in cells)])
    header = ["component", "eigenvalue", "the product's correction", "b", "sd, held-out / training"]
    return common.table(header, rows)


def of_population(seed: dict[str, Any], name: str, space: str, way: str, what: str) -> float:
    j = list(seed["populations"]).index(name)
    return float(seed["places"][space][way][ALL][what][j])


def table_of_populations(seeds: list[dict[str, Any]]) -> str:
    columns = [(space, way) for space in GROUPS for way in (CORRECTED, RAW)]
    names = sorted({name for seed in seeds for name in seed["populations"]})
    rows = []
    for name in names:
        of = [seed for seed in seeds if name in seed["populations"]]
        counts = [f"{mean(seed['populations'][name][i] for seed in of):.0f}" for i in (0, 1)]
        cells = [
            mean(of_population(seed, name, *where, "distances") for seed in of) for where in columns
        ]
        cells.append(mean(of_population(seed, name, MAP, CORRECTED, "shifts") for seed in of))
        rows.append([name, *counts, *(f"{x:.2f}" for x in cells)])
    header = ["population", "training", "held-out", *(f"D, {s}, {w}" for s, w in columns)]
    header.append("map: apart / sd")
    return common.table(header, rows)


def markdown(results: dict[str, Any]) -> str:
    """The tables."""
    settings, seeds = results["settings"], list(results["seeds"].values())
    said = common.settings_in_words(settings["config"], EmbedConfig(holdout=HOLDOUT))
    count = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
    rho = np.mean([seed["shrinkage"] for seed in seeds], axis=0)
    n_local = mean(seed["local components"] for seed in seeds)
    train, new = (
        mean(sum(c[i] for c in seed["populations"].values()) for seed in seeds) for i in (0, 1)
    )
    return f"""# New samples beside those that were learnt from

`{settings["data"]}`, {settings["n_samples"]:,} samples, {settings["n_variants"]:,} sites, {said},
{count}. {train:,.0f} training samples and {new:,.0f} held-out ones of
{len(seeds[0]["populations"])} populations, close relatives left out.

D: squared distance between the centroids of a population's training and of its held-out samples,
over what sampling error gives (1 expected). b: distance from the centre of held-out centroids over
that of training centroids (1: no shrinkage), weighted by squared distance. Formulas:
`benchmarks/shrinkage.py`. By chance: 90 % range of {N_SPLITS} splits of each population among the
same scores. Corrected: as the product has them, scores of training samples multiplied by their
shrinkage, which is {rho[:5].min():.3f} to {rho[:5].max():.3f} in components 1 to 5 and
{rho[5:].min():.3f} to {rho[5:].max():.3f} in the other {len(rho) - 5} of all samples; {n_local:.0f}
local components have their own. Not corrected: training samples projected like new ones, and on the
map placed from these scores by the same model.

{in_words(seeds)}

{main_table(seeds)}

## By component

The ratio that training samples should be multiplied by is b of scores that are not corrected, and
what they are multiplied by is the product's correction. Where populations hardly differ in a
component, b is uncertain.

{table_of_components(seeds)}

## By population

D in all components and on the map; and how far the two centroids are apart on the map as the
product has it, in standard deviations of the population's training samples.

{table_of_populations(seeds)}

Command: `{results["command"]}`
"""


@click.command(help=__doc__)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1), help="From 0.")
@click.option("--quick", is_flag=True, help="A random cut of the data: a test of the script only.")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
def main(seeds: int, quick: bool, out: Path) -> None:
    torch.set_num_threads(1)
    genotypes, config = read_genotypes(common.GENOTYPES), EmbedConfig(holdout=HOLDOUT)
    if quick:
        genotypes = common.random_cut(genotypes, QUICK_SAMPLES, QUICK_SITES)
        config = replace(config, training=replace(config.training, map_steps=QUICK_STEPS))
    population = read_labels(common.PANEL, genotypes.sample_id).frame["pop"].to_numpy(str)
    results = {
        "settings": {
            "data": common.relative(common.GENOTYPES),
            "data_sha256": genotypes.source["sha256"],
            "panel_sha256": common.digest(common.PANEL),
            "n_samples": genotypes.n_samples,
            "n_variants": genotypes.n_variants,
            "config": common.stored(asdict(config)),
            "code": common.code_digest(),
            "versions": common.versions(),
        },
        "command": f"python benchmarks/shrinkage.py --seeds {seeds}" + " --quick" * quick,
        "seeds": {
            str(seed): run(genotypes, population, replace(config, seed=seed))
            for seed in range(seeds)
        },
    }
    common.write_json(out / "shrinkage.json", results)
    text = markdown(results)
    common.write_text(out / "shrinkage.md", text)
    click.echo(text)


if __name__ == "__main__":
    main()
