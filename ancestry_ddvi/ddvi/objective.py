"""The three terms of DDVI, each named and kept per sample.

Piriyakulkij, Wang & Kuleshov 2025, sec. 3 (all in nats, higher is better for the bound):

    reconstruction   E_q[ log p(x | z) ]
    prior_kl         KL( q(y_{0:T} | x) || r(y_{1:T} | z) p(z) )
                     = E_q[ log q(y_{0:T} | x) - log r(y_{1:T} | z) - log p(z) ]
    elbo             reconstruction - prior_kl  <=  log p(x)
    sleep            E_{p(z) p(x|z)}[ lower bound of log q(z | x) ], the diffusion loss

One Monte Carlo draw of the chain gives an unbiased estimate of the first three. The prior term is
log q - log r of that very draw, never the closed-form KL of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.posterior import Chain, DiffusionPosterior
from ancestry_ddvi.ddvi.priors import Prior


class Likelihood(Protocol):
    """Any p(x | z, noise) with a density and draws."""

    def log_prob(self, x: Tensor, z: Tensor, noise: Tensor) -> Tensor:
        """log p(x | z), (...,)."""

    def sample(self, z: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
        """x (..., K)."""


@dataclass(frozen=True)
class BoundTerms:
    """One draw's estimate of the bound, (n_samples,) each."""

    reconstruction: Tensor
    prior_kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """Lower bound of log p(x) in expectation over draws."""
        return self.reconstruction - self.prior_kl


def bound_terms(
    prior: Prior,
    likelihood: Likelihood,
    posterior: DiffusionPosterior,
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
        prior_kl=chain.step_kl.sum(-1) - prior.log_prob(chain.z),
    )


def dream(
    prior: Prior, likelihood: Likelihood, noise: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw z ~ p(z) (n, D) and x ~ p(x | z) (n, K) with the given noise (n,)."""
    with torch.no_grad():
        z = prior.sample(len(noise), generator)
        return z, likelihood.sample(z, noise, generator)
