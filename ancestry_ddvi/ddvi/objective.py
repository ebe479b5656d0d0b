"""The terms of DDVI, each named and kept per sample, and tighter bounds from many draws.

Piriyakulkij, Wang & Kuleshov 2025, sec. 3 (all in nats, higher is better for the bound):

    reconstruction   E_q[ log p(x | z) ]
    prior_kl         KL( q(y_{0:T} | x) || r(y_{1:T} | z) p(z) )
                     = E_q[ log q(y_{0:T} | x) - log r(y_{1:T} | z) - log p(z) ]
    elbo             reconstruction - prior_kl  <=  log p(x)
    sleep            E_{p(z) p(x|z)}[ lower bound of log q(z | x) ], the diffusion loss

One Monte Carlo draw of the chain gives an unbiased estimate of the first three. The prior term is
log q - log r of that very draw, never the closed-form KL of a step.

Importance weights (Burda, Grosse & Salakhutdinov 2016), one for each of k draws of the chain:

    log_weight_i     log p(x | z_i) + log p(z_i) + log r(y_i | z_i) - log q(y_i, z_i | x)
    iw_bound(k)      E[ log 1/k sum_i weight_i ],   elbo = iw_bound(1) <= iw_bound(k) <= log p(x)
    log_marginal     the same with k so large that little is missing: log p(x) for k -> infinity
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.posterior import Chain
from ancestry_ddvi.ddvi.priors import Prior
from ancestry_ddvi.ddvi.streams import Source


class Dreamer(Protocol):
    """Any p(x | z, noise) with draws."""

    def sample(self, z: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
        """x (..., K)."""


class Likelihood(Dreamer, Protocol):
    """Any p(x | z, noise) with a density and draws."""

    def log_prob(self, x: Tensor, z: Tensor, noise: Tensor) -> Tensor:
        """log p(x | z), (...,)."""


class Posterior(Protocol):
    """q(z | x), with the auxiliary latents y that it may have: DDVI's and its rivals'."""

    @property
    def n_latent(self) -> int:
        """D."""

    def chain(self, x: Tensor, noise: Tensor, source: Source, n_draws: int | None = None) -> Chain:
        """One reparameterised draw for each row of x (n, K), noise (n,), or n_draws on an axis of
        their own before it.

        `step_kl` (..., n, k) is the Monte Carlo log q - log r of that draw, r the reverse model of
        the auxiliary latents: log p(x | z) + log p(z) - step_kl.sum(-1) bounds log p(x).
        """

    def sample(self, x: Tensor, noise: Tensor, n_draws: int, source: Source) -> Tensor:
        """(n_draws, n, D) draws of q(z | x), without gradient."""

    def sleep_loss(
        self, z: Tensor, x: Tensor, noise: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Terms (n,) that add up to minus a lower bound of log q(z | x), at pairs (z, x) drawn from
        the model; the bound is in expectation over the generator."""


@dataclass(frozen=True)
class BoundTerms:
    """One draw's estimate of the bound, or that of each of several.

    Attributes
    ----------
    reconstruction
        (..., n_samples) log p(x | z).
    step_kl
        (..., n_samples, T + 1) log q - log r of each step, see `Chain`.
    log_prior
        (..., n_samples) log p(z).
    """

    reconstruction: Tensor
    step_kl: Tensor
    log_prior: Tensor

    @property
    def prior_kl(self) -> Tensor:
        """(..., n_samples) log q - log r - log p(z)."""
        return self.step_kl.sum(-1) - self.log_prior

    @property
    def elbo(self) -> Tensor:
        """(..., n_samples) lower bound of log p(x) in expectation over draws."""
        return self.reconstruction - self.prior_kl


def bound_terms(
    prior: Prior,
    likelihood: Likelihood,
    posterior: Posterior,
    x: Tensor,
    noise: Tensor,
    source: Source,
    n_draws: int | None = None,
) -> BoundTerms:
    """Draw the chain once for each row of x (n, K), or (n_draws, n) times, and return the terms of
    the bound."""
    chain = posterior.chain(x, noise, source, n_draws)
    return BoundTerms(
        reconstruction=likelihood.log_prob(x, chain.z, noise),
        step_kl=chain.step_kl,
        log_prior=prior.log_prob(chain.z),
    )


def log_weights(
    prior: Prior,
    likelihood: Likelihood,
    posterior: Posterior,
    x: Tensor,
    noise: Tensor,
    k: int,
    source: Source,
) -> Tensor:
    """(k, n) log_weight of k draws of the chain for each row of x (n, K), noise (n,)."""
    return bound_terms(prior, likelihood, posterior, x, noise, source, k).elbo


def iw_bound(log_weight: Tensor) -> Tensor:
    """(..., n) log of the mean of k weights, from log_weight (..., k, n)."""
    return torch.logsumexp(log_weight, dim=-2) - math.log(log_weight.shape[-2])


def dream(
    prior: Prior, likelihood: Dreamer, noise: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw z ~ p(z) (n, D) and x ~ p(x | z) (n, K) with the given noise (n,)."""
    with torch.no_grad():
        z = prior.sample(len(noise), generator)
        return z, likelihood.sample(z, noise, generator)
