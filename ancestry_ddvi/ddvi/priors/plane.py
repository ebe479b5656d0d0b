"""Turning the plane: a rotation keeps areas, and so densities.

R(a) = [[cos a, -sin a], [sin a, cos a]]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotate(v: Tensor, angle: Tensor) -> Tensor:
    """R(angle) v, (..., 2) for v (..., 2) and angle (...,) in radians, anticlockwise."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = v.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def equal_angles(n: int) -> Tensor:
    """(n,) angles 2 pi l / n in radians."""
    return 2 * math.pi / n * torch.arange(n)
