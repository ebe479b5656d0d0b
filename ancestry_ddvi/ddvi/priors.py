"""Priors p(z).

    p(z) = sum_c w_c N(z; m_c, diag(s_c^2)),   w = softmax(logits)

With learnt w, m, s this is the first form of clustering of Piriyakulkij, Wang & Kuleshov 2025: a
sample's membership is the posterior probability of the component, averaged over its draws.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ancestry_ddvi.errors import OptionError


class MixturePrior(nn.Module):
    """Gaussian mixture with diagonal covariances, learnable by gradient.

    Parameters
    ----------
    n_components
        Number of components, >= 1.
    n_latent
        D.
    generator
        Draws the first component means.
    """

    def __init__(self, n_components: int, n_latent: int, generator: torch.Generator) -> None:
        super().__init__()
        if n_components < 1:
            raise OptionError(f"a mixture needs at least 1 component, not {n_components}")
        self.logits = nn.Parameter(torch.zeros(n_components))
        self.mean = nn.Parameter(torch.randn(n_components, n_latent, generator=generator))
        self.log_sd = nn.Parameter(torch.full((n_components, n_latent), math.log(0.3)))

    def component_log_prob(self, z: Tensor) -> Tensor:
        """log w_c + log N(z; m_c, s_c), (..., n_components) for z (..., D)."""
        square = ((z.unsqueeze(-2) - self.mean) * torch.exp(-self.log_sd)) ** 2
        log_normal = -0.5 * (square + 2 * self.log_sd + math.log(2 * math.pi)).sum(-1)
        return torch.log_softmax(self.logits, dim=0) + log_normal

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, (...,) for z (..., D)."""
        return torch.logsumexp(self.component_log_prob(z), dim=-1)

    def membership(self, z: Tensor) -> Tensor:
        """p(c | z), (..., n_components)."""
        return torch.softmax(self.component_log_prob(z), dim=-1)

    @torch.no_grad()
    def sort(self) -> None:
        """Number the components by weight, largest first; p(z) stays as it is."""
        order = torch.argsort(self.logits, descending=True, stable=True)
        for parameter in (self.logits, self.mean, self.log_sd):
            parameter.copy_(parameter[order].clone())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, D) draws."""
        weight = torch.softmax(self.logits, dim=0)
        c = torch.multinomial(weight, n, replacement=True, generator=generator)
        normal = torch.randn((n, self.mean.shape[1]), generator=generator)
        return self.mean[c] + torch.exp(self.log_sd[c]) * normal


class GaussianPrior(nn.Module):
    """p(z) = N(0, I)."""

    def __init__(self, n_latent: int) -> None:
        super().__init__()
        self.n_latent = n_latent

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, (...,) for z (..., D)."""
        return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, D) draws."""
        return torch.randn((n, self.n_latent), generator=generator)
