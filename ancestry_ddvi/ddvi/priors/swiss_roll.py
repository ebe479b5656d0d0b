"""The swiss roll: an Archimedean spiral thickened by Gaussian noise.

    c(theta) = theta (cos theta, sin theta),   theta in [3 pi / 2, 9 pi / 2]
    p(z)     = 1/S int_0^S N( z; (c(theta(s)) - o) / k, sd^2 I ) ds
            := 1/M sum_j   N( z; (c(theta(s_j)) - o) / k, sd^2 I ),   s_j = (j + 1/2) S / M
    s(theta) = [ theta sqrt(1 + theta^2) + asinh theta ] / 2          arc length, up to a constant

The sum is the definition: an exact density, drawn from exactly. It is the midpoint rule for the
integral, whose error between the ends falls as exp(-2 pi^2 (k sd M / S)^2): none in float32 for
points closer than one sd. The offset o and the unit k make mean 0 and mean square 1, averaged over
both axes. Classes are pieces of equal arc length, numbered from the inside out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.priors.mixture import FixedMixturePrior
from ancestry_ddvi.errors import OptionError

FIRST, LAST = 1.5 * math.pi, 4.5 * math.pi
"""The range of theta."""

N_POINTS = 200
"""M at least: 0.75 sd from point to point."""

THICKNESS = 0.08
"""sd, a tenth of the way from one turn to the next."""


class SwissRollPrior(FixedMixturePrior):
    """A swiss roll in the plane.

    Parameters
    ----------
    n_classes
        Number of pieces, >= 1.

    Raises
    ------
    OptionError
        If n_classes < 1.
    """

    def __init__(self, n_classes: int = 5) -> None:
        if n_classes < 1:
            raise OptionError(f"a swiss roll needs at least 1 piece, not {n_classes}")
        per_class = math.ceil(N_POINTS / n_classes)
        point = _spiral(n_classes * per_class)
        point = point - point.mean(0)
        point = point * torch.sqrt((1 - THICKNESS**2) / point.square().mean())
        label = torch.arange(n_classes).repeat_interleave(per_class)
        super().__init__(point.float(), torch.tensor(THICKNESS), component_class=label)
        self.piece = label

    @property
    def cluster(self) -> Tensor:
        """(C,) long, the piece of each point: a point of the sum is no cluster of its own."""
        return self.piece


def _spiral(n: int) -> Tensor:
    """(n, 2) float64 points of the curve, equally spaced in arc length."""
    first, last = _arc_length(torch.tensor([FIRST, LAST], dtype=torch.float64))
    s = first + (last - first) * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    theta = torch.sqrt(2 * s)
    # Newton's method: s is convex in theta and the start is near, so this is far more than enough.
    for _ in range(10):
        theta = theta - (_arc_length(theta) - s) / torch.sqrt(1 + theta**2)
    return theta.unsqueeze(-1) * torch.stack([theta.cos(), theta.sin()], dim=-1)


def _arc_length(theta: Tensor) -> Tensor:
    """Length of the spiral from 0 to theta."""
    return (theta * torch.sqrt(1 + theta**2) + torch.asinh(theta)) / 2
