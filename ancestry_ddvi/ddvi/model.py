"""The latent variable model with its posterior, and the settings it is made of."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.guided import GuidedPosterior
from ancestry_ddvi.ddvi.laplace import laplace_mixture
from ancestry_ddvi.ddvi.latent import BATCH, batches
from ancestry_ddvi.ddvi.mixture import GaussianMixture
from ancestry_ddvi.ddvi.networks import FeatureInput, NormalDecoder
from ancestry_ddvi.ddvi.objective import BoundTerms, bound_of, bound_terms
from ancestry_ddvi.ddvi.posterior import DiffusionPosterior, GaussianAnchor
from ancestry_ddvi.ddvi.priors import MixturePrior
from ancestry_ddvi.ddvi.streams import Source, Streams
from ancestry_ddvi.errors import OptionError

SLIMMER = 4
"""The networks of a guided posterior are so many times narrower: they have little to learn, and
are what drawing costs."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the model.

    Attributes
    ----------
    n_latent
        D, axes of the map.
    n_clusters
        Components of the prior mixture; more than there are populations does no harm.
    n_steps
        T, steps of the diffusion.
    n_hidden
        Width of every hidden layer.
    guided
        Whether the diffusion starts from the model's own Laplace mixture (`guided`) or from the
        encoder's Gaussian (`posterior`), which leaves all else to be learnt.
    """

    n_latent: int = 2
    n_clusters: int = 30
    n_steps: int = 6
    n_hidden: int = 128
    guided: bool = True

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "guided" and value < 1:
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
            self.prior = MixturePrior(config.n_clusters, config.n_latent, generator)
            self.decoder = NormalDecoder(config.n_latent, scale_tensor, config.n_hidden)
            anchor = GaussianAnchor(inputs, config.n_latent, config.n_hidden)
            self.posterior: DiffusionPosterior | GuidedPosterior = (
                GuidedPosterior(
                    anchor, self.laplace_mixture, config.n_steps, -(-config.n_hidden // SLIMMER)
                )
                if config.guided
                else DiffusionPosterior(anchor, config.n_steps, config.n_hidden)
            )

    def laplace_mixture(self, x: Tensor, noise: Tensor) -> GaussianMixture:
        """p(z | x) in closed form as nearly as Gaussians can say it, for x (n, K), noise (n,)."""
        return laplace_mixture(self.prior.normal_components(), self.decoder, x, noise)

    def bound(self, x: Tensor, noise: Tensor, source: Source) -> BoundTerms:
        """One draw's estimate of the evidence lower bound for each row of x (n, K)."""
        return bound_terms(self.prior, self.decoder, self.posterior, x, noise, source)

    @torch.no_grad()
    def draw(
        self,
        x: np.ndarray,
        noise: np.ndarray,
        *,
        n_draws: int,
        seed: int,
        key: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n_draws, n_samples, D) float32 draws of q(z | x), and the evidence lower bound of each
        sample (n_samples,) in nats, averaged over its draws.

        Parameters
        ----------
        x, noise
            (n_samples, K), (n_samples,) features.
        n_draws, seed
            Number of draws, and what they follow from.
        key
            (n_samples,) uint64: each sample has a random stream of its own, told by its key, so
            that its draws do not depend on the other samples. Its features tell it by default.
        """
        draws = np.empty((n_draws, len(x), self.config.n_latent), dtype=np.float32)
        elbo = np.empty(len(x))
        scale = self.posterior.anchor.inputs.scale
        if key is None:
            key = row_key(np.column_stack([x / scale.double().numpy(), noise]))
        for rows, x_part, noise_part in batches(x, noise, max(1, BATCH // n_draws), scale.dtype):
            chain = self.posterior.chain(x_part, noise_part, Streams(key[rows], seed), n_draws)
            bound = bound_of(chain, self.prior, self.decoder, x_part, noise_part)
            draws[:, rows] = chain.z.numpy()
            elbo[rows] = bound.elbo.double().mean(0).numpy()
        return draws, elbo

    def sample_posterior(
        self, x: np.ndarray, noise: np.ndarray, *, n_draws: int, seed: int
    ) -> np.ndarray:
        """(n_draws, n_samples, D) draws of q(z | x), see `draw`."""
        return self.draw(x, noise, n_draws=n_draws, seed=seed)[0]

    def elbo(
        self, x: np.ndarray, noise: np.ndarray, *, n_draws: int = 16, seed: int = 0
    ) -> np.ndarray:
        """(n_samples,) evidence lower bound in nats, see `draw`."""
        return self.draw(x, noise, n_draws=n_draws, seed=seed)[1]

    @torch.no_grad()
    def membership(self, draws: np.ndarray) -> np.ndarray:
        """(n_samples, n_clusters) p(c | x), p(c | z) averaged over draws (n_draws, n, D)."""
        total = np.zeros((draws.shape[1], self.config.n_clusters))
        for draw in draws:
            total += self.prior.membership(torch.from_numpy(draw)).numpy()
        return total / len(draws)

    def config_dict(self) -> dict[str, Any]:
        """JSON-ready settings."""
        return asdict(self.config)


def row_key(values: np.ndarray) -> np.ndarray:
    """(n_samples,) uint64 hash of each row, which what is lost or gained by rounding leaves as it
    is."""
    rows = np.round(values, 6) + 0.0  # -0 is 0
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.array([int.from_bytes(digest, "big") for digest in digests], dtype=np.uint64)
