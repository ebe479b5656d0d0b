"""How far populations have drifted apart: Hudson's FST between every two of them.

For variant j with frequencies p_a, p_b of the counted allele and n_a, n_b alleles called,

    N_j = (p_a - p_b)^2 - p_a (1 - p_a) / (n_a - 1) - p_b (1 - p_b) / (n_b - 1)
    D_j = p_a (1 - p_b) + p_b (1 - p_a)
    FST = sum_j N_j / sum_j D_j

a ratio of averages, and so neither biased by sample size nor ruled by rare variants (Bhatia et al.
2013, Genome Res. 23:1514, eq. 10).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ancestry_ddvi.errors import LabelFileError
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.preprocessing.filters import VariantCounts

MIN_SAMPLES = 2
"""One sample does not tell a population's drift from its own inbreeding."""


def hudson_fst_matrix(
    genotypes: GenotypeMatrix, population: pd.Series | np.ndarray
) -> pd.DataFrame:
    """Hudson FST between all pairs of populations.

    Parameters
    ----------
    genotypes
        All samples; missing genotypes are left out of the counts.
    population
        (n_samples,) label of each sample, in the samples' order (an index is not looked at);
        samples without one (None, nan) are left out, and so are populations with fewer than two.

    Returns
    -------
    (n_populations, n_populations) float64, symmetric, 0 on the diagonal; rows and columns are the
    populations, sorted. Slightly negative where two do not differ; nan where no variant is called
    in both and varies.

    Raises
    ------
    LabelFileError
        If there is not one label for each sample.
    """
    if len(population) != genotypes.n_samples:
        raise LabelFileError(
            f"{genotypes.name}: {len(population)} labels for {genotypes.n_samples} samples; give "
            "one a sample, in the samples' order"
        )
    alleles = PopulationAlleles(population)
    alleles.add(genotypes)
    return alleles.hudson_fst()


class PopulationAlleles:
    """Alleles called in each population, counted over parts of the samples.

    Parameters
    ----------
    population
        As in `hudson_fst_matrix`, of all samples.
    """

    def __init__(self, population: pd.Series | np.ndarray) -> None:
        self._code, names = pd.factorize(np.asarray(population, dtype=object), sort=True)
        size = np.bincount(self._code[self._code >= 0], minlength=len(names))
        self._large_enough = np.flatnonzero(size >= MIN_SAMPLES)
        self._names = names[self._large_enough]
        self._counts: list[np.ndarray] = []

    def add(self, genotypes: GenotypeMatrix, rows: slice = slice(None)) -> None:
        """Count the genotypes of some of the samples, at the same variants each time."""
        code, counts = self._code[rows], []
        for i in self._large_enough:
            part = VariantCounts.of(genotypes.dosage, np.flatnonzero(code == i))
            counts.append(np.stack([2 * part.n_called - part.n_counted, part.n_counted], axis=1))
        before = self._counts or [np.zeros_like(each) for each in counts]
        self._counts = [old + new for old, new in zip(before, counts, strict=True)]

    def hudson_fst(self) -> pd.DataFrame:
        """As `hudson_fst_matrix` has it, of all that was counted."""
        # Only here: this import takes a second that runs without labels should not wait for.
        import allel

        fst = np.zeros((len(self._counts), len(self._counts)))
        for a, ours in enumerate(self._counts):
            for b, theirs in enumerate(self._counts[:a]):
                numerator, denominator = allel.hudson_fst(ours, theirs, fill=np.nan)
                # nan, in both, where nobody of one population is called.
                total = np.nansum(denominator)
                fst[a, b] = fst[b, a] = np.nansum(numerator) / total if total > 0 else np.nan
        return pd.DataFrame(fst, index=self._names, columns=self._names)
