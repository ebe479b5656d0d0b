"""The square: four segments thickened by Gaussian noise.

    v = R(-l pi / 2) z = (n, t)                      side l is the segment n = a, |t| <= a
    p(z | l) = N(n; a, s^2) [ Phi((t + a) / s) - Phi((t - a) / s) ] / (2 a)
             = N(n; a, s^2) Phi((a - |t|) / s) / (2 a),      p(l) = 1 / 4

Uniform on the segment plus N(0, s^2 I), Phi the normal distribution function. The second form
drops Phi(-(a + |t|) / s), less than e^-70 of what stays, far below rounding. 2 a^2 / 3 + s^2 = 1
makes the mean square 1 per axis.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.noise import normal_log_prob
from ancestry_ddvi.ddvi.priors.base import ComponentPrior
from ancestry_ddvi.ddvi.priors.plane import equal_angles, rotate

THICKNESS = 0.1
"""s."""

HALF_SIDE = math.sqrt(1.5 * (1 - THICKNESS**2))
"""a."""


class SquarePrior(ComponentPrior):
    """The outline of a square in the plane; right, upper, left and lower side are its classes."""

    angle: Tensor

    def __init__(self) -> None:
        super().__init__(2, 4)
        self.register_buffer("logits", torch.zeros(4), persistent=False)
        self.register_buffer("angle", equal_angles(4), persistent=False)

    def component_log_prob(self, z: Tensor) -> Tensor:
        """log p(l) + log p(z | l), (..., 4) for z (..., 2)."""
        v = rotate(z.unsqueeze(-2), -self.angle)
        log_variance = torch.full((1,), 2 * math.log(THICKNESS))
        across = normal_log_prob(v[..., :1] - HALF_SIDE, log_variance)
        along = log_normal_cdf((HALF_SIDE - v[..., 1].abs()) / THICKNESS)
        return self.log_weight() + across + along - math.log(2 * HALF_SIDE)

    def sample_component(self, c: Tensor, generator: torch.Generator) -> Tensor:
        """(n, 2) draws of side c."""
        along = HALF_SIDE * (2 * torch.rand(len(c), generator=generator) - 1)
        on_side = torch.stack([torch.full_like(along, HALF_SIDE), along], dim=-1)
        normal = torch.randn((len(c), 2), generator=generator)
        return rotate(on_side + THICKNESS * normal, self.angle[c])


def log_normal_cdf(u: Tensor) -> Tensor:
    """log Phi(u), with a gradient that stays right far in the lower tail.

    The gradient of torch.special.log_ndtr is exp(-(log Phi + u^2 / 2)), a difference of two huge
    numbers: in float32 it is lost from u = -1e4 on.
    """
    below, above = u.clamp(max=0), u.clamp(min=0)
    lower_tail = torch.log(torch.special.erfcx(-below / math.sqrt(2)) / 2) - below**2 / 2
    return torch.where(u < 0, lower_tail, torch.log1p(-torch.erfc(above / math.sqrt(2)) / 2))
