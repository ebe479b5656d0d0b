"""The model as a whole: settings refused early, shapes, and determinism."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from ancestry_ddvi.ddvi import model as model_module
from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig, row_key
from ancestry_ddvi.ddvi.objective import bound_terms
from ancestry_ddvi.ddvi.streams import Streams
from ancestry_ddvi.errors import OptionError

torch.set_num_threads(1)

SCALE = np.array([3.0, 2.0, 1.5, 1.0, 0.5])
SMALL = ModelConfig(n_latent=2, n_clusters=4, n_steps=3, n_hidden=12)


def make_model(seed: int = 0, **settings: Any) -> AncestryModel:
    """A small untrained model."""
    return AncestryModel(SCALE, ModelConfig(**{**SMALL.__dict__, **settings}), seed)


def features(n: int) -> tuple[np.ndarray, np.ndarray]:
    """n rows as the extractor gives them, the second half with noise."""
    random = np.random.default_rng(0)
    return random.normal(size=(n, 5)) * SCALE, np.repeat([0.0, 0.7], [n - n // 2, n // 2])


@pytest.mark.parametrize("name", ["n_latent", "n_clusters", "n_steps", "n_hidden"])
@pytest.mark.parametrize("value", [0, -2])
def test_settings_below_one_are_refused(name: str, value: int) -> None:
    with pytest.raises(OptionError, match=f"{name} must be at least 1, not {value}"):
        ModelConfig(**{name: value})


def test_more_latents_than_features_are_refused() -> None:
    with pytest.raises(OptionError, match="6 latents cannot be learnt from 5 principal"):
        make_model(n_latent=6)
    assert make_model(n_latent=5).config.n_latent == 5


def test_settings_are_json_and_make_the_same_model() -> None:
    model = make_model()
    again = AncestryModel(SCALE, ModelConfig(**json.loads(json.dumps(model.config_dict()))), 5)
    again.load_state_dict(model.state_dict())
    x, noise = features(4)
    np.testing.assert_array_equal(
        again.sample_posterior(x, noise, n_draws=3, seed=1),
        model.sample_posterior(x, noise, n_draws=3, seed=1),
    )


def test_weights_depend_on_the_seed_only_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    first = make_model(seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.randn(7)
    again, other = make_model(seed=3), make_model(seed=4)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


@pytest.mark.parametrize(("n_latent", "n_steps"), [(1, 1), (2, 3), (5, 2)])
def test_shapes(n_latent: int, n_steps: int) -> None:
    model = make_model(n_latent=n_latent, n_steps=n_steps)
    x, noise = features(7)
    draws = model.sample_posterior(x, noise, n_draws=6, seed=0)
    assert draws.shape == (6, 7, n_latent)
    assert draws.dtype == np.float32
    assert model.membership(draws).shape == (7, 4)
    assert model.elbo(x, noise, n_draws=2).shape == (7,)
    for array in (draws, model.membership(draws), model.elbo(x, noise, n_draws=2)):
        assert np.isfinite(array).all()


def test_draws_and_elbo_depend_on_their_seed_only() -> None:
    model = make_model()
    x, noise = features(5)
    torch.manual_seed(12)
    state = torch.random.get_rng_state()
    draws = model.sample_posterior(x, noise, n_draws=4, seed=1)
    elbo = model.elbo(x, noise, n_draws=4, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.randn(3)
    np.testing.assert_array_equal(draws, model.sample_posterior(x, noise, n_draws=4, seed=1))
    np.testing.assert_array_equal(elbo, model.elbo(x, noise, n_draws=4, seed=1))
    assert (draws != model.sample_posterior(x, noise, n_draws=4, seed=2)).all()
    assert (elbo != model.elbo(x, noise, n_draws=4, seed=2)).all()


def test_elbo_is_the_average_of_single_bounds_and_settles() -> None:
    model = make_model()
    x, noise = features(6)
    rows = (torch.as_tensor(x).float(), torch.as_tensor(noise).float())
    streams = Streams(row_key(np.column_stack([x / SCALE, noise])), 2)
    with torch.no_grad():
        of_draws = bound_terms(model.prior, model.decoder, model.posterior, *rows, streams, 5).elbo
    assert (of_draws.std(0) > 0).all()
    np.testing.assert_allclose(
        model.elbo(x, noise, n_draws=5, seed=2), of_draws.mean(0).numpy(), rtol=1e-5
    )
    spread = {
        n: np.std([model.elbo(x, noise, n_draws=n, seed=s) for s in range(20)], axis=0).mean()
        for n in (1, 25)
    }
    assert spread[25] < spread[1] / 3


def test_batches_cut_the_work_and_not_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows stay at their place: in order, none left out, each with its own noise."""
    model = make_model()
    x, noise = features(23)
    whole = model.draw(x, noise, n_draws=10, seed=0)
    for batch in (50, 4):
        monkeypatch.setattr(model_module, "BATCH", batch)
        parts = model.draw(x, noise, n_draws=10, seed=0)
        for one, other in zip(whole, parts, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("guided", [True, False])
def test_draws_do_not_depend_on_the_company(guided: bool) -> None:
    """Any samples in any order; but for the rounding of batched products they are the same."""
    model = make_model(guided=guided)
    x, noise = features(23)
    noise = noise * np.linspace(0.1, 9, 23)
    whole, elbo = model.draw(x, noise, n_draws=10, seed=0)
    some = np.array([20, 3, 11])
    draws, elbo_of_some = model.draw(x[some], noise[some], n_draws=10, seed=0)
    np.testing.assert_allclose(draws, whole[:, some], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(elbo_of_some, elbo[some], rtol=1e-4)


def test_samples_have_streams_of_their_own_told_by_key() -> None:
    """The same features under two keys are two samples, under one key the same draws."""
    model = make_model()
    x, noise = np.ones((3, 5)), np.zeros(3)
    key = np.array([7, 8, 7], dtype=np.uint64)
    draws, _ = model.draw(x, noise, n_draws=2000, seed=0, key=key)
    np.testing.assert_allclose(draws[:, 0], draws[:, 2], atol=1e-4)
    correlation = np.corrcoef(draws[:, 0, 0], draws[:, 1, 0])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(2000)
    # Without keys, equal rows are one sample, whatever their rounding and the sign of their zeros.
    rows = np.array([[0.0, 1], [-0.0, 1], [1e-15, 1], [1, 0], [1e-3, 1]])
    assert [len(set(row_key(rows)[:n])) for n in (3, 4, 5)] == [1, 2, 3]


def test_membership_is_the_average_over_draws() -> None:
    model = make_model()
    with torch.no_grad():
        model.prior.mean.copy_(torch.tensor([[-9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, -9.0]]))
    draws = np.zeros((4, 3, 2), dtype=np.float32)
    draws[:, 0] = [-9, 0]
    draws[:, 1] = [[9, 0], [9, 0], [9, 0], [0, 9]]
    draws[:, 2] = [[-9, 0], [9, 0], [0, 9], [0, -9]]
    expected = [[1, 0, 0, 0], [0, 0.75, 0.25, 0], [0.25] * 4]
    np.testing.assert_allclose(model.membership(draws), expected, atol=1e-6)
    draws = np.random.default_rng(0).normal(size=(10, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(model.membership(draws).sum(1), 1, rtol=1e-5)


def test_a_sample_without_any_called_genotype_has_a_finite_posterior() -> None:
    model = make_model()
    x, noise = np.zeros((2, 5)), np.array([0.0, np.inf])
    assert np.isfinite(model.sample_posterior(x, noise, n_draws=5, seed=0)).all()
    assert np.isfinite(model.elbo(x, noise)).all()
