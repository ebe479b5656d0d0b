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
    # Only here: this import takes a second that runs without labels should not wait for.
    import allel

    if len(population) != genotypes.n_samples:
        raise LabelFileError(
            f"{genotypes.name}: {len(population)} labels for {genotypes.n_samples} samples; give "
            "one a sample, in the samples' order"
        )
    code, names = pd.factorize(np.asarray(population, dtype=object), sort=True)
    large_enough = np.flatnonzero(np.bincount(code[code >= 0], minlength=len(names)) >= MIN_SAMPLES)
    alleles = []
    for i in large_enough:
        counts = VariantCounts.of(genotypes.dosage, np.flatnonzero(code == i))
        alleles.append(np.stack([2 * counts.n_called - counts.n_counted, counts.n_counted], axis=1))
    fst = np.zeros((len(alleles), len(alleles)))
    for a, ours in enumerate(alleles):
        for b, theirs in enumerate(alleles[:a]):
            numerator, denominator = allel.hudson_fst(ours, theirs, fill=np.nan)
            # nan, in both, where nobody of one population is called.
            total = np.nansum(denominator)
            fst[a, b] = fst[b, a] = np.nansum(numerator) / total if total > 0 else np.nan
    return pd.DataFrame(fst, index=names[large_enough], columns=names[large_enough])
