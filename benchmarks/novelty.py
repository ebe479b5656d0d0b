"""Ways to tell a sample of an ancestry that the reference lacks, side by side.

Each superpopulation in turn is taken out of the reference. A way gives every sample a distance from
the populations that are left, by its likelihoods in them; those of the superpopulation that are
farther than 99 % of the other samples are told. Others' distances are by the other folds. All see
likelihoods by counts without the sample itself, so that nothing is held out beyond that.

    python benchmarks/novelty.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import common
import numpy as np

from ancestry_ddvi import read_genotypes, read_labels
from ancestry_ddvi.ancestry.assignment import PopulationCounts, group_numbers, log_likelihood
from ancestry_ddvi.ancestry.calibration import ATYPICAL, _classes, _differences, _distance

N_FOLDS = 5
PANELS = {"all": 1.0, "10 %": 0.1}

Way = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Differences (n, L) and populations (n,) of the reference, differences (k, L) of others; their
(k,) distances."""


def gaussians(u: np.ndarray, label: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What the product does: the nearest population's normal distribution."""
    return _distance(new, *_classes(u, label))


def _kth(known: np.ndarray, new: np.ndarray, k: int) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=k).fit(known).kneighbors(new)[0]
    distance: np.ndarray = nearest[:, -1]
    return distance


def _white(u: np.ndarray, label: np.ndarray, *of: np.ndarray) -> list[np.ndarray]:
    """In units of the spread within populations, one for all."""
    within = u[:, 1:] - _classes(u, label)[0][label]
    root = np.linalg.cholesky(np.cov(within.T))
    return [np.linalg.solve(root, x[:, 1:].T).T for x in of]


def neighbours(k: int) -> Way:
    """The k-th nearest sample of the reference."""

    def way(u: np.ndarray, label: np.ndarray, new: np.ndarray) -> np.ndarray:
        return _kth(*_white(u, label, u, new), k)

    return way


def outlier_factor(u: np.ndarray, label: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Local outlier factor of 15 neighbours (Breunig et al. 2000)."""
    from sklearn.neighbors import LocalOutlierFactor

    known, others = _white(u, label, u, new)
    factor: np.ndarray = -LocalOutlierFactor(15, novelty=True).fit(known).score_samples(others)
    return factor


def own_neighbours(u: np.ndarray, label: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The 5th nearest of one population in units of that one's spread; of the nearest of these."""
    least = np.full(len(new), np.inf)
    for j, root in enumerate(_classes(u, label)[1]):
        known, others = (np.linalg.solve(root, x[:, 1:].T).T for x in (u[label == j], new))
        size = 2 * np.log(np.diag(root)).mean()
        least = np.minimum(least, 2 * np.log(_kth(known, others, 5)) + size)
    return least


WAYS: dict[str, Way] = {
    "normal distributions of populations (the product)": gaussians,
    "5th neighbour": neighbours(5),
    "15th neighbour": neighbours(15),
    "local outlier factor, 15": outlier_factor,
    "5th neighbour within a population": own_neighbours,
}


def told(u: np.ndarray, label: np.ndarray, fold: np.ndarray, new: np.ndarray, way: Way) -> float:
    """Share of the new ones that are farther away than 99 % of the others."""
    usual = np.empty(len(u))
    for k in range(N_FOLDS):
        here = fold == k
        usual[here] = way(u[~here], label[~here], u[here])
    return float((way(u, label, new) > np.quantile(usual, 1 - ATYPICAL)).mean())


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
def main(out: Path) -> None:
    genotypes = read_genotypes(common.GENOTYPES)
    panel = read_labels(common.PANEL, genotypes.sample_id).frame
    population = panel["pop"].to_numpy(object)
    group, groups = group_numbers(population, panel["super_pop"].to_numpy(object))
    counts = PopulationCounts.of(genotypes, population, group)
    number = counts.number_of(population)
    rng = np.random.default_rng(0)
    fold = rng.permutation(len(number)) % N_FOLDS
    rows, found = [], {}
    for name, share in PANELS.items():
        m = round(share * genotypes.n_variants)
        sites = np.sort(rng.permutation(genotypes.n_variants)[:m])
        likelihood = np.empty((len(number), len(group)))
        for j in range(len(group)):
            own = number == j
            table = counts.log_predictive(j)[:, :, sites].astype(np.float32)
            likelihood[own] = log_likelihood(genotypes.dosage[np.ix_(own, sites)], table)
        found[name] = {way: {} for way in WAYS}
        for g, left_out in enumerate(groups):
            there = np.flatnonzero(counts.group != g)
            u = _differences(likelihood[:, there]) / m
            label = np.searchsorted(there, number)
            new = counts.group[number] == g
            for way, distance in WAYS.items():
                share_told = told(u[~new], label[~new], fold[~new], u[new], distance)
                found[name][way][left_out] = share_told
        for way, of in found[name].items():
            rows.append([f"{name} ({m:,}): {way}", *(f"{of[g]:.3f}" for g in groups)])
            click.echo(" | ".join(rows[-1]))
    common.write_json(
        out / "novelty.json",
        {
            "settings": {
                "data_sha256": genotypes.source["sha256"],
                "panel_sha256": common.digest(common.PANEL),
                "seed": 0,
                "versions": common.versions(),
            },
            "told": found,
        },
    )
    text = f"""# Telling an ancestry that the reference lacks

`{common.relative(common.GENOTYPES)}`, all {len(number):,} samples; sites at random, seed 0. Share
of the samples of the superpopulation that is left out that are farther from the others' populations
than 99 % of the others are.

{common.table(["sites: way", *groups], rows)}

Command: `python benchmarks/novelty.py`
"""
    common.write_text(out / "novelty.md", text)


if __name__ == "__main__":
    main()
