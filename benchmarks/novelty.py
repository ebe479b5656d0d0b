"""Ways to tell a sample of an ancestry that the reference lacks, side by side.

Each superpopulation in turn is taken out of the reference. A way gives every sample a distance from
the populations that are left, by its likelihoods in them; those of the superpopulation that are
farther than 99 % of the other samples are told. Others' distances are by the other folds. All see
likelihoods by counts without the sample itself, so that nothing is held out beyond that.

    python benchmarks/novelty.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import common
import numpy as np

from ancestry_ddvi import read_genotypes, read_labels
from ancestry_ddvi.ancestry.assignment import (
    PopulationCounts,
    group_numbers,
    log_likelihood,
    mean_shift,
)
from ancestry_ddvi.ancestry.typicality import (
    ATYPICAL,
    differences,
    distance,
    normal_distributions,
)

N_FOLDS = 5
PANELS = {"all": 1.0, "10 %": 0.1}


@dataclass(frozen=True)
class Reference:
    """What a way may see: differences u (n, L) of samples and their populations `label` (n,), and
    the `shift` (L, 2, L) of each population's differences by being counted and by errors."""

    u: np.ndarray
    label: np.ndarray
    shift: np.ndarray

    def only(self, rows: np.ndarray) -> Reference:
        """Some of the samples."""
        return Reference(self.u[rows], self.label[rows], self.shift)


Way = Callable[[Reference, np.ndarray], np.ndarray]
"""A reference and differences (k, L) of others; their (k,) distances."""


def gaussians(known: Reference, new: np.ndarray) -> np.ndarray:
    """What the product does: the nearest population's normal distribution, the shifts taken out."""
    return distance(known.u, known.label, known.shift, new)


def plain_gaussians(known: Reference, new: np.ndarray) -> np.ndarray:
    """The same, nothing taken out."""
    return distance(known.u, known.label, np.zeros_like(known.shift), new)


def _kth(known: np.ndarray, new: np.ndarray, k: int) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=k).fit(known).kneighbors(new)[0]
    far: np.ndarray = nearest[:, -1]
    return far


def _white(known: Reference, new: np.ndarray) -> list[np.ndarray]:
    """Both in units of the spread within populations, one for all."""
    within = known.u[:, 1:] - normal_distributions(known.u, known.label)[0][known.label]
    root = np.linalg.cholesky(np.cov(within.T))
    return [np.linalg.solve(root, x[:, 1:].T).T for x in (known.u, new)]


def neighbours(k: int) -> Way:
    """The k-th nearest sample of the reference."""

    def way(known: Reference, new: np.ndarray) -> np.ndarray:
        return _kth(*_white(known, new), k)

    return way


def outlier_factor(known: Reference, new: np.ndarray) -> np.ndarray:
    """Local outlier factor of 15 neighbours (Breunig et al. 2000)."""
    from sklearn.neighbors import LocalOutlierFactor

    seen, others = _white(known, new)
    factor: np.ndarray = -LocalOutlierFactor(15, novelty=True).fit(seen).score_samples(others)
    return factor


def own_neighbours(known: Reference, new: np.ndarray) -> np.ndarray:
    """The 5th nearest of one population in units of that one's spread; of the nearest of these."""
    least = np.full(len(new), np.inf)
    for j, root in enumerate(normal_distributions(known.u, known.label)[1]):
        own = known.u[known.label == j]
        seen, others = (np.linalg.solve(root, x[:, 1:].T).T for x in (own, new))
        size = 2 * np.log(np.diag(root)).mean()
        least = np.minimum(least, 2 * np.log(_kth(seen, others, 5)) + size)
    return least


WAYS: dict[str, Way] = {
    "normal distributions of populations (the product)": gaussians,
    "the same, nothing taken out": plain_gaussians,
    "5th neighbour": neighbours(5),
    "15th neighbour": neighbours(15),
    "local outlier factor, 15": outlier_factor,
    "5th neighbour within a population": own_neighbours,
}


def told(known: Reference, fold: np.ndarray, new: np.ndarray, way: Way) -> float:
    """Share of the new ones that are farther away than 99 % of the others."""
    usual = np.empty(len(fold))
    for k in range(N_FOLDS):
        here = fold == k
        usual[here] = way(known.only(~here), known.u[here])
    return float((way(known, new) > np.quantile(usual, 1 - ATYPICAL)).mean())


def without_itself(
    dosage: np.ndarray,
    counts: PopulationCounts,
    number: np.ndarray,
    panels: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Log-likelihoods (n, L) by each panel of sites, by counts without the sample itself, which is
    counted in the population of that `number` (n,)."""
    found = [np.empty((len(number), len(counts.population))) for _ in panels]
    for j in np.unique(number):
        own = number == j
        table = counts.log_predictive(j).astype(np.float32)
        for likelihood, sites in zip(found, panels, strict=True):
            likelihood[own] = log_likelihood(dosage[np.ix_(own, sites)], table[:, :, sites])
    return found


def shifts(dosage: np.ndarray, counts: PopulationCounts, number: np.ndarray) -> np.ndarray:
    """(L, 2, L) `mean_shift` of each population."""
    plain, n = counts.log_predictive(), len(counts.population)
    own = (counts.log_predictive(j) for j in range(n))
    return np.array([mean_shift(dosage[number == j], plain, t) for j, t in enumerate(own)])


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
    sizes = {name: round(share * genotypes.n_variants) for name, share in PANELS.items()}
    panels = [np.sort(rng.permutation(genotypes.n_variants)[:m]) for m in sizes.values()]
    likelihoods = without_itself(genotypes.dosage, counts, number, panels)
    shift = shifts(genotypes.dosage, counts, number)
    rows, found = [], {}
    for (name, m), likelihood in zip(sizes.items(), likelihoods, strict=True):
        found[name] = {way: {} for way in WAYS}
        for g, left_out in enumerate(groups):
            there = np.flatnonzero(counts.group != g)
            u = differences(likelihood[:, there]) / m
            new = counts.group[number] == g
            label = np.searchsorted(there, number[~new])
            known = Reference(u[~new], label, differences(shift[there][..., there]))
            for name_of_way, way in WAYS.items():
                found[name][name_of_way][left_out] = told(known, fold[~new], u[new], way)
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
