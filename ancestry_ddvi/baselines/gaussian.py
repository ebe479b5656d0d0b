"""Gaussian posterior with a full covariance (AEVB; Kingma & Welling 2014, Rezende et al. 2014).

    q(z | x) = N( mu(x), L(x) L(x)' ),   that is u ~ N(0, I)

No auxiliary latents, so both phases have the density itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ancestry_ddvi.baselines.frame import Frame, FramedPosterior
from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.noise import normal_log_prob
from ancestry_ddvi.ddvi.streams import Source, normal


class GaussianPosterior(FramedPosterior):
    """The anchor alone: what every other posterior is compared with.

    Parameters
    ----------
    inputs, n_latent, n_hidden
        See `FramedPosterior`.
    """

    def __init__(self, inputs: FeatureInput, n_latent: int, n_hidden: int) -> None:
        super().__init__(inputs, n_latent, n_hidden, anchored=True)

    def draw(self, frame: Frame, source: Source) -> tuple[Tensor, Tensor]:
        """u (..., D) and log N(u; 0, I) (..., 1)."""
        u = normal(source, frame.mean.shape)
        return u, normal_log_prob(u, torch.zeros(())).unsqueeze(-1)

    def sleep_terms(self, u: Tensor, frame: Frame, generator: torch.Generator) -> dict[str, Tensor]:
        """`density`: -log N(u; 0, I), exact."""
        return {"density": -normal_log_prob(u, torch.zeros(()))}
