"""One population, half of it learnt from and half of it new: both lie at one place.

Scores of training samples are fitted to their own noise and stretched by it. The control is the
same comparison with the stretched scores, which `transform` gives of training samples.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from helpers import make_variants

from ancestry_ddvi import fit_embedding
from ancestry_ddvi.ddvi.training import TrainingConfig
from ancestry_ddvi.fitting import EmbedConfig, FittedEmbedding
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.preprocessing.features import FeatureConfig

N_EACH = (160, 80, 60, 60, 60)
SPLIT = 0
"""The population that is split."""

N_GLOBAL = 2

CONFIG = EmbedConfig(
    features=FeatureConfig(n_pcs=N_GLOBAL, n_local=2),
    training=TrainingConfig(map_steps=300, posterior_steps=5),
    n_draws=100,
    max_kinship=1,
)


@cache
def simulated() -> tuple[GenotypeMatrix, np.ndarray]:
    """Two close populations (FST .008), and three further from them and each other (.015 and more).

    Balding & Nichols 1995: frequencies p drift to Beta(p (1 - F) / F, (1 - p) (1 - F) / F).
    """
    rng, m = np.random.default_rng(0), 2000

    def drifted(p: np.ndarray, fst: float, n: int) -> np.ndarray:
        spread = (1 - fst) / fst
        return rng.beta(p * spread, (1 - p) * spread, (n, m)).clip(0.02, 0.98)

    first, second = drifted(rng.uniform(0.2, 0.8, m), 0.015, 2)
    frequency = np.concatenate([drifted(first, 0.008, 2), drifted(second, 0.015, 3)])
    population = np.repeat(np.arange(len(N_EACH)), N_EACH)
    dosage = rng.binomial(2, frequency[population]).astype(np.int8)
    sample_id = np.array([f"S{i}" for i in range(len(dosage))])
    return GenotypeMatrix(dosage, sample_id, make_variants(m)), population


def halves() -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool: the half of the population that is learnt from, and the one that is new."""
    _, population = simulated()
    odd = np.arange(len(population)) % 2 > 0
    return (population == SPLIT) & odd, (population == SPLIT) & ~odd


@cache
def fitted() -> FittedEmbedding:
    """Learnt from everybody but the new half."""
    return fit_embedding(simulated()[0].select(samples=~halves()[1]), CONFIG)


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(K,) squared distance between the means of two groups in squared standard errors."""
    error = one.var(axis=0, ddof=1) / len(one) + other.var(axis=0, ddof=1) / len(other)
    return (one.mean(axis=0) - other.mean(axis=0)) ** 2 / error


def test_features_of_both_halves_agree() -> None:
    """By components of all samples and by local ones; without correction by neither.

    Of K independent components the mean is 1 with a standard deviation of sqrt(2 / K). Over six
    seeds it was 0.3 to 1.6; the control had at least 20 by all samples' and 78 by local ones.
    """
    genotypes, _ = simulated()
    trained, new = halves()
    extractor = fitted().model.extractor
    assert extractor.shrinkage.max() < 0.95
    theirs = fitted().features.x[trained[~new]]
    stretched = extractor.transform(genotypes.select(samples=trained)).x
    placed = extractor.transform(genotypes.select(samples=new)).x
    n_local = placed.shape[1] - N_GLOBAL
    assert n_local > 0
    assert apart(theirs, placed).mean() < 3
    for part in (slice(N_GLOBAL), slice(N_GLOBAL, None)):
        assert apart(stretched, placed)[part].max() > 15


def test_places_of_both_halves_agree() -> None:
    """0.1 to 2.6 over six seeds; at least 57 on one of two axes without correction."""
    genotypes, _ = simulated()
    trained, new = halves()
    theirs = fitted().table.z[trained[~new]]
    stretched = fitted().model.embed(genotypes.select(samples=trained)).z
    placed = fitted().model.embed(genotypes.select(samples=new)).z
    assert apart(theirs, placed).mean() < 4
    assert apart(stretched, placed).max() > 30
