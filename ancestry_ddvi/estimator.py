"""A scikit-learn estimator over any matrix of continuous features."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.ddvi.priors import Prior
from ancestry_ddvi.ddvi.supervision import UNLABELLED
from ancestry_ddvi.ddvi.training import TrainingConfig, train
from ancestry_ddvi.errors import OptionError, TrainingDivergedError, check_count

NOISE_UNIT = 0.0135
"""Noise that training adds, as a share of the mean variance of a column: as much as losing half of
the variants adds to the features of 2,504 people and 18,000 variants."""


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
        Of (X - mean_) / scale_.
    mean_ : (n_features,) ndarray
    scale_ : float
        Root of the mean variance of the columns: multiplying X by a number changes nothing but
        rounding.
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

        Where it fails the estimator is left unfitted.

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
        TrainingDivergedError
            If the loss became non-finite; its `last_good` is the `AncestryModel` as it was before.
        """
        for fitted in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, fitted)
        check_count("n_latent", self.n_latent)
        check_count("n_draws", self.n_draws)
        X = validate_data(
            self, X, dtype=np.float64, ensure_min_samples=2, ensure_min_features=self.n_latent
        )
        label, names = self._labels(y, len(X)) if self.supervised else (None, ())
        # A copy of a prior: a fit leaves its parameters as they were given.
        name, prior = (
            (self.prior, None) if isinstance(self.prior, str) else (None, deepcopy(self.prior))
        )
        config = ModelConfig(
            n_latent=self.n_latent,
            n_clusters=self.n_clusters,
            prior=name,
            clustering=self.clustering,
            classes=names,
        )
        training = TrainingConfig(map_steps=self.map_steps, posterior_steps=self.posterior_steps)
        # Drawn once, so that a fitted estimator gives the same answer each time it is asked.
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.mean_ = X.mean(axis=0)
        spread = X.std(axis=0)
        # A constant column has no scale of its own, only rounding; any that is not small leaves it
        # at 0.
        constant = spread <= 1e-12 * np.abs(X).max(axis=0)
        self.scale_ = 1.0 if constant.all() else float(np.sqrt(np.mean(spread[~constant] ** 2)))
        model = AncestryModel(
            np.where(constant, 1.0, spread / self.scale_), config, self._seed, prior
        )
        if self.n_clusters is not None and prior is not None:
            raise OptionError(
                "n_clusters is of a prior that is named; one that is given has a number of its own"
            )
        noise = np.zeros(len(X))
        try:
            self.history_ = train(
                model, self._scaled(X), noise, NOISE_UNIT, training, self._seed, label=label
            )
        except TrainingDivergedError as error:
            error.last_good = model
            raise
        # Products of single numbers round by the size of the batch they are in, which the same
        # row in another batch must not show.
        self.model_ = model.double()
        return self

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (X - self.mean_) / self.scale_
        return scaled

    def _features(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """What the fitted model takes: features (n_samples, n_features) and their noise, 0."""
        check_is_fitted(self, "model_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self._scaled(X), np.zeros(len(X))

    def _labels(self, y: Any, n: int) -> tuple[np.ndarray, tuple[str, ...]]:
        """The number of each sample's class and the names of the classes, which are kept."""
        values = np.full(n, None) if y is None else np.asarray(y, dtype=object)
        if values.shape != (n,):
            raise OptionError(f"y has shape {values.shape}, not ({n},): give a label a sample")
        known = np.array([not (pd.isna(v) or v == UNLABELLED) for v in values])
        if not known.any():
            raise OptionError("y has no label; give some, or set supervised to False")
        if len({isinstance(v, str) for v in values[known]}) > 1:
            raise OptionError("y has both text and numbers as labels; use one of them")
        self.classes_, number = np.unique(np.array(values[known].tolist()), return_inverse=True)
        label = np.full(n, UNLABELLED)
        label[known] = number
        return label, tuple(map(str, self.classes_))

    def sample(self, X: Any, n_draws: int | None = None) -> np.ndarray:
        """(n_draws, n_samples, n_latent) posterior draws; as many as `transform` averages if left
        out."""
        features = self._features(X)
        n_draws = self.n_draws if n_draws is None else n_draws
        check_count("n_draws", n_draws)
        return self.model_.sample_posterior(*features, n_draws=n_draws, seed=self._seed)

    def transform(self, X: Any) -> np.ndarray:
        """(n_samples, n_latent) posterior means."""
        mean: np.ndarray = self.sample(X).mean(axis=0, dtype=np.float64)
        return mean

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n_samples, n_classes) probability of each of `classes_` where `supervised`, else
        (n_samples, n_clusters) of each cluster."""
        features = self._features(X)
        if self.model_.classifier is not None:
            return self.model_.class_probability(*features)
        draws = self.model_.sample_posterior(*features, n_draws=self.n_draws, seed=self._seed)
        return self.model_.cluster_probability(*features, draws)

    def score(self, X: Any, y: None = None) -> float:
        """Mean evidence lower bound of log p(X) in nats; higher is better."""
        x, noise = self._features(X)
        elbo = self.model_.elbo(x, noise, seed=self._seed)
        return float(elbo.mean() - x.shape[1] * np.log(self.scale_))

    def log_marginal(self, X: Any, n_draws: int = 4096) -> np.ndarray:
        """(n_samples,) estimate of log p of each row of X in nats, tighter than the bound that
        `score` averages: importance weights of n_draws draws each, see `AncestryModel`.

        Raises
        ------
        OptionError
            If n_draws < 1, or with `clustering="dirichlet"`.
        """
        x, noise = self._features(X)
        of_scaled = self.model_.log_marginal(x, noise, n_draws=n_draws, seed=self._seed)
        of_rows: np.ndarray = of_scaled - x.shape[1] * np.log(self.scale_)
        return of_rows

    @property
    def _n_features_out(self) -> int:
        """Columns of `transform`, for `get_feature_names_out`."""
        return self.n_latent
