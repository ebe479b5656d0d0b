"""Path integral sampler (PIS; Zhang & Chen 2022): Brownian motion from 0, steered to q(u | x).

    0 = t_0 < ... < t_N = 1,   h_k = t_k - t_{k-1},   y_0 = 0,   u = y_N
    q(y_k | y_{k-1}, x) = N( y_{k-1} + h_k f_k, h_k I )                 controlled
    r(y_k | y_{k-1})    = N( y_{k-1}, h_k I ),   r(y_N) = N(0, I)       free
    f_k = g(y_{k-1}, t_{k-1}, x) / (1 - t_{k-1}) + b_k grad_u log p(x, z)
    r(y_k | y_{k-1}, u) = N( y_{k-1} + l_k (u - y_{k-1}), v_k I )       Brownian bridge
        l_k = h_k / (1 - t_{k-1}),   v_k = h_k (1 - t_k) / (1 - t_{k-1})
    log q(y_{1:N} | x) - log r(y_{1:N-1} | u)
        = sum_k [ log q(y_k | y_{k-1}, x) - log r(y_k | y_{k-1}) ] + log N(u; 0, I)

This is Girsanov's weight for the steps taken, not for the limit of small ones: the bound is a true
one at any N. The best control is the bridge's to the expected end, so g learns E[u | y_{k-1}] -
y_{k-1}. A step's variance is not learnt, whereas the best one is less than h_k as long as p(u | x)
is narrower than 1 - t_k. So the bound keeps a gap that only more steps lessen, and no draw can be
narrower than the last step; steps shrink towards the end, 1 - t_k = (1 - k/N)^2, h_N = 1/N^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ancestry_ddvi.baselines.frame import Frame, FramedPosterior
from ancestry_ddvi.ddvi.networks import FeatureInput, fourier_time, mlp
from ancestry_ddvi.ddvi.noise import normal_log_prob
from ancestry_ddvi.ddvi.objective import Likelihood
from ancestry_ddvi.ddvi.posterior import TIME_WIDTH
from ancestry_ddvi.ddvi.priors import Prior
from ancestry_ddvi.ddvi.streams import Source, normal
from ancestry_ddvi.errors import OptionError

MAX_SCORE = 100.0
"""The score is cut to +- this: far from the posterior a sharp likelihood would throw paths out."""

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(z, x, noise) -> grad_z log p(x, z), (..., D)."""


def model_score(prior: Prior, likelihood: Likelihood) -> Score:
    """grad_z log p(x, z) by automatic differentiation, itself without gradient as in the paper."""

    def score(z: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        with torch.enable_grad():
            at = z.detach().requires_grad_(True)
            log_joint = likelihood.log_prob(x.detach(), at, noise) + prior.log_prob(at)
            return torch.autograd.grad(log_joint.sum(), at)[0]

    return score


class PathIntegralPosterior(FramedPosterior):
    """q(u | x) as the end of a controlled Brownian motion.

    Parameters
    ----------
    inputs, n_latent, n_hidden
        See `FramedPosterior`.
    n_steps
        N >= 1.
    anchored
        Whether motion is in the anchor's whitened space. The paper's is in z itself, from 0 with a
        reference end of N(0, I), which suits latents of about unit scale.
    score
        grad_z log p(x, z) for the control to see, if any (see `model_score`). Not a part of the
        saved state.

    Raises
    ------
    OptionError
        If N < 1.
    """

    t: Tensor
    time: Tensor

    def __init__(
        self,
        inputs: FeatureInput,
        n_latent: int,
        n_hidden: int,
        n_steps: int = 20,
        *,
        anchored: bool = False,
        score: Score | None = None,
    ) -> None:
        super().__init__(inputs, n_latent, n_hidden, anchored=anchored)
        if n_steps < 1:
            raise OptionError(f"the path needs at least 1 step, not {n_steps}")
        self.n_steps = n_steps
        self.score = score
        n_in = n_latent + self.n_context + TIME_WIDTH
        self.control = mlp(n_in, n_latent, n_hidden, zero_output=True)
        if score is not None:
            self.gate = nn.Parameter(torch.zeros(n_steps))
        self.register_buffer("t", 1 - torch.linspace(1, 0, n_steps + 1) ** 2, False)
        self.register_buffer("time", fourier_time(n_steps, TIME_WIDTH), False)

    def step(self, y: Tensor, k: Tensor | int, frame: Frame) -> tuple[Tensor, Tensor]:
        """h_k f_k (..., D), the shift of q(y_k | y_{k-1}, x), and h_k (..., 1), its variance."""
        before = self.t[k - 1].unsqueeze(-1)
        h = self.t[k].unsqueeze(-1) - before
        time = self.time[k - 1].expand(*y.shape[:-1], TIME_WIDTH)
        pull = self.control(torch.cat([y, frame.context, time], dim=-1))
        shift = h / (1 - before) * pull
        if self.score is not None:
            score = self.score(frame.place(y), frame.x, frame.noise).unsqueeze(-2)
            whitened = (score @ frame.factor).squeeze(-2).clamp(-MAX_SCORE, MAX_SCORE)
            shift = shift + h * self.gate[k - 1].unsqueeze(-1) * whitened
        return shift, h

    def draw(self, frame: Frame, source: Source) -> tuple[Tensor, Tensor]:
        """u (..., D) and log q - log r (..., N), the last step's first."""
        y = torch.zeros_like(frame.mean)
        terms = []
        for k in range(1, self.n_steps + 1):
            shift, h = self.step(y, k, frame)
            free = h.sqrt() * normal(source, y.shape)
            # log N(free; 0, h) - log N(shift + free; 0, h)
            terms.append((shift * (free + 0.5 * shift) / h).sum(-1))
            y = y + shift + free
        terms[-1] = terms[-1] + normal_log_prob(y, torch.zeros(()))
        return y, torch.stack(terms[::-1], dim=-1)

    def sleep_terms(self, u: Tensor, frame: Frame, generator: torch.Generator) -> dict[str, Tensor]:
        """`bridge`: sum_k KL( r(y_k | y_{k-1}, u) || q(y_k | y_{k-1}, x) ) on the bridge to u.

        One step k is drawn for each pair and its term scaled by N, so the mean is unbiased. At
        k = N the bridge is a point and the term is -log q(u | y_{N-1}, x).
        """
        k = torch.randint(1, self.n_steps + 1, u.shape[:-1], generator=generator)
        before, after = self.t[k - 1].unsqueeze(-1), self.t[k].unsqueeze(-1)
        spread = (before * (1 - before)).sqrt()
        y = before * u + spread * torch.randn(u.shape, generator=generator)
        shift, h = self.step(y, k, frame)
        miss = h / (1 - before) * (u - y) - shift
        ratio = (1 - after) / (1 - before)
        inside = ratio - 1 - torch.log(torch.where(ratio > 0, ratio, 1.0))
        # No entropy of a point: -log N(miss; 0, h) is all there is of the last step.
        width = torch.where(ratio > 0, inside, torch.log(2 * math.pi * h))
        return {"bridge": 0.5 * self.n_steps * (miss**2 / h + width).sum(-1)}
