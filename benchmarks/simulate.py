r"""Simulated populations whose labels are known, to choose settings on.

Allele frequencies drift down a tree by the Balding-Nichols model,

    p_child ~ Beta(p (1 - F) / F, (1 - p) (1 - F) / F)        Var = F p (1 - p)

with five groups as coarse structure: A beside the split of all others, B, C and D after it, and E,
whose samples each mix a drifted branch of B with C and A in proportions drawn from a Dirichlet
distribution; two populations of A are mixed with C too. Below each of A to D lie two branches and
four to six populations, drifted by F = .0015 to .0075 from their branch. Variants are unlinked.
The shape (number and sizes of populations, F at each level) was set by eye for a spectrum of
principal components like that of world-wide human data; no label of real data had a part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ancestry_ddvi.genotypes import GenotypeMatrix

N_CONTIGS = 20
_ADMIXTURE = ((8, 6, 0.7), (3, 9, 1.0), (12, 4, 0.4), (2, 6, 4.0))
"""Dirichlet parameters of the four populations of E: shares of the branch of B, of C and of A."""


@dataclass(frozen=True)
class Simulation:
    """Genotypes with (n_samples,) labels of both levels."""

    genotypes: GenotypeMatrix
    population: np.ndarray
    superpopulation: np.ndarray


def drift(rng: np.random.Generator, p: np.ndarray, fst: float) -> np.ndarray:
    """(n_variants,) frequencies after a drift of `fst` from `p`."""
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return rng.beta(p * (1 - fst) / fst, (1 - p) * (1 - fst) / fst)


def simulate(seed: int, *, n_per_population: int = 96, n_variants: int = 18_000) -> Simulation:
    """Draw 22 to 30 populations of about `n_per_population` samples each, in random order.

    Parameters
    ----------
    seed
        Everything random follows from it.
    n_per_population
        Sizes are .7 to 1.3 of it.
    n_variants
        Unlinked biallelic SNPs.
    """
    rng = np.random.default_rng(seed)
    root = np.clip(rng.beta(0.25, 0.9, n_variants), 0.002, 0.998)
    group = {"A": drift(rng, root, 0.03 + 0.02 * rng.random())}
    others = drift(rng, root, 0.10)
    group["B"] = drift(rng, others, 0.04)
    west = drift(rng, others, 0.02)
    group["C"] = drift(rng, west, 0.025)
    group["D"] = drift(rng, west, 0.03)

    frequency: dict[str, np.ndarray] = {}
    parts: list[tuple[str, np.ndarray]] = []

    def add(name: str, p: np.ndarray) -> None:
        """Genotypes of one population; `p` is (n_samples, n_variants)."""
        parts.append((name, rng.binomial(2, np.clip(p, 0, 1)).astype(np.int8)))

    def size() -> int:
        return int(n_per_population * (0.7 + 0.6 * rng.random()))

    for name, p in group.items():
        n_populations = rng.integers(4, 7)
        branches = [drift(rng, p, 0.003 + 0.004 * rng.random()) for _ in range(2)]
        for j in range(n_populations):
            own = drift(rng, branches[rng.integers(2)], 0.0015 + 0.006 * rng.random() ** 2)
            frequency[f"{name}{j}"] = own
            add(f"{name}{j}", np.broadcast_to(own, (size(), n_variants)))
    branch = drift(rng, group["B"], 0.06)
    for j, parameters in enumerate(_ADMIXTURE):
        share = rng.dirichlet(parameters, size())
        sources = np.stack([drift(rng, branch, 0.01), frequency["C0"], frequency["A0"]])
        add(f"E{j}", share @ sources)
    for j in range(2):
        share = rng.beta(8, 2, int(0.7 * n_per_population))[:, None]
        add(f"Ax{j}", share * frequency[f"A{j}"] + (1 - share) * frequency["C1"])

    population = np.repeat([name for name, _ in parts], [len(g) for _, g in parts])
    order = rng.permutation(len(population))
    population = population[order]
    dosage = np.concatenate([g for _, g in parts])[order]
    contig = np.arange(n_variants) * N_CONTIGS // n_variants + 1
    variants = pd.DataFrame(
        {
            "contig": contig.astype(str),
            "position": np.arange(1, n_variants + 1) * 1000,
            "id": ".",
            "ref": "A",
            "alt": "G",
        }
    )
    ids = np.array([f"s{i:05d}" for i in range(len(dosage))])
    genotypes = GenotypeMatrix(dosage, ids, variants, {"path": f"simulation {seed}"})
    superpopulation = np.array([name[0] for name in population])
    return Simulation(genotypes, population, superpopulation)
