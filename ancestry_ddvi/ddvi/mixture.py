"""Gaussian mixtures that a diffusion can be run backwards from in closed form.

    p(u)   = sum_c w_c N(u; m_c, Q_c diag(l_c) Q_c')
    r(y_t) = sum_c w_c N(y_t; sqrt(abar_t) m_c, Q_c diag(P_ct) Q_c')
    P_ct   = abar_t l_c + 1 - abar_t

The noising process of `noise` adds isotropic noise, so a component keeps its axes Q_c, and each
axis is noised by itself. With e = Q_c'(y_t - sqrt(abar_t) m_c), its coordinates in component c,

    r(c | y_t)       ~ w_c N(e; 0, P_ct)
    r(y_{t-1} | y_t, c) = N( sqrt(abar_{t-1}) m_c + Q_c (sqrt(1 - a_t) P_c,t-1 / P_ct  e),
                             Q_c diag(a_t P_c,t-1 / P_ct) Q_c' )

and r(y_{t-1} | y_t) is again a mixture, whose draws and density are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.noise import NoiseSchedule
from ancestry_ddvi.ddvi.streams import Source, normal, uniform

NEGLIGIBLE = 1e-6
"""Components of less weight than this are given none."""


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture for each of n samples; leading axes broadcast.

    Attributes
    ----------
    log_weight
        (..., n, M), normalised.
    mean
        (..., n, M, D).
    axes
        (n, M, D, D), orthonormal columns.
    variance
        (..., n, M, D) along the axes.
    """

    log_weight: Tensor
    mean: Tensor
    axes: Tensor
    variance: Tensor

    @classmethod
    def of_covariances(
        cls, log_weight: Tensor, mean: Tensor, covariance: Tensor
    ) -> GaussianMixture:
        """From covariances (n, M, D, D) and weights of any sum; the heaviest component first."""
        log_weight = torch.log_softmax(log_weight, dim=-1)
        log_weight = log_weight.masked_fill(log_weight < math.log(NEGLIGIBLE), -math.inf)
        log_weight, order = torch.log_softmax(log_weight, dim=-1).sort(dim=-1, descending=True)
        # As many as the sample with most of them needs: the others have nothing there.
        n_used = int(torch.isfinite(log_weight).sum(-1).max())
        order = order[..., :n_used]
        mean = torch.take_along_dim(mean, order.unsqueeze(-1), dim=-2)
        covariance = torch.take_along_dim(covariance, order[..., None, None], dim=-3)
        variance, axes = torch.linalg.eigh(covariance)
        return cls(log_weight[..., :n_used], mean, axes, variance.clamp(min=1e-12))

    @classmethod
    def cat(cls, parts: list[GaussianMixture]) -> GaussianMixture:
        """Mixtures of several samples, one after the other."""
        n_most = max(part.log_weight.shape[-1] for part in parts)

        def filled(values: Tensor, *, weight: bool) -> Tensor:
            # What is missing is the first component once more, with no weight.
            fill = values[:, :1].expand(-1, n_most - values.shape[1], *values.shape[2:])
            return torch.cat([values, torch.full_like(fill, -math.inf) if weight else fill], dim=1)

        columns = {
            name: torch.cat(
                [filled(vars(part)[name], weight=name == "log_weight") for part in parts]
            )
            for name in vars(parts[0])
        }
        return cls(**columns)

    def take(self, rows: Tensor) -> GaussianMixture:
        """Those of some samples."""
        return GaussianMixture(*(values[rows] for values in vars(self).values()))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (n, D) and Cholesky factor (n, D, D) of the covariance."""
        weight = self.log_weight.exp().unsqueeze(-1)
        mean = (weight * self.mean).sum(-2)
        apart = self.mean - mean.unsqueeze(-2)
        within = (self.axes * (weight * self.variance).unsqueeze(-2)) @ self.axes.mT
        covariance = within.sum(-3) + (weight * apart).mT @ apart
        return mean, torch.linalg.cholesky(covariance)

    def whitened(self, mean: Tensor, factor: Tensor) -> GaussianMixture:
        """The same mixture over u = L^-1 (z - mu), mu (n, D), L (n, D, D)."""
        inverse = torch.linalg.solve_triangular(
            factor, torch.eye(mean.shape[-1], dtype=factor.dtype).expand_as(factor), upper=False
        )
        moved = (self.mean - mean.unsqueeze(-2)) @ inverse.mT
        half = inverse.unsqueeze(-3) @ self.axes * self.variance.sqrt().unsqueeze(-2)
        variance, axes = torch.linalg.eigh(half @ half.mT)
        return GaussianMixture(self.log_weight, moved, axes, variance.clamp(min=1e-12))

    def noised(self, schedule: NoiseSchedule, t: int) -> GaussianMixture:
        """r(y_t)."""
        alpha_bar = schedule.alpha_bar[t]
        variance = alpha_bar * self.variance + (1 - alpha_bar)
        return GaussianMixture(self.log_weight, alpha_bar.sqrt() * self.mean, self.axes, variance)

    def reverse(self, schedule: NoiseSchedule, y: Tensor, t: Tensor | int) -> GaussianMixture:
        """r(y_{t-1} | y_t) for y (..., n, D) and t an int or (..., n)."""
        if isinstance(t, Tensor):
            t = t.unsqueeze(-1)  # the axis of components; that of D follows
        now, before = schedule._at(schedule.alpha_bar, t), schedule._at(schedule.alpha_bar, t - 1)
        alpha = schedule._at(schedule.alpha, t)
        # In this order: 1 + l rounds a small l away.
        p_now = now * self.variance + (1 - now)
        p_before = before * self.variance + (1 - before)
        e = self._coordinates(y, now.sqrt() * self.mean)
        log_weight = torch.log_softmax(self.log_weight + _log_normal(e, p_now), dim=-1)
        gain = (1 - alpha).sqrt() * p_before / p_now
        mean = before.sqrt() * self.mean + _turn(self.axes, gain * e)
        return GaussianMixture(log_weight, mean, self.axes, alpha * p_before / p_now)

    def shifted(self, shift: Tensor, log_scale: Tensor) -> GaussianMixture:
        """All components moved by `shift` (..., n, D), variances e^log_scale (..., n, 1) times as
        large."""
        return GaussianMixture(
            self.log_weight,
            self.mean + shift.unsqueeze(-2),
            self.axes,
            self.variance * log_scale.exp().unsqueeze(-2),
        )

    def log_prob(self, y: Tensor) -> Tensor:
        """log density in nats, (..., n) for y (..., n, D)."""
        e = self._coordinates(y, self.mean)
        return torch.logsumexp(self.log_weight + _log_normal(e, self.variance), dim=-1)

    def sample(self, shape: torch.Size, source: Source) -> Tensor:
        """(..., n, D) draws, `shape` (..., n)."""
        weight = self.log_weight.exp().expand(*shape, -1)
        # Of the sum that rounding makes of the weights: one of no weight is never drawn.
        total = weight.cumsum(-1)
        passed = total[..., :-1] <= uniform(source, shape).unsqueeze(-1) * total[..., -1:]
        c = passed.sum(-1, keepdim=True)
        n_latent = self.mean.shape[-1]
        eps = normal(source, (*shape, n_latent))

        def of(values: Tensor) -> Tensor:
            values = values.expand(*shape, *values.shape[-2:])
            return torch.take_along_dim(values, c.unsqueeze(-1), dim=-2).squeeze(-2)

        axes = self.axes.flatten(-2).expand(*shape, -1, -1)
        chosen = torch.take_along_dim(axes, c.unsqueeze(-1), dim=-2)
        chosen = chosen.reshape(*shape, n_latent, n_latent)
        # By the symmetric root Q l^(1/2) Q', which rounding does not turn where axes are as wide as
        # each other, and so draws of a sample stay the same in any company.
        along = (chosen.mT @ eps.to(chosen.dtype).unsqueeze(-1)).squeeze(-1)
        return of(self.mean) + _turn(chosen, of(self.variance).sqrt() * along)

    def _coordinates(self, y: Tensor, mean: Tensor) -> Tensor:
        """Q_c'(y - mean_c), (..., n, M, D)."""
        apart = y.unsqueeze(-2) - mean
        return _added(apart[..., i : i + 1] * self.axes[..., i, :] for i in range(y.shape[-1]))


def _turn(axes: Tensor, e: Tensor) -> Tensor:
    """Q e, (..., D)."""
    return _added(axes[..., i] * e[..., i : i + 1] for i in range(e.shape[-1]))


def _log_normal(e: Tensor, variance: Tensor) -> Tensor:
    """log N(e; 0, diag(variance)), summed over the last axis."""
    log_scale = (variance.log() + math.log(2 * math.pi)).sum(-1)
    return -0.5 * (_added((e**2 / variance).unbind(-1)) + log_scale)


def _added(parts: Iterable[Tensor]) -> Tensor:
    """Their sum. Latents are few: one addition each beats a reduction over so short an axis, and
    one matrix product for each draw, sample and component, by far."""
    return reduce(torch.add, parts)
