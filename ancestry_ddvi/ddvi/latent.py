"""Any latent variable model p(z) p(x | z) with any posterior q(z | x), and what can be asked of it.

    elbo            E_q[ log w ],  w = p(x | z) p(z) r(y | z) / q(y, z | x)
    iw_bound        E[ log 1/k sum_i w_i ]
    log_marginal    log 1/n sum_i w_i  ->  log p(x)

Burda, Grosse & Salakhutdinov 2016, see `objective`. Prior, likelihood and posterior are modules of
the user's own or of this package; `engine.fit` trains them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.objective import (
    BoundTerms,
    Likelihood,
    Posterior,
    bound_terms,
    dream,
    iw_bound,
    log_weights,
)
from ancestry_ddvi.ddvi.priors import Prior, check_methods, check_prior
from ancestry_ddvi.errors import InputError, check_count

BATCH = 8192
"""Rows sent through the networks at once outside training: few enough for the cache, measured."""

_NEEDED = {
    "likelihood": ("log_prob(x, z, noise)", "sample(z, noise, generator)"),
    "posterior": (
        "n_latent",
        "chain(x, noise, source, n_draws=None)",
        "sample(x, noise, n_draws, source)",
        "sleep_loss(z, x, noise, generator)",
    ),
}
"""What the parts beside the prior must have, as the protocols `Likelihood` and `Posterior` say."""


class LatentModel(nn.Module):
    """p(z), p(x | z) and q(z | x); weights of those that are modules are its own.

    Parameters
    ----------
    prior, likelihood
        Anything with the methods of `Prior` and `Likelihood`.
    posterior
        A `Posterior` over as many latents.

    Raises
    ------
    OptionError
        If a method is missing, or prior and posterior differ in n_latent.
    """

    prior: Prior
    likelihood: Likelihood
    posterior: Posterior

    def __init__(self, prior: Prior, likelihood: Likelihood, posterior: Posterior) -> None:
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior
        for part, needed in _NEEDED.items():
            check_methods(part, getattr(self, part), needed)
        check_prior(prior, posterior.n_latent)

    @property
    def n_latent(self) -> int:
        """D."""
        return self.posterior.n_latent

    def bound(self, x: Tensor, noise: Tensor, generator: torch.Generator) -> BoundTerms:
        """One draw's estimate of the evidence lower bound for each row of x (n, K)."""
        return bound_terms(self.prior, self.likelihood, self.posterior, x, noise, generator)

    def elbo(
        self, x: np.ndarray, noise: np.ndarray | None = None, *, n_draws: int = 16, seed: int = 0
    ) -> np.ndarray:
        """(n_samples,) evidence lower bound in nats, averaged over draws of the chain.

        Parameters
        ----------
        x
            (n_samples, K) features.
        noise
            (n_samples,) their noise; 0 if left out.
        n_draws
            Draws for each sample.
        seed
            Of the draws.

        Raises
        ------
        InputError
            If a feature is not finite or a shape does not fit.
        OptionError
            If n_draws < 1, or the posterior has no density.
        """
        check_count("n_draws", n_draws)
        return self.iw_bound(x, noise, k=1, n_repeats=n_draws, seed=seed)

    @torch.no_grad()
    def iw_bound(
        self,
        x: np.ndarray,
        noise: np.ndarray | None = None,
        *,
        k: int = 8,
        n_repeats: int = 16,
        seed: int = 0,
    ) -> np.ndarray:
        """(n_samples,) importance-weighted bound in nats, between the elbo and log p(x).

        Parameters
        ----------
        x, noise, seed
            See `elbo`.
        k
            Draws under the logarithm: the more, the tighter.
        n_repeats
            Estimates of the bound that are averaged.

        Raises
        ------
        InputError, OptionError
            See `elbo`.
        """
        check_count("k", k)
        check_count("n_repeats", n_repeats)
        x, noise = checked_features(x, noise)
        generator = torch.Generator().manual_seed(seed)
        out = np.empty(len(x))
        n_draws = k * n_repeats
        with _as_many_features(x):
            for rows, x_part, noise_part in batches(x, noise, max(1, BATCH // n_draws)):
                log_weight = torch.cat(
                    [
                        log_weights(
                            self.prior,
                            self.likelihood,
                            self.posterior,
                            x_part,
                            noise_part,
                            min(BATCH, n_draws - start),
                            generator,
                        )
                        for start in range(0, n_draws, BATCH)
                    ]
                )
                estimates = iw_bound(log_weight.reshape(n_repeats, k, -1))
                out[rows] = estimates.double().mean(0).numpy()
        return out

    def log_marginal(
        self, x: np.ndarray, noise: np.ndarray | None = None, *, n_draws: int = 4096, seed: int = 0
    ) -> np.ndarray:
        """(n_samples,) estimate of log p(x) in nats: one importance-weighted bound of many draws.

        In expectation below log p(x), by half the relative variance of the mean weight: little
        where the posterior is good, much where it misses a mode. Parameters and errors: see `elbo`.
        """
        check_count("n_draws", n_draws)
        return self.iw_bound(x, noise, k=n_draws, n_repeats=1, seed=seed)

    @torch.no_grad()
    def sample_posterior(
        self, x: np.ndarray, noise: np.ndarray | None = None, *, n_draws: int = 100, seed: int = 0
    ) -> np.ndarray:
        """(n_draws, n_samples, D) float32 draws of q(z | x). Parameters and errors: see `elbo`."""
        check_count("n_draws", n_draws)
        x, noise = checked_features(x, noise)
        generator = torch.Generator().manual_seed(seed)
        out = np.empty((n_draws, len(x), self.n_latent), dtype=np.float32)
        with _as_many_features(x):
            for rows, x_part, noise_part in batches(x, noise, max(1, BATCH // n_draws)):
                drawn = self.posterior.sample(x_part, noise_part, n_draws, generator)
                out[:, rows] = drawn.numpy()
        return out

    def sample(self, n: int, *, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """z (n, D) and x (n, K) drawn from the model.

        Parameters
        ----------
        n
            How many.
        noise
            Of the features drawn.
        seed
            Of the draws.

        Raises
        ------
        OptionError
            If n < 1.
        """
        check_count("n", n)
        generator = torch.Generator().manual_seed(seed)
        z, x = dream(self.prior, self.likelihood, torch.full((n,), noise), generator)
        return z.numpy(), x.numpy()


def batches(
    x: np.ndarray, noise: np.ndarray, size: int, dtype: torch.dtype = torch.float32
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(rows, x, noise) as tensors, `size` rows at a time."""
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        yield (
            rows,
            torch.as_tensor(x[rows], dtype=dtype),
            torch.as_tensor(noise[rows], dtype=dtype),
        )


@contextmanager
def _as_many_features(x: np.ndarray) -> Iterator[None]:
    """Say of an error of torch, which shapes that do not fit make, whose shape it is."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            f"the model cannot take {x.shape[1]} features ({error}); give as many as it learnt from"
        ) from error


def checked_features(x: np.ndarray, noise: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """x (n, K) and noise (n,), which is 0 if left out.

    Raises
    ------
    InputError
        If a shape does not fit, a feature is not finite, or a noise is negative or not a number.
    """
    try:
        x = np.asarray(x)
        # Tensors share the memory of arrays, which pandas may hold for itself.
        x = x.astype(float if x.dtype.kind not in "f" else x.dtype, copy=not x.flags.writeable)
    except (TypeError, ValueError) as error:
        raise InputError(f"features are no numbers ({error}); give an array of floats") from error
    if x.ndim != 2:
        raise InputError(
            f"features have shape {x.shape}; they need two axes, (n_samples, n_features): reshape "
            "them"
        )
    noise = np.zeros(len(x)) if noise is None else np.asarray(noise)
    if noise.shape != (len(x),):
        raise InputError(
            f"noise has shape {noise.shape}; it needs one value for each of {len(x)} samples"
        )
    for what, bad in (
        ("features", ~np.isfinite(x).all(axis=1)),
        ("noise", ~(noise >= 0)),
    ):
        if bad.any():
            raise InputError(
                f"{what} of row {np.flatnonzero(bad)[0]} cannot be used ({bad.sum()} such rows): "
                "NaN, infinite or negative noise; leave these rows out or fill them in"
            )
    return x, noise
