"""The pinwheel: a ring of blobs, each drawn out along its radius, and the plane twisted.

    v ~ N( (m, 0), diag(s_r^2, s_t^2) )                       one arm, before it is turned
    z = R( a_l + f(|v|) ) v,      a_l = 2 pi l / n_arms       arm l
    f(rho) = tanh( (rho^2 / m^2 - 1) / 2 )                    the twist, radians
    p(z | l) = N( R( -a_l - f(|z|) ) z; (m, 0), diag(s_r^2, s_t^2) ),   p(l) = 1 / n_arms

|z| = |v|, and a turn by an angle that depends on the radius alone keeps areas: the Jacobian is 1
and the density exact. The usual pinwheel (Johnson et al. 2016, SVAE) twists by exp of the unturned
first coordinate, which is neither invertible nor area-preserving. The twist is smooth at the centre
and levels off outside, so that far away the density falls outwards along every ray.

m^2 + s_r^2 + s_t^2 = 2 makes the mean square 1 per axis.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.noise import normal_log_prob
from ancestry_ddvi.ddvi.priors.base import ComponentPrior
from ancestry_ddvi.ddvi.priors.plane import equal_angles, rotate
from ancestry_ddvi.errors import OptionError

RADIAL = 0.3
TANGENTIAL = 0.1
"""s_r / m and s_t / m, as in the usual pinwheel of 5 arms."""


class PinwheelPrior(ComponentPrior):
    """A pinwheel in the plane; the arms are its classes.

    Parameters
    ----------
    n_arms
        Number of arms, >= 1; more than 5 are thinner, so that they stay apart.

    Raises
    ------
    OptionError
        If n_arms < 1.
    """

    angle: Tensor
    centre: Tensor
    sd: Tensor

    def __init__(self, n_arms: int = 5) -> None:
        if n_arms < 1:
            raise OptionError(f"a pinwheel needs at least 1 arm, not {n_arms}")
        super().__init__(2, n_arms)
        tangential = TANGENTIAL * min(1.0, 5 / n_arms)
        m = math.sqrt(2 / (1 + RADIAL**2 + tangential**2))
        self.register_buffer("logits", torch.zeros(n_arms), persistent=False)
        self.register_buffer("angle", equal_angles(n_arms), persistent=False)
        self.register_buffer("centre", torch.tensor([m, 0.0]), persistent=False)
        self.register_buffer("sd", m * torch.tensor([RADIAL, tangential]), persistent=False)

    def component_log_prob(self, z: Tensor) -> Tensor:
        """log p(l) + log p(z | l), (..., n_arms) for z (..., 2)."""
        turn = self.angle + self._twist(z).unsqueeze(-1)
        v = rotate(z.unsqueeze(-2), -turn)
        return self.log_weight() + normal_log_prob(v - self.centre, 2 * self.sd.log())

    def sample_component(self, c: Tensor, generator: torch.Generator) -> Tensor:
        """(n, 2) draws of arm c."""
        v = self.centre + self.sd * torch.randn((len(c), 2), generator=generator)
        return rotate(v, self.angle[c] + self._twist(v))

    def _twist(self, v: Tensor) -> Tensor:
        """f(|v|), (...,)."""
        return torch.tanh((v.square().sum(-1) / self.centre[0] ** 2 - 1) / 2)
