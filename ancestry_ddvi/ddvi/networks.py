"""The small networks, and how features enter them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.noise import normal_log_prob

MAX_NOISE = 1e3
"""Noise is capped here: a sample with no called genotype has an infinite one."""


def mlp(n_in: int, n_out: int, n_hidden: int, *, zero_output: bool = False) -> nn.Sequential:
    """Two hidden layers with SiLU; `zero_output` starts the map at 0, for residual use."""
    last = nn.Linear(n_hidden, n_out)
    if zero_output:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(n_in, n_hidden),
        nn.SiLU(),
        nn.Linear(n_hidden, n_hidden),
        nn.SiLU(),
        last,
    )


class FeatureInput(nn.Module):
    """Features and their noise, brought to a scale that a network likes.

    A feature of variance s_k^2 seen through noise s enters as its best linear guess
    x_k s_k^2 / (s_k^2 + s^2), in units of s_k, so that a nearly empty sample enters near 0 and not
    as a wild number; log(1 + s) says how much it was worth.
    """

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    @property
    def n_out(self) -> int:
        """Width of the output."""
        return len(self.scale) + 1

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """(..., K) and (...,) to (..., K + 1)."""
        noise = noise.clamp(max=MAX_NOISE).unsqueeze(-1)
        variance = self.scale**2
        guess = x * (self.scale / (variance + noise**2))
        return torch.cat([guess, torch.log1p(noise)], dim=-1)


class NormalDecoder(nn.Module):
    """p(x | z) = N(f(z), sigma_k^2 + s^2): a network mean, a learnt sigma for each feature.

    The likelihood is summed over features, never averaged: with a mean and a fixed weight on the
    KL term the latents are ignored once there are many features.
    """

    def __init__(
        self, n_latent: int, scale: Tensor, n_hidden: int, mean: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.mean = mlp(n_latent, len(scale), n_hidden) if mean is None else mean
        self.log_sigma = nn.Parameter(torch.log(scale * 0.5))

    def log_variance(self, noise: Tensor) -> Tensor:
        """(..., K) log(sigma_k^2 + s^2)."""
        noise = noise.clamp(max=MAX_NOISE).unsqueeze(-1)
        return torch.log(torch.exp(2 * self.log_sigma) + noise**2)

    def log_prob(self, x: Tensor, z: Tensor, noise: Tensor) -> Tensor:
        """log p(x | z) in nats; x (..., K), z (..., D), noise (...,)."""
        log_variance = self.log_variance(noise)
        return normal_log_prob(x - self.mean(z), log_variance)

    def sample(self, z: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Draw x ~ p(x | z) with that noise."""
        mean: Tensor = self.mean(z)
        normal = torch.randn(mean.shape, generator=generator)
        return mean + torch.exp(0.5 * self.log_variance(noise)) * normal


def fourier_time(n_steps: int, width: int) -> Tensor:
    """(T + 1, width) sines and cosines of t / T, which tell the denoiser the step."""
    t = torch.arange(n_steps + 1, dtype=torch.float32).unsqueeze(1) / n_steps
    frequency = math.pi * torch.arange(1, width // 2 + 1, dtype=torch.float32)
    waves: list[Callable[[Tensor], Tensor]] = [torch.sin, torch.cos]
    return torch.cat([wave(t * frequency) for wave in waves], dim=1)
