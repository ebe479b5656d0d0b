"""The benchmark of novelty: its way of the product is what the product does."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from helpers import importable
from simulate import balding_nichols

from ancestry_ddvi.ancestry.assignment import PopulationCounts, log_likelihood
from ancestry_ddvi.ancestry.typicality import differences, powers

GROUP = {"P0": 0, "P1": 0, "P2": 1, "P3": 1, "P4": 2}


@pytest.fixture(scope="module")
def novelty() -> Iterator[ModuleType]:
    """The script as a module; what it sets for its own process is undone."""
    with importable("benchmarks"):
        yield importlib.import_module("novelty")


def test_the_product_tells_as_many(novelty: ModuleType) -> None:
    genotypes, label = balding_nichols(60, 2000, 0.03, 5, 0)
    counts = PopulationCounts.of(genotypes, label.astype(object), GROUP)
    number = counts.number_of(label)
    sites = np.arange(0, 2000, 2)
    likelihood = novelty.without_itself(genotypes.dosage, counts, number, [sites])[0]
    shift = novelty.shifts(genotypes.dosage, counts, number)
    fold = np.random.default_rng(0).permutation(len(number)) % novelty.N_FOLDS
    size = np.full(len(number), len(sites))
    expected = powers(likelihood, size, number, fold, shift, counts.group)
    differs = 0.0
    for g in range(3):
        there = np.flatnonzero(counts.group != g)
        new = counts.group[number] == g
        u = differences(likelihood[:, there]) / len(sites)
        moved = differences(shift[there][..., there])
        known = novelty.Reference(u[~new], np.searchsorted(there, number[~new]), moved)
        args = fold[~new], u[new]
        assert novelty.told(known, *args, novelty.gaussians) == pytest.approx(expected[g])
        plain = novelty.told(known, *args, novelty.plain_gaussians)
        still = replace(known, shift=np.zeros_like(moved))
        assert novelty.told(still, *args, novelty.gaussians) == plain
        differs += abs(plain - expected[g])
    assert 0.1 < expected.mean() < 1
    assert differs > 0


def test_likelihoods_are_by_counts_without_the_sample(novelty: ModuleType) -> None:
    genotypes, label = balding_nichols(20, 50, 0.03, 5, 0)
    counts = PopulationCounts.of(genotypes, label.astype(object), GROUP)
    number, sites = counts.number_of(label), np.array([3, 8, 40])
    (found,) = novelty.without_itself(genotypes.dosage, counts, number, [sites])
    i = 47
    own = counts.log_predictive(number[i])[:, :, sites]
    by_hand = sum(own[:, genotypes.dosage[i, s], k] for k, s in enumerate(sites))
    np.testing.assert_allclose(found[i], by_hand, rtol=1e-5)
    counted = log_likelihood(genotypes.dosage[:, sites], counts.log_predictive()[:, :, sites])
    rows = np.arange(len(number))
    assert (counted - found)[rows, number].mean() > 0.01
