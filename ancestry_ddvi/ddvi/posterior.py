"""The variational posterior: a diffusion anchored at a Gaussian.

    anchor        N( mu(x), L(x) L(x)' ),  L lower triangular
    whitened      u = L^-1 (z - mu),  so that p(u | x) is near N(0, I) whatever x
    q(y_T | x)    = N( delta(x), e^{eta(x)} )
    q(y_{t-1} | y_t, x) = N( c_t u_hat + d_t y_t,  e^{gamma_t(x, y_t)} w_t )
    u_hat         = sqrt(abar_t) y_t + g(y_t, t, x)
    w_t           = v_t + c_t^2 (1 - abar_t)
    z             = mu + L y_0

The noising process r runs in u and so sees x, which the bound allows: it holds for any r given z
and x (Piriyakulkij, Wang & Kuleshov 2025). All outputs of the denoiser start at 0. For u ~ N(0, I)
the choice u_hat = sqrt(abar_t) y_t with variance w_t is the exact reverse of r, hence training
starts at the Gaussian anchor itself and every step away from it is a gain: skew, curvature, several
modes.

The last step has a variance too, w_1 > 0: a delta there would have no density, and the entropy of q
is part of the bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.networks import FeatureInput, fourier_time, mlp
from ancestry_ddvi.ddvi.noise import NoiseSchedule, draw_normal, normal_kl, normal_log_prob
from ancestry_ddvi.ddvi.streams import Source

MAX_LOG_VARIANCE = 4.0
"""Learnt log-variances move within +- this of their start: wide, but never a runaway."""

TIME_WIDTH = 8


def bounded(raw: Tensor) -> Tensor:
    """Identity near 0, saturating at +- MAX_LOG_VARIANCE."""
    return MAX_LOG_VARIANCE * torch.tanh(raw / MAX_LOG_VARIANCE)


class GaussianAnchor(nn.Module):
    """N(mu(x), L L'): a linear map of the features plus a network, and a full Cholesky factor.

    Parameters
    ----------
    inputs
        Feature scaling, shared by all networks that see x.
    n_latent, n_hidden
        D and the width of the hidden layers.
    """

    def __init__(self, inputs: FeatureInput, n_latent: int, n_hidden: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.n_latent = n_latent
        n_below = n_latent * (n_latent - 1) // 2
        self.network = mlp(inputs.n_out, 2 * n_latent + n_below, n_hidden)
        # The first D components are the start: the map opens as the PCA everybody knows.
        self.linear = nn.Linear(inputs.n_out, n_latent, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(n_latent, inputs.n_out))
        self.register_buffer("below", torch.tril_indices(n_latent, n_latent, -1), False)

    below: Tensor

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """mu (..., D) and L (..., D, D)."""
        h = self.inputs(x, noise)
        mean, log_diagonal, below = self.network(h).split(
            [self.n_latent, self.n_latent, self.below.shape[1]], dim=-1
        )
        factor = torch.diag_embed(torch.exp(bounded(log_diagonal) - 1.0))
        factor[..., self.below[0], self.below[1]] = below
        return mean + self.linear(h), factor

    def log_prob(self, z: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        """log N(z; mu(x), L L') in nats."""
        mean, factor = self(x, noise)
        return normal_log_prob(whiten(z, mean, factor), torch.zeros(())) - log_det(factor)


def whiten(z: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """u = L^-1 (z - mu)."""
    u: Tensor = torch.linalg.solve_triangular(factor, (z - mean).unsqueeze(-1), upper=False)
    return u.squeeze(-1)


def unwhiten(u: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """z = mu + L u."""
    return mean + (factor @ u.unsqueeze(-1)).squeeze(-1)


def log_det(factor: Tensor) -> Tensor:
    """log |L| of a triangular factor with positive diagonal."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@dataclass(frozen=True)
class Chain:
    """One draw of q(y_{0:T} | x) with what the bound needs of it, all in nats and per sample.

    Attributes
    ----------
    z
        (..., D) the latent, mu + L y_0.
    step_kl
        (..., T + 1) Monte Carlo log q - log r of this very draw: entry t-1 for
        log q(y_{t-1} | y_t, x) - log r(y_t | y_{t-1}), the last for log q(y_T | x); the whitening's
        -log|L| is in the first. The closed-form KL of a step would be wrong, because z itself
        depends on y_{t-1}.
    """

    z: Tensor
    step_kl: Tensor


class DiffusionPosterior(nn.Module):
    """q(y_{0:T} | x), see the module's equations.

    Parameters
    ----------
    anchor
        The Gaussian that the diffusion starts from.
    n_steps
        T.
    n_hidden
        Width of the denoiser.
    """

    def __init__(self, anchor: GaussianAnchor, n_steps: int, n_hidden: int) -> None:
        super().__init__()
        self.anchor = anchor
        self.schedule = NoiseSchedule(n_steps)
        d = anchor.n_latent
        n_in = anchor.inputs.n_out
        self.denoiser = mlp(n_in + 2 * d + TIME_WIDTH, 2 * d, n_hidden, zero_output=True)
        self.start = mlp(n_in + d, 2 * d, n_hidden, zero_output=True)
        self.register_buffer("time", fourier_time(n_steps, TIME_WIDTH), False)

    time: Tensor

    @property
    def n_latent(self) -> int:
        """D."""
        return self.anchor.n_latent

    def context(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Anchor (mu, L) and what the denoiser sees of x: its features and where the anchor is."""
        mean, factor = self.anchor(x, noise)
        return mean, factor, torch.cat([self.anchor.inputs(x, noise), mean], dim=-1)

    def reverse_step(self, y: Tensor, t: Tensor | int, context: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(y_{t-1} | y_t, x), both (..., D)."""
        time = self.time[t].expand(*y.shape[:-1], TIME_WIDTH)
        shift, log_scale = self.denoiser(torch.cat([y, context, time], dim=-1)).chunk(2, dim=-1)
        c, d, v = self.schedule.coefficients(t)
        alpha_bar = self.schedule._at(self.schedule.alpha_bar, t)
        u_hat = alpha_bar.sqrt() * y + shift
        log_variance = torch.log(v + c**2 * (1 - alpha_bar)) + bounded(log_scale)
        return c * u_hat + d * y, log_variance

    def start_step(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(y_T | x), both (..., D)."""
        shift, log_scale = self.start(context).chunk(2, dim=-1)
        return shift, bounded(log_scale)

    def chain(self, x: Tensor, noise: Tensor, source: Source, n_draws: int | None = None) -> Chain:
        """Draw y_T..y_0 once for each row of x (n, K), or (n_draws, n) times, with the terms of the
        bound."""
        mean, factor, context = self.context(x, noise)
        if n_draws is not None:
            context = context.expand(n_draws, *context.shape)
        at, log_variance = self.start_step(context)
        y, log_q = draw_normal(at, log_variance, source)
        terms = [log_q]
        for t in range(self.schedule.n_steps, 0, -1):
            before, log_q = draw_normal(*self.reverse_step(y, t, context), source)
            terms.append(log_q - self.schedule.log_step(y, before, t))
            y = before
        terms[-1] = terms[-1] - log_det(factor)
        z = unwhiten(y, mean, factor)
        return Chain(z, torch.stack(terms[::-1], dim=-1))

    @torch.no_grad()
    def sample(self, x: Tensor, noise: Tensor, n_draws: int, source: Source) -> Tensor:
        """(n_draws, n_samples, D) draws of q(z | x) for x (n_samples, K)."""
        mean, factor, context = self.context(x, noise)
        context = context.expand(n_draws, *context.shape)
        y, _ = draw_normal(*self.start_step(context), source)
        for t in range(self.schedule.n_steps, 0, -1):
            y, _ = draw_normal(*self.reverse_step(y, t, context), source)
        return unwhiten(y, mean, factor)

    def sleep_loss(
        self, z: Tensor, x: Tensor, noise: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Minus the lower bound of log q(u | x) for pairs (z, x) drawn from the model, u the
        whitened z: log q(z | x) is less by log |L|, which has no gradient here.

        Piriyakulkij et al. 2025, the third term of the objective: one step t is drawn for each
        pair and its Kullback-Leibler term scaled by T, so the mean is unbiased. Here the closed
        form is right, because r(. | u) does not depend on q.

        Returns
        -------
        `denoising` (n,): T times KL( r(y_{t-1} | y_t, u) || q ), at t = 1 the negative
        log-likelihood of u; `terminal` (n,): KL( r(y_T | u) || q(y_T | x) ); `anchor` (n,): the
        anchor's own -log N(z; mu, L L'), which trains the anchor and only the anchor.
        """
        mean, factor, context = self.context(x, noise)
        u = whiten(z, mean, factor)
        anchor = -normal_log_prob(u, torch.zeros(())) + log_det(factor)
        # The denoiser learns to reverse the process as whitened now; letting its loss move the
        # whitening would reward an anchor that is too wide.
        u, context = u.detach(), context.detach()
        n_steps = self.schedule.n_steps
        t = torch.randint(1, n_steps + 1, u.shape[:-1], generator=generator)
        y = self.schedule.diffuse(u, t, torch.randn(u.shape, generator=generator))
        at, log_variance = self.reverse_step(y, t, context)
        c, d, v = self.schedule.coefficients(t)
        # At t = 1 the entropy of r(y_0 | y_1, u) does not exist and is left out.
        denoising = n_steps * normal_kl(c * u + d * y, v, at, log_variance)
        last = self.schedule.alpha_bar[-1]
        terminal = normal_kl(last.sqrt() * u, 1 - last, *self.start_step(context))
        return {"denoising": denoising, "terminal": terminal, "anchor": anchor}
