"""The standard normal, whole or divided into angular sectors.

    p(z)     = N(z; 0, I)
    p(l | z) = softmax_l( k e_l'z ),   e_l = (cos a_l, sin a_l),  a_l = 2 pi l / n_classes
    k        = 1 / (2 b sin(pi / n_classes))

Sectors meet in a border that is blurred over a distance b: the logit between two neighbours is the
distance from their border over b. A sharp border would make log p(l, z) minus infinity outside of
l, and a posterior that starts there could not be trained. All p(l) are equal by symmetry, and
p(l, z) = p(z) p(l | z) sums to p(z) whatever b.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.priors.base import ComponentPrior, NormalComponents
from ancestry_ddvi.ddvi.priors.plane import equal_angles, rotate
from ancestry_ddvi.errors import OptionError

BORDER = 0.1
"""b, small beside the unit width of p(z)."""


class GaussianPrior(ComponentPrior):
    """p(z) = N(0, I).

    Parameters
    ----------
    n_latent
        D.
    n_classes
        Number of sectors, >= 1; more than 1 only where D = 2.

    Raises
    ------
    OptionError
        If n_classes < 1, or sectors are asked for outside the plane.
    """

    angle: Tensor

    def __init__(self, n_latent: int, n_classes: int = 1) -> None:
        if n_classes < 1:
            raise OptionError(f"a Gaussian prior needs at least 1 class, not {n_classes}")
        check_sectors(n_latent, n_classes)
        super().__init__(n_latent, n_classes)
        self.register_buffer("logits", torch.zeros(n_classes), persistent=False)
        self.register_buffer("angle", equal_angles(n_classes), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, (...,) for z (..., D)."""
        return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)

    def component_log_prob(self, z: Tensor) -> Tensor:
        """log p(c, z), (..., n_components) for z (..., D)."""
        return self.log_prob(z).unsqueeze(-1) + self._log_sector(z)

    def normal_components(self) -> NormalComponents | None:
        """N(0, I) where it is whole."""
        if self.n_components > 1:
            return None
        one = self.logits.new_ones(1, self.n_latent)
        return NormalComponents(self.logits, 0 * one, one)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, D) draws."""
        return torch.randn((n, self.n_latent), generator=generator)

    def sample_component(self, c: Tensor, generator: torch.Generator) -> Tensor:
        """(n, D) draws of p(z | c)."""
        z = self.sample(len(c), generator)
        if self.n_components == 1:
            return z
        # The sectors are turned copies of each other: a draw that fell into another one is turned
        # into c, and none is thrown away.
        fell = torch.multinomial(self._log_sector(z).exp(), 1, generator=generator).squeeze(-1)
        return rotate(z, self.angle[c] - self.angle[fell])

    def _log_sector(self, z: Tensor) -> Tensor:
        """log p(c | z) of each sector, (..., n_components)."""
        if self.n_components == 1:
            return torch.zeros(*z.shape[:-1], 1)
        direction = torch.stack([self.angle.cos(), self.angle.sin()])
        sharpness = 1 / (2 * BORDER * math.sin(math.pi / self.n_components))
        return torch.log_softmax(sharpness * (z @ direction), dim=-1)


def check_sectors(n_latent: int, n_classes: int) -> None:
    """Raise OptionError if there are sectors outside the plane."""
    if n_classes > 1 and n_latent != 2:
        raise OptionError(
            f"{n_classes} angular sectors need 2 latents, not {n_latent}; use 1 class or a mixture"
        )
