"""The benchmark of the decoder's width measures what the product would have trained."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from helpers import importable

from ancestry_ddvi.ddvi.model import AncestryModel
from ancestry_ddvi.ddvi.training import TrainingConfig
from ancestry_ddvi.fitting import EmbedConfig, LearntFeatures, train_model
from ancestry_ddvi.preprocessing.features import FeatureExtractor, Features


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """The script as a module; what it sets for its own process is undone."""
    with importable("benchmarks") as patch:
        # Both folders have a module of this name, and the other tests mean the one beside them.
        patch.delitem(sys.modules, "simulate", raising=False)
        yield importlib.import_module("decoder_width")
        del sys.modules["simulate"]


@pytest.fixture(scope="module")
def learnt() -> LearntFeatures:
    """Two clouds of samples in five features, the last ten samples held out."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 5)) + 4 * (np.arange(120) % 2)[:, None]
    trained_on = np.arange(120) < 110
    extractor = FeatureExtractor()
    extractor.unit = 0.01
    features = Features(x, np.zeros(120), denoised=x[trained_on])
    ids = np.arange(120).astype(str)
    return LearntFeatures(extractor, features, ids, trained_on, ~trained_on, None)


CONFIG = EmbedConfig(training=TrainingConfig(map_steps=24, map_pairs=32, posterior_batch=16))


def at_width(learnt: LearntFeatures, width: float) -> AncestryModel:
    training = replace(CONFIG.training, decoder_width=width)
    return train_model(learnt, replace(CONFIG, training=training))[0]


def same(a: AncestryModel, b: AncestryModel) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_a_width_is_what_the_product_trains_at_it(
    benchmark: ModuleType, learnt: LearntFeatures
) -> None:
    wide, half = benchmark.fits(learnt, CONFIG, (1.0, 0.5))
    assert same(wide, at_width(learnt, 1.0))
    # Each width starts from the end of the map, not where the one before has left the model.
    assert same(half, at_width(learnt, 0.5))
    assert not same(wide, half)


def test_places_and_evidence_are_those_of_the_model(
    benchmark: ModuleType, learnt: LearntFeatures
) -> None:
    (model,) = benchmark.fits(learnt, CONFIG, (0.5,))
    z, sd, log_p = benchmark.places(model, learnt, CONFIG)
    key = benchmark.id_hash(learnt.sample_id)
    draws, elbo = model.draw(
        learnt.features.x, learnt.features.noise, n_draws=CONFIG.n_draws, seed=0, key=key
    )
    np.testing.assert_allclose(z, draws.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(sd, draws.std(axis=0), atol=1e-5)
    assert (log_p > elbo).all()  # Jensen


def test_differences_are_of_pairs(benchmark: ModuleType) -> None:
    # Pairs lie 100 apart, the widths of each .1 to .3: only the latter is in the standard error.
    pairs = {str(i): {"1": {"a": 100.0 * i}, "0.5": {"a": 100.0 * i + 0.1 * i}} for i in (1, 2, 3)}
    found = benchmark.differences(pairs, "a", "0.5")
    assert found == pytest.approx([0.1, 0.2, 0.3])
    assert benchmark.in_words(found, 3) == "+0.200 ± 0.058 (3 of 3)"
    assert benchmark.differences(pairs, "b", "0.5") == []
