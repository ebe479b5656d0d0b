"""A linear-Gaussian model in closed form, where every density is known.

z ~ N(0, I),  x = W z + m + e,  D = 2, K = 5, complete samples and noisy ones
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from c2st import two_sample_accuracy
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from ancestry_ddvi.baselines import Posterior
from ancestry_ddvi.ddvi.networks import FeatureInput, NormalDecoder
from ancestry_ddvi.ddvi.objective import dream
from ancestry_ddvi.ddvi.priors import GaussianPrior

LEVELS = (0.0, 0.8)
WEIGHT = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.8, -0.8], [0.3, 0.2], [0.0, -1.0]])
OFFSET = torch.tensor([0.5, -1.0, 0.0, 0.2, 0.0])
SIGMA = torch.tensor([0.5, 0.7, 0.4, 1.0, 0.6])
SCALE = torch.sqrt(WEIGHT.pow(2).sum(1) + SIGMA**2)
PRIOR = GaussianPrior(2)


def linear_decoder() -> NormalDecoder:
    """p(x | z), weights open to learning."""
    mean = nn.Linear(2, 5)
    decoder = NormalDecoder(2, SCALE, 1, mean=mean)
    with torch.no_grad():
        mean.weight.copy_(WEIGHT)
        mean.bias.copy_(OFFSET)
        decoder.log_sigma.copy_(SIGMA.log())
    return decoder


DECODER = linear_decoder().requires_grad_(False)


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, so that no test depends on the global stream."""
    return torch.Generator().manual_seed(seed)


P = TypeVar("P", bound=nn.Module)


def build(
    make: Callable[[FeatureInput, int, int], P], *, n_hidden: int = 24, trained: float = 0.0
) -> P:
    """The same posterior each time; `trained` > 0 moves every weight, as training might."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        posterior = make(FeatureInput(SCALE), 2, n_hidden)
        with torch.no_grad():
            for parameter in posterior.parameters():
                parameter += trained * torch.randn_like(parameter)
    return posterior


def evidence(x: Tensor, noise: Tensor) -> Tensor:
    """log p(x), exactly."""
    covariance = WEIGHT @ WEIGHT.T + torch.diag_embed(SIGMA**2 + noise.unsqueeze(-1) ** 2)
    return MultivariateNormal(OFFSET, covariance).log_prob(x)


def exact_posterior(x: Tensor, noise: Tensor) -> MultivariateNormal:
    """p(z | x) of one sample, exactly."""
    weighed = WEIGHT.T / (SIGMA**2 + noise**2)
    precision = torch.eye(2) + weighed @ WEIGHT
    mean = torch.linalg.solve(precision, weighed @ (x - OFFSET))
    return MultivariateNormal(mean, precision_matrix=precision)


def batch(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """z, x and noise from the model, complete or noisy evenly."""
    noise = torch.tensor(LEVELS)[torch.randint(2, (n,), generator=generator)]
    return *dream(PRIOR, DECODER, noise, generator), noise


def accuracy_at(posterior: Posterior, level: float) -> float:
    """C2ST of draws against the exact posterior of one sample, one sd off the centre."""
    noise, n = torch.tensor([level]), 3000
    x = DECODER.sample(torch.tensor([[1.0, -0.7]]), noise, seeded(5))
    exact = exact_posterior(x[0], noise[0])
    reference = torch.randn((n, 2), generator=seeded(7)) @ exact.scale_tril.T + exact.mean
    draws = posterior.sample(x, noise, n, seeded(6))[:, 0]
    return two_sample_accuracy(draws.numpy(), reference.numpy())
