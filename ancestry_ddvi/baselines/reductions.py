"""PCA, UMAP and t-SNE: maps without a model, behind one face.

    fitted = REDUCTIONS["umap"](x_train, seed)
    fitted.train                   (n, 2) where the training samples are
    fitted.transform(x_new)        (n_new, 2) new samples among them

UMAP (McInnes et al. 2018) and t-SNE (openTSNE; Policar et al. 2024) run with their defaults, in one
thread so that a seed repeats them, and are an optional extra.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ancestry_ddvi.errors import OptionError


@dataclass(frozen=True)
class Fitted:
    """A fitted reduction.

    Attributes
    ----------
    train
        (n_train, D) float64 positions of the samples it was fitted to.
    transform
        x (n_new, K) -> (n_new, D) float64.
    """

    train: np.ndarray
    transform: Callable[[np.ndarray], np.ndarray]


def pca(x_train: np.ndarray, seed: int, n_latent: int = 2) -> Fitted:
    """The first features themselves, which are principal components; nothing random in it."""

    def transform(x: np.ndarray) -> np.ndarray:
        return np.array(x[:, :n_latent], float)

    return Fitted(transform(x_train), transform)


def umap(x_train: np.ndarray, seed: int) -> Fitted:
    """UMAP, 2 axes.

    Raises
    ------
    OptionError
        If umap-learn is not installed.
    """
    with _quiet():
        try:
            from umap import UMAP
        except ImportError as error:
            raise _missing("UMAP", "umap-learn") from error
        reducer = UMAP(random_state=seed, n_jobs=1)
        train = np.asarray(reducer.fit_transform(x_train), float)
    return Fitted(train, _placing(reducer))


def tsne(x_train: np.ndarray, seed: int) -> Fitted:
    """t-SNE, 2 axes; new samples are placed by openTSNE with all training samples held.

    Raises
    ------
    OptionError
        If openTSNE is not installed.
    """
    with _quiet():
        try:
            from openTSNE import TSNE
        except ImportError as error:
            raise _missing("t-SNE", "openTSNE") from error
        fitted = TSNE(random_state=seed, n_jobs=1).fit(x_train)
    # openTSNE's transform begins by centring the fitted map in place; new samples lie on that one.
    fitted -= (fitted.max(0) + fitted.min(0)) / 2
    return Fitted(np.array(fitted, float), _placing(fitted))


REDUCTIONS: dict[str, Callable[[np.ndarray, int], Fitted]] = {
    "pca": pca,
    "umap": umap,
    "tsne": tsne,
}


def _placing(reducer: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Its own `transform`, which neither library has for no samples at all."""

    def transform(x: np.ndarray) -> np.ndarray:
        with _quiet():
            return np.asarray(reducer.transform(x), float) if len(x) else np.empty((0, 2))

    return transform


def _quiet() -> warnings.catch_warnings:
    """Both libraries warn of their own parts, and UMAP that a seed means one thread."""
    return warnings.catch_warnings(action="ignore")


def _missing(method: str, package: str) -> OptionError:
    return OptionError(
        f'{method} needs {package}, which is not installed: pip install "ancestry-ddvi[benchmark]"'
    )
