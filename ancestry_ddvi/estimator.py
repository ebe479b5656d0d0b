"""A scikit-learn estimator over any matrix of continuous features."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.ddvi.training import TrainingConfig, train


class DDVI(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embed the rows of a matrix with a diffusion posterior.

    Parameters
    ----------
    n_latent
        Axes of the embedding.
    n_clusters
        Components of the prior mixture.
    n_draws
        Posterior draws averaged by `transform`.
    map_steps, posterior_steps
        Optimiser steps of the map and posterior phases, see `TrainingConfig`.
    random_state
        Everything random follows from it: an int, a RandomState, or None for another each time.

    Attributes
    ----------
    model_ : AncestryModel
    history_ : History
        Loss terms along training.
    n_features_in_ : int
    """

    def __init__(
        self,
        n_latent: int = 2,
        *,
        n_clusters: int = 30,
        n_draws: int = 200,
        map_steps: int = TrainingConfig.map_steps,
        posterior_steps: int | None = TrainingConfig.posterior_steps,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_latent = n_latent
        self.n_clusters = n_clusters
        self.n_draws = n_draws
        self.map_steps = map_steps
        self.posterior_steps = posterior_steps
        self.random_state = random_state

    def fit(self, X: Any, y: None = None) -> DDVI:
        """Train on (n_samples, n_features); columns are centred, their relative scale matters."""
        X = validate_data(
            self, X, dtype=np.float64, ensure_min_samples=2, ensure_min_features=self.n_latent
        )
        # Drawn once, so that a fitted estimator gives the same answer each time it is asked.
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.mean_ = X.mean(axis=0)
        scale = X.std(axis=0)
        # A constant column has no scale of its own, only rounding; any that is not small leaves it
        # at 0.
        scale[scale <= 1e-12 * np.abs(X).max(axis=0)] = 1.0
        config = ModelConfig(n_latent=self.n_latent, n_clusters=self.n_clusters)
        self.model_ = AncestryModel(scale, config, self._seed)
        training = TrainingConfig(map_steps=self.map_steps, posterior_steps=self.posterior_steps)
        self.history_ = train(
            self.model_, X - self.mean_, np.zeros(len(X)), 1.0, training, self._seed
        )
        # Products of single numbers round by the size of the batch they are in, which the same
        # row in another batch must not show.
        self.model_.double()
        return self

    def sample(self, X: Any, n_draws: int | None = None) -> np.ndarray:
        """(n_draws, n_samples, n_latent) posterior draws."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.model_.sample_posterior(
            X - self.mean_,
            np.zeros(len(X)),
            n_draws=n_draws or self.n_draws,
            seed=self._seed,
        )

    def transform(self, X: Any) -> np.ndarray:
        """(n_samples, n_latent) posterior means."""
        mean: np.ndarray = self.sample(X).mean(axis=0, dtype=np.float64)
        return mean

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n_samples, n_clusters) probability of each prior component."""
        draws = self.sample(X)
        return self.model_.membership(draws)

    def score(self, X: Any, y: None = None) -> float:
        """Mean evidence lower bound in nats; higher is better."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return float(self.model_.elbo(X - self.mean_, np.zeros(len(X)), seed=self._seed).mean())

    @property
    def _n_features_out(self) -> int:
        """Columns of `transform`, for `get_feature_names_out`."""
        return self.n_latent
