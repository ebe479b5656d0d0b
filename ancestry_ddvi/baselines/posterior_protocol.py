"""The face that every posterior has, DDVI's and its rivals'."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.posterior import Chain


class Posterior(Protocol):
    """q(z | x), with the auxiliary latents y that it may have."""

    @property
    def n_latent(self) -> int:
        """D."""

    def chain(self, x: Tensor, noise: Tensor, generator: torch.Generator) -> Chain:
        """One reparameterised draw for each row of x (n, K), noise (n,).

        `step_kl` (n, k) is the Monte Carlo log q - log r of that draw, r the reverse model of the
        auxiliary latents, so that log p(x | z) + log p(z) - step_kl.sum(-1) bounds log p(x).
        """

    def sample(self, x: Tensor, noise: Tensor, n_draws: int, generator: torch.Generator) -> Tensor:
        """(n_draws, n, D) draws of q(z | x), without gradient."""

    def sleep_loss(
        self, z: Tensor, x: Tensor, noise: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Terms (n,) that add up to minus a lower bound of log q(z | x), at pairs (z, x) drawn from
        the model; the bound is in expectation over the generator."""
