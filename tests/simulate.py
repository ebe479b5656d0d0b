"""Populations that drifted apart, for tests that need structure of known size."""

from __future__ import annotations

import numpy as np
from helpers import make_variants

from ancestry_ddvi.genotypes import GenotypeMatrix


def balding_nichols(
    n_per_population: int,
    n_variants: int,
    fst: float,
    n_populations: int,
    seed: int,
) -> tuple[GenotypeMatrix, np.ndarray]:
    """Simulate unlinked variants in populations that drifted from one ancestor.

    The ancestral frequency p is uniform on [0.1, 0.9]; each population draws its own from
    Beta(p (1 - F) / F, (1 - p) (1 - F) / F), of mean p and variance F p (1 - p) (Balding &
    Nichols 1995), and its samples draw genotypes in Hardy-Weinberg proportions. So F is the
    Hudson FST between any two populations.

    Parameters
    ----------
    n_per_population, n_populations
        Samples of each population, and how many there are.
    n_variants
        Variants, in halves on contigs 1 and 2 (`helpers.make_variants`).
    fst
        Drift F of every population since the ancestor, in (0, 1).
    seed
        The same seed gives the same genotypes.

    Returns
    -------
    genotypes
        (n_populations * n_per_population, n_variants), none missing.
    population
        (n_samples,) str labels "P0", "P1", ..., population after population.
    """
    rng = np.random.default_rng(seed)
    ancestral = rng.uniform(0.1, 0.9, n_variants)
    spread = (1 - fst) / fst
    frequency = rng.beta(ancestral * spread, (1 - ancestral) * spread, (n_populations, n_variants))
    dosage = rng.binomial(2, np.repeat(frequency, n_per_population, axis=0)).astype(np.int8)
    sample_id = np.array([f"S{i}" for i in range(len(dosage))])
    population = np.repeat([f"P{i}" for i in range(n_populations)], n_per_population)
    genotypes = GenotypeMatrix(dosage, sample_id, make_variants(n_variants))
    return genotypes, population
