"""How likely genotypes are in each population of a reference.

    p(g | l)  = prod_s BetaBinomial(g_s; 2, a_ls, b_ls)         Rannala & Mountain 1997
    a_ls      = c_ls + k f_s
    b_ls      = n_ls - c_ls + k (1 - f_s),   k = (1 - F) / F    Balding & Nichols 1995

over the sites s that the sample has; c_ls of n_ls chromosomes of population l carry ALT.
Populations of one group (superpopulation) share the mean f_s, which is drawn in the same way
towards that of all groups. F is Hudson's FST, within groups and between them.
Of a sample that was read as one allele a site (`preprocessing.ploidy`) it is a / (a + b) for ALT.

The product takes sites as independent, which linked ones are not: what comes out ranks populations
and is no probability yet (`calibration`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ancestry_ddvi.ancestry.typicality import MAX_ERROR
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix
from ancestry_ddvi.preprocessing.filters import column_blocks
from ancestry_ddvi.preprocessing.fst import hudson_fst_matrix

MIN_FST = 1e-3
"""Populations that do not differ would share everything they have, were it not for this."""


@dataclass(frozen=True)
class PopulationCounts:
    """Alleles counted in each population of a reference.

    Attributes
    ----------
    population
        (L,) names.
    group
        (L,) number of each population's group.
    n_alt, n_called
        (L, M) chromosomes with ALT, and with any call.
    fst_within, fst_between
        Mean FST of populations of one group, and of groups.
    """

    population: tuple[str, ...]
    group: np.ndarray
    n_alt: np.ndarray
    n_called: np.ndarray
    fst_within: float
    fst_between: float

    @classmethod
    def of(
        cls, genotypes: GenotypeMatrix, label: np.ndarray, group: dict[str, int]
    ) -> PopulationCounts:
        """Count in labelled samples.

        Parameters
        ----------
        genotypes
            All samples.
        label
            (n_samples,) population of each sample, None where it is not to be counted.
        group
            The number of each population's group.
        """
        names = tuple(group)
        of_name = np.array([group[name] for name in names])
        fst = hudson_fst_matrix(genotypes, label).loc[list(names), list(names)].to_numpy()
        same = of_name[:, None] == of_name
        within, between = same & ~np.eye(len(names), dtype=bool), ~same

        def mean(of: np.ndarray) -> float:
            values = fst[of & np.isfinite(fst)]
            return float(np.clip(values.mean(), MIN_FST, 0.9)) if len(values) else MIN_FST

        number = _numbers(label, names)
        counts = cls._count(genotypes.dosage, number, len(names))
        return cls(
            names, of_name, *counts, mean(within), mean(between if between.any() else within)
        )

    @staticmethod
    def _count(dosage: np.ndarray, number: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        shape = (n, dosage.shape[1])
        n_alt, n_called = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
        for j in range(n):
            rows = np.flatnonzero(number == j)
            for block in column_blocks(max(len(rows), 1), dosage.shape[1]):
                part = dosage[rows, block]
                called = part != MISSING
                n_alt[j, block] = np.where(called, part, 0).sum(axis=0)
                n_called[j, block] = 2 * called.sum(axis=0)
        return n_alt, n_called

    def number_of(self, label: np.ndarray) -> np.ndarray:
        """(n_samples,) int number of each population, -1 for None and for others."""
        return _numbers(label, self.population)

    @property
    def frequency(self) -> np.ndarray:
        """(M,) of ALT, in all populations together."""
        share: np.ndarray = (self.n_alt.sum(0) + 0.5) / (self.n_called.sum(0) + 1)
        return share

    def log_predictive(self, counted: int | None = None, *, haploid: bool = False) -> np.ndarray:
        """(L, 3, M) float64 log p(g | l) of 0, 1 and 2 copies of ALT.

        Parameters
        ----------
        counted
            A population: the table is for a sample that is counted in it, and each entry is what it
            would be had a sample with that genotype not been counted.
        haploid
            The table is for a sample that was read as one allele a site, written twice; of the few
            genotypes with both alleles it says nothing.
        """
        k_within, k_between = ((1 - f) / f for f in (self.fst_within, self.fst_between))
        of_all = self.frequency
        of_group = [
            (self.n_alt[peers].sum(0), self.n_called[peers].sum(0))
            for peers in (self.group == group for group in range(self.group.max() + 1))
        ]
        shape = (3, self.n_alt.shape[1])
        out = np.empty((len(self.population), *shape))
        for j, group in enumerate(self.group):
            near = counted is not None and self.group[counted] == group
            gone_alt, gone = (np.arange(3)[:, None], 2) if near else (0, 0)
            n_alt, n_called = of_group[group]
            mean = n_alt - gone_alt + k_between * of_all
            mean = mean / (n_called - gone + k_between)
            if j != counted:
                gone_alt, gone = 0, 0
            n_alt = self.n_alt[j] - gone_alt
            a = n_alt + k_within * mean
            b = self.n_called[j] - gone - n_alt + k_within * (1 - mean)
            # An entry of a genotype that no sample has, there or elsewhere, is never read.
            a, b = (np.broadcast_to(np.maximum(x, 1e-9), shape) for x in (a, b))
            if haploid:
                out[j] = np.log(np.stack([b[0], a[1] + b[1], a[2]]) / (a + b))
                continue
            ways = np.stack([b[0] * (b[0] + 1), 2 * a[1] * b[1], a[2] * (a[2] + 1)])
            out[j] = np.log(ways / ((a + b) * (a + b + 1)))
        return out


def _numbers(label: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    number = {name: i for i, name in enumerate(names)}
    return np.array([number.get(x, -1) for x in label])


def log_likelihood(dosage: np.ndarray, log_predictive: np.ndarray) -> np.ndarray:
    """(n, L) log p(g | l) in nats of genotypes (n, M), missing ones left out; products in the
    precision of the table."""
    n, m = dosage.shape
    out = np.zeros((n, len(log_predictive)))
    for block in column_blocks(n, m, bytes_per_item=8):
        part = dosage[:, block]
        for copies in range(3):
            given = (part == copies).astype(log_predictive.dtype)
            out += given @ log_predictive[:, copies, block].T
    return out


def mean_shift(dosage: np.ndarray, plain: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(2, L) by how much log p(g | l) of a site grows, on average over the genotypes (n, M) of one
    population, where the sample itself is counted in it, and where errors are made in `MAX_ERROR`
    of the alleles; by tables (L, 3, M) for all and for those counted in this population."""
    share = np.stack([(dosage == copies).mean(axis=0) for copies in range(3)])
    low, mid, high = (plain[:, copies] for copies in range(3))
    wrong = np.stack([2 * (mid - low), low + high - 2 * mid, 2 * (mid - high)], axis=1)
    grown = np.stack([plain - own, MAX_ERROR * wrong])
    found: np.ndarray = (share * grown).sum(axis=(2, 3)) / share.sum()
    return found


def group_numbers(
    label: np.ndarray, group: np.ndarray | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Each population's group, and the names of the groups; one without a name if there are none.

    Parameters
    ----------
    label, group
        (n_samples,) population and group of each sample, None where unknown. A population whose
        samples are of several groups is of the commonest.
    """
    known = pd.DataFrame({"label": label, "group": group}).dropna(subset="label").astype(object)
    names = sorted(map(str, known["label"].unique()))
    if known["group"].isna().all():
        return dict.fromkeys(names, 0), ()
    commonest = known.dropna().groupby("label")["group"].agg(lambda of: of.mode().iloc[0])
    of = {name: str(commonest.get(name, name)) for name in names}
    groups = tuple(sorted(set(of.values())))
    return {name: groups.index(of[name]) for name in names}, groups
