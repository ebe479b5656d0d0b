"""The latent variable model with its posterior, and the settings it is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.networks import FeatureInput, NormalDecoder
from ancestry_ddvi.ddvi.objective import BoundTerms, bound_terms
from ancestry_ddvi.ddvi.posterior import DiffusionPosterior, GaussianAnchor
from ancestry_ddvi.ddvi.priors import MixturePrior
from ancestry_ddvi.errors import OptionError

BATCH = 8192
"""Rows sent through the networks at once outside training: few enough for the cache, measured."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the model.

    Attributes
    ----------
    n_latent
        D, axes of the map.
    n_components
        Components of the prior mixture; more than there are populations does no harm.
    n_steps
        T, steps of the diffusion.
    n_hidden
        Width of every hidden layer.
    """

    n_latent: int = 2
    n_components: int = 30
    n_steps: int = 10
    n_hidden: int = 128

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise OptionError(f"{name} must be at least 1, not {value}")


class AncestryModel(nn.Module):
    """p(z) a learnt mixture, p(x | z) a normal decoder, q(z | x) a diffusion.

    Parameters
    ----------
    scale
        (K,) standard deviation of each feature in the training samples.
    config
        Shape.
    seed
        Initial weights.

    Raises
    ------
    OptionError
        If there are fewer features than latents, or a feature that does not vary.
    """

    def __init__(self, scale: np.ndarray, config: ModelConfig, seed: int) -> None:
        super().__init__()
        if config.n_latent > len(scale):
            raise OptionError(
                f"{config.n_latent} latents cannot be learnt from {len(scale)} principal "
                "components; lower --n-latent or, if the samples span more, raise --n-pcs"
            )
        if not (np.isfinite(scale) & (np.asarray(scale) > 0)).all():
            raise OptionError("a feature has no spread over the training samples; leave it out")
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        # Layers of torch draw from the global stream; fork it so that a caller's is not touched.
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would reseed accelerators too.
            torch.default_generator.manual_seed(seed)
            scale_tensor = torch.as_tensor(scale, dtype=torch.float32)
            inputs = FeatureInput(scale_tensor)
            self.prior = MixturePrior(config.n_components, config.n_latent, generator)
            self.decoder = NormalDecoder(config.n_latent, scale_tensor, config.n_hidden)
            anchor = GaussianAnchor(inputs, config.n_latent, config.n_hidden)
            self.posterior = DiffusionPosterior(anchor, config.n_steps, config.n_hidden)

    def bound(self, x: Tensor, noise: Tensor, generator: torch.Generator) -> BoundTerms:
        """One draw's estimate of the evidence lower bound for each row of x (n, K)."""
        return bound_terms(self.prior, self.decoder, self.posterior, x, noise, generator)

    @torch.no_grad()
    def elbo(
        self, x: np.ndarray, noise: np.ndarray, *, n_draws: int = 16, seed: int = 0
    ) -> np.ndarray:
        """(n_samples,) evidence lower bound in nats, averaged over draws of the chain."""
        generator = torch.Generator().manual_seed(seed)
        out = np.zeros(len(x))
        for _ in range(n_draws):
            for rows, x_part, noise_part in _batches(x, noise, BATCH):
                out[rows] += self.bound(x_part, noise_part, generator).elbo.numpy() / n_draws
        return out

    @torch.no_grad()
    def sample_posterior(
        self, x: np.ndarray, noise: np.ndarray, *, n_draws: int, seed: int
    ) -> np.ndarray:
        """(n_draws, n_samples, D) float32 draws of q(z | x)."""
        generator = torch.Generator().manual_seed(seed)
        out = np.empty((n_draws, len(x), self.config.n_latent), dtype=np.float32)
        for rows, x_part, noise_part in _batches(x, noise, max(1, BATCH // n_draws)):
            out[:, rows] = self.posterior.sample(x_part, noise_part, n_draws, generator).numpy()
        return out

    @torch.no_grad()
    def membership(self, draws: np.ndarray) -> np.ndarray:
        """(n_samples, n_components) p(c | x), p(c | z) averaged over draws (n_draws, n, D)."""
        total = np.zeros((draws.shape[1], self.config.n_components))
        for draw in draws:
            total += self.prior.membership(torch.from_numpy(draw)).numpy()
        return total / len(draws)

    def config_dict(self) -> dict[str, Any]:
        """JSON-ready settings."""
        return asdict(self.config)


def _batches(x: np.ndarray, noise: np.ndarray, size: int) -> Any:
    """(rows, x, noise) as float32 tensors, `size` rows at a time."""
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        yield (
            rows,
            torch.as_tensor(x[rows], dtype=torch.float32),
            torch.as_tensor(noise[rows], dtype=torch.float32),
        )
