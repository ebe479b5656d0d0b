"""The noising process r that the user chooses and the posterior learns to reverse.

With u = y_0 and a_t in (0, 1), t = 1..T (Piriyakulkij, Wang & Kuleshov 2025; Ho et al. 2020):

    r(y_t | y_{t-1})    = N( sqrt(1 - a_t) y_{t-1},  a_t I )
    r(y_t | u)          = N( sqrt(abar_t) u,  (1 - abar_t) I ),   abar_t = prod_{s<=t} (1 - a_s)
    r(y_{t-1} | y_t, u) = N( c_t u + d_t y_t,  v_t I )
        c_t = sqrt(abar_{t-1}) a_t / (1 - abar_t)
        d_t = sqrt(1 - a_t) (1 - abar_{t-1}) / (1 - abar_t)
        v_t = a_t (1 - abar_{t-1}) / (1 - abar_t)

The terminal signal-to-noise abar_T / (1 - abar_T) must be near 0 for every T on offer, else y_T
still tells u and the chain does not start from noise. abar is therefore laid out in log-SNR for the
T asked for, never cut out of a schedule made for another T.
"""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.streams import Source, normal
from ancestry_ddvi.errors import OptionError

LOG_SNR_FIRST = 4.0
LOG_SNR_LAST = -6.0
"""Log signal-to-noise of y_1 and y_T: noise of sd .13 in y_1, .0025 of u's variance in y_T."""


class NoiseSchedule(nn.Module):
    """Variance-preserving noising in T steps, equally spaced in log-SNR.

    Parameters
    ----------
    n_steps
        T >= 1.
    log_snr_last
        Log signal-to-noise of y_T; log_snr_first is that of y_1, where T > 1.

    Raises
    ------
    OptionError
        If T < 1.
    """

    alpha: Tensor
    alpha_bar: Tensor

    def __init__(
        self,
        n_steps: int,
        *,
        log_snr_first: float = LOG_SNR_FIRST,
        log_snr_last: float = LOG_SNR_LAST,
    ) -> None:
        super().__init__()
        if not isinstance(n_steps, Integral) or n_steps < 1:
            raise OptionError(f"the diffusion needs at least 1 step, not {n_steps}")
        first = log_snr_first if n_steps > 1 else log_snr_last
        log_snr = torch.linspace(first, log_snr_last, n_steps, dtype=torch.float64)
        # abar_0 = 1 in front, so that index t means step t and 0 is the latent itself.
        alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), torch.sigmoid(log_snr)])
        alpha = torch.cat([torch.zeros(1, dtype=torch.float64), 1 - alpha_bar[1:] / alpha_bar[:-1]])
        self.register_buffer("alpha_bar", alpha_bar.float())
        self.register_buffer("alpha", alpha.float())

    @property
    def n_steps(self) -> int:
        """T."""
        return len(self.alpha) - 1

    @property
    def terminal_snr(self) -> float:
        """abar_T / (1 - abar_T): what y_T still tells of u."""
        last = float(self.alpha_bar[-1])
        return last / (1 - last)

    def diffuse(self, u: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
        """Draw y_t ~ r(y_t | u) given standard normal `noise`; u, noise (..., D)."""
        alpha_bar = self._at(self.alpha_bar, t)
        return alpha_bar.sqrt() * u + (1 - alpha_bar).sqrt() * noise

    def log_step(self, y: Tensor, y_before: Tensor, t: int) -> Tensor:
        """log r(y_t | y_{t-1}), summed over the last axis."""
        alpha = self.alpha[t]
        residual = y - (1 - alpha).sqrt() * y_before
        return normal_log_prob(residual, alpha.log())

    def coefficients(self, t: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        """(c_t, d_t, v_t) of r(y_{t-1} | y_t, u); v_1 = 0, since y_0 = u."""
        alpha, now = self._at(self.alpha, t), self._at(self.alpha_bar, t)
        before = self._at(self.alpha_bar, t - 1)
        scale = 1 / (1 - now)
        return (
            before.sqrt() * alpha * scale,
            (1 - alpha).sqrt() * (1 - before) * scale,
            alpha * (1 - before) * scale,
        )

    @staticmethod
    def _at(values: Tensor, t: Tensor | int) -> Tensor:
        """Values at step t, with a trailing axis to broadcast over D where t is a tensor."""
        return values[t].unsqueeze(-1) if isinstance(t, Tensor) else values[t]


def normal_log_prob(residual: Tensor, log_variance: Tensor) -> Tensor:
    """log N(residual; 0, exp(log_variance)), summed over the last axis."""
    terms = residual**2 * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)
    return -0.5 * terms.sum(-1)


def draw_normal(mean: Tensor, log_variance: Tensor, source: Source) -> tuple[Tensor, Tensor]:
    """A reparameterised draw of N(mean, exp(log_variance)) and its log density."""
    shift = torch.exp(0.5 * log_variance) * normal(source, mean.shape)
    return mean + shift, normal_log_prob(shift, log_variance)


def normal_entropy(variance: Tensor) -> Tensor:
    """Entropy along each axis of N(., diag(variance)); 0 where the variance is."""
    positive = torch.where(variance > 0, variance, 1.0)
    return torch.where(variance > 0, 0.5 * (torch.log(positive) + 1 + math.log(2 * math.pi)), 0.0)


def normal_kl(mean: Tensor, variance: Tensor, at: Tensor, log_variance: Tensor) -> Tensor:
    """KL( N(mean, variance) || N(at, exp(log_variance)) ), summed over the last axis; where the
    variance is 0, the cross-entropy, since a point has no entropy to take off."""
    cross = -normal_log_prob(mean - at, log_variance)
    spread = 0.5 * variance * torch.exp(-log_variance)
    return cross + (spread - normal_entropy(variance)).sum(-1)
