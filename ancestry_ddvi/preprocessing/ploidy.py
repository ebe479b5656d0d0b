"""Samples that were read as one allele a site: haploid genotypes, and pseudo-haploid ones, which
are one read a site of a diploid genome, as is usual of ancient DNA.

    h_i = sum_s [g_is = 1] / sum_s 2 p_s (1 - p_s)      over the sites s that sample i has

is about the same for all diploid samples of a reference, and near 0 where one allele was written
twice. Such a genotype says half as much as two alleles do.
"""

from __future__ import annotations

import numpy as np

from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.preprocessing.filters import column_blocks

MAX_HAPLOID = 0.2
"""A sample with a smaller share of the reference's h is taken as haploid: more than of genomes with
long runs of homozygosity, or called at so low a depth that one allele is often missed."""

MIN_EXPECTED = 20
"""Expected heterozygous genotypes below which nothing is concluded: of that many unlinked ones a
diploid sample has less than a fifth in three of a million cases."""


class Heterozygosity:
    """Sums over blocks of sites."""

    def __init__(self, n_samples: int) -> None:
        self._seen = np.zeros(n_samples)
        self._expected = np.zeros(n_samples)

    def add(self, dosage: np.ndarray, frequency: np.ndarray) -> None:
        """Count a block: (n_samples, b) dosages, (b,) allele frequencies of the reference."""
        self._seen += (dosage == 1).sum(axis=1)
        variance = (2 * frequency * (1 - frequency)).astype(np.float32)
        self._expected += (dosage != MISSING).astype(np.float32) @ variance

    @classmethod
    def of(cls, dosage: np.ndarray, frequency: np.ndarray) -> Heterozygosity:
        """Of all sites, a block at a time."""
        found = cls(len(dosage))
        for block in column_blocks(*dosage.shape):
            found.add(dosage[:, block], frequency[block])
        return found

    @property
    def share(self) -> np.ndarray:
        """(n_samples,) h; nan with fewer than `MIN_EXPECTED` expected."""
        share = np.full(len(self._seen), np.nan)
        enough = self._expected >= MIN_EXPECTED
        share[enough] = self._seen[enough] / self._expected[enough]
        return share

    def typical(self, rows: np.ndarray) -> float:
        """Median h of a reference's samples; 0, which calls nobody haploid, if none is known."""
        known = self.share[rows]
        known = known[np.isfinite(known)]
        return float(np.median(known)) if len(known) else 0.0

    def is_haploid(self, reference: float) -> np.ndarray:
        """(n_samples,) bool, by the h of the reference's samples."""
        haploid: np.ndarray = self.share < MAX_HAPLOID * reference
        return haploid
