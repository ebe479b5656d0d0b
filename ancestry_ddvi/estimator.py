"""A scikit-learn estimator over any matrix of continuous features."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.ddvi.priors import Prior
from ancestry_ddvi.ddvi.supervision import UNLABELLED
from ancestry_ddvi.ddvi.training import TrainingConfig, train
from ancestry_ddvi.errors import OptionError


class DDVI(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embed the rows of a matrix with a diffusion posterior.

    Parameters
    ----------
    n_latent
        Axes of the embedding.
    n_clusters
        Parts of the prior, or Dirichlet weights; a number that suits them if None.
    prior
        A name of `ddvi.priors.PRIORS`, or any prior over n_latent axes, of which a copy is trained;
        None for the learnt mixture.
    clustering
        `mixture` or `dirichlet`, see `ModelConfig`.
    supervised
        Whether `fit` learns from y; else y is not looked at.
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
    classes_ : ndarray
        What y held, sorted; only where `supervised`.
    """

    def __init__(
        self,
        n_latent: int = 2,
        *,
        n_clusters: int | None = None,
        prior: str | Prior | None = None,
        clustering: str = "mixture",
        supervised: bool = False,
        n_draws: int = 200,
        map_steps: int = TrainingConfig.map_steps,
        posterior_steps: int | None = TrainingConfig.posterior_steps,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_latent = n_latent
        self.n_clusters = n_clusters
        self.prior = prior
        self.clustering = clustering
        self.supervised = supervised
        self.n_draws = n_draws
        self.map_steps = map_steps
        self.posterior_steps = posterior_steps
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> DDVI:
        """Train on (n_samples, n_features); columns are centred, their relative scale matters.

        Parameters
        ----------
        X
            (n_samples, n_features).
        y
            (n_samples,) labels, numbers or text, where `supervised`; -1, None or NaN where a label
            is not known.

        Raises
        ------
        ValueError
            If X cannot be used.
        OptionError
            If a parameter or y cannot be used; before training.
        """
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
        label, names = self._labels(y, len(X)) if self.supervised else (None, ())
        name, prior = None, None
        if isinstance(self.prior, str):
            name = self.prior
        elif self.prior is not None:
            prior = deepcopy(self.prior)
        config = ModelConfig(
            n_latent=self.n_latent,
            n_clusters=self.n_clusters,
            prior=name,
            clustering=self.clustering,
            classes=names,
        )
        self.model_ = AncestryModel(scale, config, self._seed, prior)
        training = TrainingConfig(map_steps=self.map_steps, posterior_steps=self.posterior_steps)
        self.history_ = train(
            self.model_, X - self.mean_, np.zeros(len(X)), 1.0, training, self._seed, label=label
        )
        # Products of single numbers round by the size of the batch they are in, which the same
        # row in another batch must not show.
        self.model_.double()
        return self

    def _labels(self, y: Any, n: int) -> tuple[np.ndarray, tuple[str, ...]]:
        """The number of each sample's class and the names of the classes, which are kept."""
        values = np.full(n, None) if y is None else np.asarray(y, dtype=object)
        if values.shape != (n,):
            raise OptionError(f"y has shape {values.shape}, not ({n},): give a label a sample")
        known = np.array([not (v is None or v != v or v == UNLABELLED) for v in values])
        if not known.any():
            raise OptionError("y has no label; give some, or set supervised to False")
        if len({isinstance(v, str) for v in values[known]}) > 1:
            raise OptionError("y has both text and numbers as labels; use one of them")
        self.classes_, number = np.unique(np.array(values[known].tolist()), return_inverse=True)
        label = np.full(n, UNLABELLED)
        label[known] = number
        return label, tuple(map(str, self.classes_))

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
        """(n_samples, n_classes) probability of each of `classes_` where `supervised`, else
        (n_samples, n_clusters) of each cluster."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False) - self.mean_
        noise = np.zeros(len(X))
        if self.model_.classifier is not None:
            return self.model_.class_probability(X, noise)
        draws = self.model_.sample_posterior(X, noise, n_draws=self.n_draws, seed=self._seed)
        return self.model_.cluster_probability(X, noise, draws)

    def score(self, X: Any, y: None = None) -> float:
        """Mean evidence lower bound in nats; higher is better."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return float(self.model_.elbo(X - self.mean_, np.zeros(len(X)), seed=self._seed).mean())

    @property
    def _n_features_out(self) -> int:
        """Columns of `transform`, for `get_feature_names_out`."""
        return self.n_latent
