"""The variational posterior guided by the model: a diffusion that starts from the model's own
Laplace mixture.

    guide         p(z | x) as a mixture of Gaussians, from decoder and prior (`laplace`)
    whitened      u = L^-1 (z - mu), by the mean and covariance of the guide
    q(y_T | x)    = r(y_T) of the guide, moved by delta(x), widened by e^eta(x)
    q(y_{t-1} | y_t, x) = r(y_{t-1} | y_t) of the guide (`mixture`), moved by c_t g(y_t, t, x),
                          widened by e^gamma(y_t, t, x)

delta, eta, g and gamma start at 0, where q(z | x) is the guide itself and all its modes: what is
learnt is what the guide lacks. There is nothing else to learn, and so this posterior is nearly
right before it is trained (Piriyakulkij, Wang & Kuleshov 2025 learn the reverse process from
nothing; that a user chooses the noising process and may choose one whose reverse is known is
theirs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.mixture import GaussianMixture
from ancestry_ddvi.ddvi.networks import fourier_time, mlp
from ancestry_ddvi.ddvi.noise import NoiseSchedule, normal_entropy
from ancestry_ddvi.ddvi.posterior import (
    TIME_WIDTH,
    Chain,
    GaussianAnchor,
    bounded,
    log_det,
    unwhiten,
    whiten,
)
from ancestry_ddvi.ddvi.streams import Source, normal

Guide = Callable[[Tensor, Tensor], GaussianMixture]
"""x (n, K), noise (n,) -> a mixture over z for each sample."""


class GuidedPosterior(nn.Module):
    """q(y_{0:T} | x), see the module's equations.

    Parameters
    ----------
    anchor
        The encoder that the map is learnt with; its mean is a part of what the networks see.
    guide
        The mixture to start from. Referred to and not owned: it has no weights of its own.
    n_steps
        T.
    n_hidden
        Width of the networks.
    """

    def __init__(self, anchor: GaussianAnchor, guide: Guide, n_steps: int, n_hidden: int) -> None:
        super().__init__()
        self.anchor = anchor
        self.guide = guide
        self.n_hidden = n_hidden
        self.schedule = NoiseSchedule(n_steps)
        d, n_in = anchor.n_latent, anchor.inputs.n_out
        # One width for all axes: those of a component as wide in all directions are no one's.
        self.denoiser = mlp(n_in + 2 * d + TIME_WIDTH, d + 1, n_hidden, zero_output=True)
        self.start = mlp(n_in + d, d + 1, n_hidden, zero_output=True)
        self.register_buffer("time", fourier_time(n_steps, TIME_WIDTH), False)

    time: Tensor

    @property
    def n_latent(self) -> int:
        """D."""
        return self.anchor.n_latent

    def fresh(self) -> GuidedPosterior:
        """The same before it was trained."""
        return GuidedPosterior(self.anchor, self.guide, self.schedule.n_steps, self.n_hidden)

    def context(self, x: Tensor, noise: Tensor) -> _Context:
        """The guide in its own frame, and what the networks see of x (n, K)."""
        mixture = self.guide(x, noise)
        mean, factor = mixture.moments()
        with torch.no_grad():
            encoded, _ = self.anchor(x, noise)
            seen = torch.cat([self.anchor.inputs(x, noise), whiten(encoded, mean, factor)], dim=-1)
        return _Context(mixture.whitened(mean, factor), mean, factor, seen.clamp(-10, 10))

    def start_step(self, context: _Context) -> GaussianMixture:
        """q(y_T | x)."""
        shift, log_scale = self.start(context.seen).split([self.n_latent, 1], dim=-1)
        end = context.mixture.noised(self.schedule, self.schedule.n_steps)
        return end.shifted(shift, bounded(log_scale))

    def reverse_step(self, y: Tensor, t: Tensor | int, context: _Context) -> GaussianMixture:
        """q(y_{t-1} | y_t, x) at y (..., n, D), t an int or (..., n)."""
        time = self.time[t].expand(*y.shape[:-1], TIME_WIDTH)
        seen = context.seen.expand(*y.shape[:-1], -1)
        change = self.denoiser(torch.cat([y, seen, time], dim=-1))
        shift, log_scale = change.split([self.n_latent, 1], dim=-1)
        c, _, _ = self.schedule.coefficients(t)
        guided = context.mixture.reverse(self.schedule, y, t)
        return guided.shifted(c * shift, bounded(log_scale))

    def chain(self, x: Tensor, noise: Tensor, source: Source, n_draws: int | None = None) -> Chain:
        """Draw y_T..y_0 once for each row of x (n, K), or (n_draws, n) times, with the terms of the
        bound.

        Which component a step takes is not differentiable: gradients of wake steps are those given
        the components drawn. Sleep steps have no such draw.
        """
        context = self.context(x, noise)
        shape = torch.Size((len(x),) if n_draws is None else (n_draws, len(x)))
        step = self.start_step(context)
        y = step.sample(shape, source)
        terms = [step.log_prob(y)]
        for t in range(self.schedule.n_steps, 0, -1):
            step = self.reverse_step(y, t, context)
            before = step.sample(shape, source)
            terms.append(step.log_prob(before) - self.schedule.log_step(y, before, t))
            y = before
        terms[-1] = terms[-1] - log_det(context.factor)
        return Chain(context.place(y), torch.stack(terms[::-1], dim=-1))

    @torch.no_grad()
    def sample(self, x: Tensor, noise: Tensor, n_draws: int, source: Source) -> Tensor:
        """(n_draws, n_samples, D) draws of q(z | x) for x (n_samples, K)."""
        context = self.context(x, noise)
        shape = torch.Size((n_draws, len(x)))
        y = self.start_step(context).sample(shape, source)
        for t in range(self.schedule.n_steps, 0, -1):
            y = self.reverse_step(y, t, context).sample(shape, source)
        return context.place(y)

    def sleep_loss(
        self, z: Tensor, x: Tensor, noise: Tensor, generator: torch.Generator, n_draws: int = 1
    ) -> dict[str, Tensor]:
        """Minus the lower bound of log q(u | x) for pairs (z, x) drawn from the model, (n_draws, n)
        each.

        As `DiffusionPosterior.sleep_loss`, but q is a mixture: its cross-entropy is estimated by
        a draw of r(y_{t-1} | y_t, u) in the place of the closed form.

        Returns
        -------
        `denoising`: T times -log q(y_{t-1} | y_t, x) minus the entropy of r(y_{t-1} | y_t, u);
        `terminal`: -log q(y_T | x) minus the entropy of r(y_T | u).
        """
        context = self.context(x, noise)
        u = whiten(z, context.mean, context.factor)
        shape = (n_draws, *u.shape)
        n_steps = self.schedule.n_steps
        t = torch.randint(1, n_steps + 1, shape[:-1], generator=generator)
        y = self.schedule.diffuse(u, t, normal(generator, shape))
        c, d, v = self.schedule.coefficients(t)
        before = c * u + d * y + v.sqrt() * normal(generator, shape)
        step = self.reverse_step(y, t, context)
        entropy = self.n_latent * normal_entropy(v).squeeze(-1)
        denoising = n_steps * (-step.log_prob(before) - entropy)
        end = self.schedule.diffuse(u, n_steps, normal(generator, shape))
        entropy = self.n_latent * normal_entropy(1 - self.schedule.alpha_bar[-1])
        terminal = -self.start_step(context).log_prob(end) - entropy
        return {"denoising": denoising, "terminal": terminal}


@dataclass(frozen=True)
class _Context:
    """The guide in its frame (n, ...), the frame mu (n, D), L (n, D, D), and (n, n_seen) inputs."""

    mixture: GaussianMixture
    mean: Tensor
    factor: Tensor
    seen: Tensor

    def place(self, u: Tensor) -> Tensor:
        """z = mu + L u."""
        return unwhiten(u, self.mean, self.factor)
