"""Hierarchical posterior (H-AEVB; Ranganath et al. 2016, Maaloe et al. 2016).

    q(y | x)    = N( delta(x), e^{eta(x)} )
    q(u | y, x) = N( s y + g(y, x), (1 - s^2) e^{gamma(y, x)} ),     s^2 = 1/2
    r(y | u, x) = N( s u + h(u, x), (1 - s^2) e^{kappa(u, x)} )
    log q(u | x) >= E_r[ log q(y | x) + log q(u | y, x) - log r(y | u, x) ]

A mixture of Gaussians over y. DDVI with T = 1 but for r, which here is learnt and there is chosen.
All networks open at 0, where u ~ N(0, I) and r is the exact reverse: training starts at the anchor
and loses nothing to it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ancestry_ddvi.baselines.frame import Frame, FramedPosterior
from ancestry_ddvi.ddvi.networks import FeatureInput, mlp
from ancestry_ddvi.ddvi.noise import draw_normal, normal_log_prob
from ancestry_ddvi.ddvi.posterior import bounded

S = math.sqrt(0.5)
"""Correlation of u and y at the start: half of u's variance is left for q(u | y, x) to shape."""


class HierarchicalPosterior(FramedPosterior):
    """q(u | x) = int q(y | x) q(u | y, x) dy with y (D,).

    Parameters
    ----------
    inputs, n_latent, n_hidden, anchored
        See `FramedPosterior`.
    """

    def __init__(
        self, inputs: FeatureInput, n_latent: int, n_hidden: int, *, anchored: bool = True
    ) -> None:
        super().__init__(inputs, n_latent, n_hidden, anchored=anchored)
        n_in = self.n_context
        self.start = mlp(n_in, 2 * n_latent, n_hidden, zero_output=True)
        self.refine = mlp(n_in + n_latent, 2 * n_latent, n_hidden, zero_output=True)
        self.reverse = mlp(n_in + n_latent, 2 * n_latent, n_hidden, zero_output=True)

    def start_step(self, frame: Frame) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(y | x), both (..., D)."""
        shift, log_scale = self.start(frame.context).chunk(2, dim=-1)
        return shift, bounded(log_scale)

    def refine_step(self, y: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(u | y, x), both (..., D)."""
        shift, log_scale = self.refine(torch.cat([y, frame.context], dim=-1)).chunk(2, dim=-1)
        return S * y + shift, math.log(1 - S**2) + bounded(log_scale)

    def reverse_step(self, u: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of r(y | u, x), both (..., D)."""
        shift, log_scale = self.reverse(torch.cat([u, frame.context], dim=-1)).chunk(2, dim=-1)
        return S * u + shift, math.log(1 - S**2) + bounded(log_scale)

    def draw(self, frame: Frame, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """u (..., D); log q(u | y, x) - log r(y | u, x) and log q(y | x), (..., 2)."""
        y, log_start = draw_normal(*self.start_step(frame), generator)
        u, log_refine = draw_normal(*self.refine_step(y, frame), generator)
        at, log_variance = self.reverse_step(u, frame)
        log_reverse = normal_log_prob(y - at, log_variance)
        return u, torch.stack([log_refine - log_reverse, log_start], dim=-1)

    def sleep_terms(self, u: Tensor, frame: Frame, generator: torch.Generator) -> dict[str, Tensor]:
        """At y ~ r(y | u, x): `refinement` -log q(u | y, x), and `start` log r - log q(y | x)."""
        y, log_reverse = draw_normal(*self.reverse_step(u, frame), generator)
        at, log_variance = self.refine_step(y, frame)
        refinement = -normal_log_prob(u - at, log_variance)
        at, log_variance = self.start_step(frame)
        return {
            "refinement": refinement,
            "start": log_reverse - normal_log_prob(y - at, log_variance),
        }
