"""What the shares of the three genotypes say of how a sample was read.

    h_i = sum_s [g_is = 1] / sum_s 2 p_s (1 - p_s)      over the sites s that sample i has
    r_i = sum_s [g_is = 0] / sum_s (1 - p_s)^2

h is about the same for all diploid samples of a reference, and near 0 where one allele was written
twice: haploid genotypes, and pseudo-haploid ones, which are one read a site of a diploid genome, as
is usual of ancient DNA. Such a genotype says half as much as two alleles do. r is near 1, and less
in a file that has only the sites at which one of its few samples has ALT: the bundled samples have
.99 to 1.04 by all sites of 1kg, and 0 / .57 / .73 / .85 by those of 1 / 2 / 3 / 5 of them; at the
sites with a minor allele frequency of .1 in a whole population it is .86 to .94.
"""

from __future__ import annotations

import numpy as np

from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.preprocessing.filters import column_blocks

MAX_HAPLOID = 0.2
"""A sample with a smaller share of the reference's h is taken as haploid: more than of genomes with
long runs of homozygosity, or called at so low a depth that one allele is often missed."""

MIN_HETEROZYGOUS = 5
"""Expected heterozygous genotypes below which nothing is concluded. Of so few a diploid sample has
less than a fifth, which is none, in 7 of 1,000 cases, and is then read as saying less than it does;
of 20 in three of a million."""

MIN_EXPECTED = 20
"""Expected genotypes without ALT below which nothing is concluded."""

MIN_REFERENCE = 0.95
"""A smaller r, beyond chance, of a file of at most `MAX_FEW` samples shows that sites without ALT
were left out; of more samples it may be a filter on the minor allele frequency."""

MAX_FEW = 10


class GenotypeShares:
    """Sums over blocks of sites."""

    def __init__(self, n_samples: int) -> None:
        self._heterozygous = np.zeros(n_samples)
        self._expected = np.zeros(n_samples)
        self._reference = np.zeros(n_samples)
        self._reference_expected = np.zeros(n_samples)

    def add(self, dosage: np.ndarray, frequency: np.ndarray) -> None:
        """Count a block: (n_samples, b) dosages, (b,) allele frequencies of the reference."""
        self._heterozygous += (dosage == 1).sum(axis=1)
        self._reference += (dosage == 0).sum(axis=1)
        called = (dosage != MISSING).astype(np.float32)
        shares = np.column_stack([2 * frequency * (1 - frequency), (1 - frequency) ** 2])
        expected = called @ shares.astype(np.float32)
        self._expected += expected[:, 0]
        self._reference_expected += expected[:, 1]

    @classmethod
    def of(cls, dosage: np.ndarray, frequency: np.ndarray) -> GenotypeShares:
        """Of all sites, a block at a time."""
        found = cls(len(dosage))
        for block in column_blocks(*dosage.shape):
            found.add(dosage[:, block], frequency[block])
        return found

    @property
    def reference(self) -> np.ndarray:
        """(n_samples,) r and about two standard errors more, which it is likely below; nan with
        fewer than `MIN_EXPECTED` expected."""
        expected = self._reference_expected
        return _over(self._reference, expected, MIN_EXPECTED) + 1 / np.sqrt(np.maximum(expected, 1))

    @property
    def heterozygous(self) -> np.ndarray:
        """(n_samples,) h; nan with fewer than `MIN_HETEROZYGOUS` expected."""
        return _over(self._heterozygous, self._expected, MIN_HETEROZYGOUS)

    def typical(self, rows: np.ndarray) -> float:
        """Median h of a reference's samples; 0, which calls nobody haploid, if none is known."""
        known = self.heterozygous[rows]
        known = known[np.isfinite(known)]
        return float(np.median(known)) if len(known) else 0.0

    def is_haploid(self, reference: float) -> np.ndarray:
        """(n_samples,) bool, by the h of the reference's samples."""
        haploid: np.ndarray = self.heterozygous < MAX_HAPLOID * reference
        return haploid


def _over(counted: np.ndarray, expected: np.ndarray, least: float) -> np.ndarray:
    """(n_samples,) share; nan where too few are expected."""
    share = np.full(len(counted), np.nan)
    np.divide(counted, expected, out=share, where=expected >= least)
    return share
