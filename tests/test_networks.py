"""The small networks: how noise enters, and the decoder's density against torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from ancestry_ddvi.ddvi.networks import (
    MAX_NOISE,
    FeatureInput,
    NormalDecoder,
    fourier_time,
    mlp,
)

torch.set_num_threads(1)

SCALE = torch.tensor([2.0, 1.0, 0.5])


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, so that no test depends on the global stream."""
    return torch.Generator().manual_seed(seed)


def test_mlp_can_start_at_zero_and_still_learn() -> None:
    x = torch.randn((4, 3), generator=seeded(0))
    network = mlp(3, 2, 8, zero_output=True)
    assert torch.equal(network(x), torch.zeros(4, 2))
    network(x).sum().backward()
    last = network[-1].weight.grad
    assert last is not None
    assert last.abs().sum() > 0
    assert mlp(3, 2, 8)(x).abs().sum() > 0


def test_features_without_noise_enter_in_units_of_their_scale() -> None:
    inputs = FeatureInput(SCALE)
    out = inputs(torch.tensor([[2.0, 3.0, -1.0]]), torch.zeros(1))
    torch.testing.assert_close(out, torch.tensor([[1.0, 3.0, -2.0, 0.0]]))
    assert inputs.n_out == out.shape[1]


def test_noisy_features_enter_as_their_best_linear_guess() -> None:
    """The slope that regression of the true on the seen feature finds, in units of s_k."""
    generator, noise = seeded(1), 1.5
    true = SCALE * torch.randn((200_000, 3), generator=generator)
    seen = true + noise * torch.randn(true.shape, generator=generator)
    slope = (seen * true).mean(0) / (seen**2).mean(0)
    out = FeatureInput(SCALE)(seen[:5], torch.full((5,), noise))
    torch.testing.assert_close(out[:, :3], seen[:5] * slope / SCALE, atol=0.03, rtol=0.03)
    torch.testing.assert_close(out[:, 3], torch.full((5,), math.log(1 + noise)))


def test_noise_is_the_only_trace_of_a_nearly_empty_sample() -> None:
    out = FeatureInput(SCALE)(torch.full((2, 3), 50.0), torch.tensor([MAX_NOISE, math.inf]))
    assert torch.isfinite(out).all()
    assert out[:, :3].abs().max() < 1e-3
    assert torch.equal(out[0], out[1])


@pytest.mark.parametrize("noise", [0.0, 0.7])
@torch.no_grad()
def test_decoder_density_against_torch(noise: float) -> None:
    decoder = NormalDecoder(2, SCALE, 8)
    decoder.log_sigma.copy_(torch.tensor([-1.0, 0.0, 0.5]))
    z = torch.randn((6, 2), generator=seeded(2))
    x = torch.randn((6, 3), generator=seeded(3))
    sd = torch.sqrt(decoder.log_sigma.exp() ** 2 + noise**2)
    expected = Normal(decoder.mean(z), sd).log_prob(x).sum(-1)
    torch.testing.assert_close(decoder.log_prob(x, z, torch.full((6,), noise)), expected)


@torch.no_grad()
def test_decoder_draws_have_the_moments_of_its_density() -> None:
    weights = nn.Linear(1, 3)
    decoder = NormalDecoder(1, SCALE, 8, mean=weights)
    assert decoder.mean is weights
    n = 50_000
    noise = torch.tensor([0.0, 2.0]).repeat_interleave(n)
    draws = decoder.sample(torch.ones(2 * n, 1), noise, seeded(4)).reshape(2, n, 3)
    # The start: half of the feature's own scale is noise to the decoder.
    sd = torch.sqrt((SCALE / 2) ** 2 + torch.tensor([[0.0], [4.0]]))
    mean = weights(torch.ones(1)).expand(2, 3)
    torch.testing.assert_close(draws.mean(1), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(draws.std(1), sd, atol=0, rtol=0.02)
    again = decoder.sample(torch.ones(2 * n, 1), noise, seeded(4)).reshape(2, n, 3)
    assert torch.equal(draws, again)


@torch.no_grad()
def test_decoder_is_finite_without_any_called_genotype() -> None:
    decoder = NormalDecoder(2, SCALE, 8)
    value = decoder.log_prob(torch.zeros(1, 3), torch.zeros(1, 2), torch.tensor([math.inf]))
    assert torch.isfinite(value).all()


@pytest.mark.parametrize("n_steps", [1, 2, 10, 50])
def test_time_embedding_tells_every_step_apart(n_steps: int) -> None:
    time = fourier_time(n_steps, 8)
    assert time.shape == (n_steps + 1, 8)
    distance = torch.cdist(time, time) + torch.eye(n_steps + 1)
    assert distance.min() > 1e-2
    torch.testing.assert_close(time[0], torch.tensor([0.0] * 4 + [1.0] * 4))
