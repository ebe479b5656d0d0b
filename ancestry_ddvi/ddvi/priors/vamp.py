"""The variational mixture of posteriors (VampPrior).

    p(z) = 1/C sum_c N( z; mu(u_c), L(u_c) L(u_c)' )

mu, L are the encoder of the posterior itself and u_c are learnt pseudo-inputs, points of feature
space (Tomczak & Welling 2018): the prior is what the posterior says of C samples that stand for all
of them. A pseudo-input has nothing missing, its noise is 0.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.noise import normal_log_prob
from ancestry_ddvi.ddvi.posterior import log_det
from ancestry_ddvi.ddvi.priors.base import ComponentPrior


class Encoder(Protocol):
    """Any Gaussian q(z | x, noise), such as `GaussianAnchor`."""

    @property
    def n_latent(self) -> int:
        """D."""

    def __call__(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """mu (..., D) and the Cholesky factor L (..., D, D) for x (..., K) and noise (...,)."""


class VampPrior(ComponentPrior):
    """Mixture of the encoder's posteriors at learnt pseudo-inputs.

    Parameters
    ----------
    encoder
        q(z | x). Referred to and not owned: its weights stay the posterior's, and are neither
        registered nor saved a second time.
    pseudo_input
        (C, K) where the pseudo-inputs start, e.g. rows of the training data.
    component_class
        (C,) long, see `ComponentPrior`.

    Raises
    ------
    OptionError
        If C < 1 or the assignment to classes is at fault.
    """

    def __init__(
        self, encoder: Encoder, pseudo_input: Tensor, component_class: Tensor | None = None
    ) -> None:
        super().__init__(encoder.n_latent, len(pseudo_input), component_class)
        # A tuple, because nn.Module would adopt a bare module.
        self._encoder = (encoder,)
        self.pseudo_input = nn.Parameter(pseudo_input.clone())
        self.register_buffer("logits", torch.zeros(len(pseudo_input)), persistent=False)

    @property
    def encoder(self) -> Encoder:
        """q(z | x)."""
        return self._encoder[0]

    def components(self) -> tuple[Tensor, Tensor]:
        """mu (C, D) and L (C, D, D)."""
        return self.encoder(self.pseudo_input, torch.zeros(self.n_components))

    def component_log_prob(self, z: Tensor) -> Tensor:
        """log 1/C + log q(z | u_c), (..., C) for z (..., D)."""
        mean, factor = self.components()
        # One inverse for each component, not one solution for each component and each z.
        inverse = torch.linalg.solve_triangular(
            factor, torch.eye(self.n_latent).to(factor), upper=False
        )
        whitened = torch.einsum("cij,...cj->...ci", inverse, z.unsqueeze(-2) - mean)
        log_normal = normal_log_prob(whitened, torch.zeros(())) - log_det(factor)
        return self.log_weight() + log_normal

    def sample_component(self, c: Tensor, generator: torch.Generator) -> Tensor:
        """(n, D) draws of q(z | u_c)."""
        mean, factor = self.components()
        normal = torch.randn((len(c), self.n_latent, 1), generator=generator)
        return mean[c] + (factor[c] @ normal).squeeze(-1)
