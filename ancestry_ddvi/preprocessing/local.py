"""Components of one region of the map: structure that no component of all samples shows.

Principal components of all samples spend themselves on the differences between continents. What
tells two populations of one continent apart is a small share of all variance, and drowns in the
noise of the tail, but is a large share of the variance within that continent.

    regions     Gaussian mixture on the leading components of the training samples; their number by
                the Bayesian information criterion (Schwarz 1978)
    local       eigenvectors of X_r X_r' / m, X_r the scaled genotypes of the training samples of
                region r, centred there, without what the components so far explain; kept where the
                eigenvalue stands above the noise (Baik, Ben Arous & Peche 2005), a new sample
                would keep a share rho > MIN_RHO of what a training sample shows, and more samples
                than a family make it (kurtosis below MAX_KURTOSIS)

Their loadings are made orthonormal to all before them, so that every column of the features has
the same noise: a new sample's score in a direction without signal has variance n / m.

    denoised    E[ t | x ],   t ~ sum_r w_r N(m_r, S_r),   x | t ~ N(t, (n / m) I)

is the best guess of a sample's scores without that noise (Robbins 1956; the normal case is
Wiener's). Local components of a region say nothing of samples elsewhere, and there they go.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

N_LEADING = 10
"""Leading components that regions are found in."""

MAX_REGIONS = 16

N_STARTS = 3
"""Fits of each mixture, the likeliest of which counts: with one, 3 variants more or less of 15,802
made 12 or 15 regions of the bundled data, with three 12."""

MIN_REGION = 60
"""Training samples that a region needs: fewer do not show components of their own."""

MAX_KURTOSIS = 6.0
"""Of the scores of a component: above, a few samples stand out and the others lie together."""

MIN_RHO = 0.15
"""Least share of a training sample's score that a new sample keeps."""


def find_regions(x: np.ndarray, max_regions: int = MAX_REGIONS) -> np.ndarray:
    """(n,) int, the region of each training sample, from its components x (n, K).

    Regions are numbered by size, largest first, and have at least `MIN_REGION` samples: smaller
    ones go to the next likely. One region if there are too few samples for two.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    n = len(x)
    # In units of the leading component, so that the ridge on covariances is small for all.
    leading = x[:, :N_LEADING] / x[:, :1].std()
    best, least = None, np.inf
    for n_regions in range(1, min(max_regions, n // MIN_REGION) + 1):
        mixture = GaussianMixture(n_regions, random_state=0, reg_covar=1e-6, n_init=N_STARTS)
        with warnings.catch_warnings():
            # One that has not converged is judged by its criterion like the others.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(leading)
        if (criterion := mixture.bic(leading)) < least:
            best, least = mixture, criterion
    if best is None:
        return np.zeros(n, dtype=int)
    probability = best.predict_proba(leading)
    while True:
        region = probability.argmax(axis=1)
        size = np.bincount(region, minlength=probability.shape[1])
        small = np.flatnonzero((size > 0) & (size < MIN_REGION))
        if not len(small) or (size > 0).sum() == 1:
            break
        # The smallest goes first: its samples may be what another one lacks.
        probability[:, small[size[small].argmin()]] = -1
    by_size = np.argsort(-size, kind="stable")
    numbered: np.ndarray = np.argsort(by_size)[region]
    return numbered


def is_shared(vector: np.ndarray) -> np.ndarray:
    """(k,) bool: eigenvectors (n, k) that many samples make, and not a family.

    n sum_i v_i^4 is the kurtosis of the scores: 3 for noise, 1 to 6 for two populations unless one
    is less than an eighth of the samples, n / 2 for a pair of cousins.
    """
    shared: np.ndarray = len(vector) * (vector**4).sum(axis=0) < MAX_KURTOSIS
    return shared


@dataclass(frozen=True)
class Denoiser:
    """Empirical-Bayes guess of scores without noise, learnt from training samples.

    Attributes
    ----------
    log_weight
        (R,) log share of each region.
    mean
        (R, K) mean scores.
    covariance
        (R, K, K) covariance of scores, noise included.
    signal
        (R, K, K) that without the noise, positive semidefinite.
    """

    log_weight: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    signal: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, region: np.ndarray, noise_variance: float) -> Denoiser:
        """Learn from scores x (n, K) of training samples and their regions (n,)."""
        size = np.bincount(region)
        mean, covariance, signal = [], [], []
        for r in range(len(size)):
            part = x[region == r]
            value, vector = np.linalg.eigh(np.cov(part.T, bias=True).reshape(x.shape[1], -1))
            true = np.maximum(value - noise_variance, 0)
            mean.append(part.mean(axis=0))
            signal.append((vector * true) @ vector.T)
            # Never below the noise, so that a direction that few samples did not use has a width.
            covariance.append((vector * (true + noise_variance)) @ vector.T)
        return cls(np.log(size / len(x)), np.array(mean), np.array(covariance), np.array(signal))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, K) E[ t | x ] of scores x (n, K)."""
        from scipy.special import softmax

        joint = np.empty((len(x), len(self.mean)))
        guesses = []
        for r, (mean, covariance, signal) in enumerate(
            zip(self.mean, self.covariance, self.signal, strict=True)
        ):
            residual = x - mean
            solved = np.linalg.solve(covariance, residual.T).T
            _, log_det = np.linalg.slogdet(covariance)
            joint[:, r] = self.log_weight[r] - 0.5 * ((residual * solved).sum(axis=1) + log_det)
            guesses.append(mean + solved @ signal)
        weight = softmax(joint, axis=1)
        total: np.ndarray = np.einsum("nr,rnk->nk", weight, np.array(guesses))
        return total
