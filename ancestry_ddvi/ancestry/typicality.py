"""Whether a sample is like anything in the reference.

    u_l        = (log p(g | l) - mean over l) / m              m sites that the sample has
    D(u)       = -2 max_l max_{0 <= s, t <= 1} log N(u - s c_l - t e_l; mu_l, C_l)
    typicality = share of training samples with a larger D

u holds where a sample is among the populations; one that is like none of them has a small
typicality, whatever its probabilities say, if there are sites enough. c_l is what being counted in
population l adds to a sample's u, and half of it where a parent is; e_l what errors in `MAX_ERROR`
of its alleles add. Neither makes a sample one of another ancestry, so both are taken out as far as
brings it nearer.

    power      = share of the training samples of a group that have a typicality below `ATYPICAL`
                 where its populations are taken out of u and of the max, mean over groups
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHRINKAGE = 100
"""Training samples of a population at which its own covariance counts as much as that of all."""

ATYPICAL = 0.01
"""Typicality at which `power` is told."""

MAX_ERROR = 0.01
"""Genotyping errors an allele, at most, that are taken out."""

N_QUANTILES = 1001


@dataclass(frozen=True)
class Neighbourhoods:
    """Where the samples of each of L populations are; one of the L differences u is given by the
    others.

    Attributes
    ----------
    centre, factor
        mu_l (L, L - 1), and L_l of C_l = L_l L_l' (L, L - 1, L - 1).
    shift
        (L, 2, L - 1) c_l and e_l.
    atypical
        (N_QUANTILES,) quantiles of D over training samples, ascending. Of n training samples one
        new one in n + 1 has a larger D than all of them, which may be more than `ATYPICAL`.
    """

    centre: np.ndarray
    factor: np.ndarray
    shift: np.ndarray
    atypical: np.ndarray

    @classmethod
    def learn(
        cls, u: np.ndarray, label: np.ndarray, fold: np.ndarray, shift: np.ndarray
    ) -> Neighbourhoods:
        """From differences (n, L), the true populations (n,), folds (n,) and shifts (L, 2, L)."""
        distance = cross_distance(u, label, fold, shift)
        quantiles = np.quantile(distance, np.linspace(0, 1, N_QUANTILES))
        return cls(*normal_distributions(u, label), shift[..., 1:], quantiles)

    def typicality(self, u: np.ndarray) -> np.ndarray:
        """(n,) share of training samples that are less typical than u (n, L), never 0."""
        found = _distance(u, self.centre, self.factor, self.shift)
        below = np.interp(found, self.atypical, np.linspace(0, 1, len(self.atypical)))
        typical: np.ndarray = np.maximum(1 - below, 1 / len(self.atypical))
        return typical


def powers(
    likelihood: np.ndarray,
    n_sites: np.ndarray,
    label: np.ndarray,
    fold: np.ndarray,
    shift: np.ndarray,
    group: np.ndarray,
) -> np.ndarray:
    """(G,) share of the samples of each group that are told to be of none of the populations where
    these are those of the other groups; nan where these are fewer than two, which tell nothing.

    Parameters
    ----------
    likelihood, n_sites, label, fold, shift
        As in `Calibration.learn`.
    group
        (L,) number of each population's group.
    """
    found = np.full(group.max() + 1, np.nan)
    for g in range(len(found)):
        there = np.flatnonzero(group != g)
        if len(there) < 2:
            continue
        u = differences(likelihood[:, there]) / n_sites[:, None]
        number = np.searchsorted(there, label)
        new = group[label] == g
        known = u[~new], number[~new]
        moved = differences(shift[there][..., there])
        usual = np.quantile(cross_distance(*known, fold[~new], moved), 1 - ATYPICAL)
        found[g] = (distance(*known, moved, u[new]) > usual).mean()
    return found


def differences(likelihood: np.ndarray) -> np.ndarray:
    """(..., L) without the part that all populations share."""
    centred: np.ndarray = likelihood - likelihood.mean(axis=-1, keepdims=True)
    return centred


def distance(u: np.ndarray, label: np.ndarray, shift: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(k,) D of new (k, L) differences from the populations (n,) of samples with those (n, L)."""
    return _distance(new, *normal_distributions(u, label), shift[..., 1:])


def cross_distance(
    u: np.ndarray, label: np.ndarray, fold: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """(n,) D of samples from the populations of the other folds."""
    found = np.empty(len(u))
    for k in np.unique(fold):
        new = fold == k
        found[new] = distance(u[~new], label[~new], shift, u[new])
    return found


def normal_distributions(u: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (L, L - 1) and Cholesky factor (L, L - 1, L - 1) of every population."""
    u = u[:, 1:]
    n_classes, k = u.shape[1] + 1, u.shape[1]
    size = np.bincount(label, minlength=n_classes)
    centre = np.array([u[label == j].mean(axis=0) for j in range(n_classes)])
    residual = u - centre[label]
    pooled = residual.T @ residual / (len(u) - n_classes)
    pooled += 1e-9 * np.trace(pooled) / k * np.eye(k)
    factor = np.empty((n_classes, k, k))
    for j in range(n_classes):
        own = residual[label == j]
        share = size[j] / (size[j] + SHRINKAGE)
        covariance = share * (own.T @ own) / max(size[j] - 1, 1) + (1 - share) * pooled
        factor[j] = np.linalg.cholesky(covariance)
    return centre, factor


def _distance(
    u: np.ndarray, centre: np.ndarray, factor: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """(n,) D, up to a constant."""
    from scipy.linalg import solve_triangular

    least = np.full(len(u), np.inf)
    for mean, root, moved in zip(centre, factor, shift, strict=True):
        white, moves = (solve_triangular(root, x.T, lower=True) for x in (u[:, 1:] - mean, moved))
        here = _least_square(white, moves) + 2 * np.log(np.diag(root)).sum()
        least = np.minimum(least, here)
    return least


def _least_square(w: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """(n,) min_{0 <= s, t <= 1} |w - s c - t e|^2 of w (k, n) and the two moves c, e (k, 2)."""
    # The ridge is for a move of length 0 and for two in one direction.
    gram = moves.T @ moves
    gram = gram + (1e-9 * np.trace(gram) + 1e-300) * np.eye(2)
    along = moves.T @ w
    inside = np.linalg.solve(gram, along)
    found = [inside.clip(0, 1)]
    # A convex function has its least value in a square inside or on one of four edges.
    for i, j in ((0, 1), (1, 0)):
        for end in (0.0, 1.0):
            on_edge = np.empty_like(along)
            on_edge[i] = end
            on_edge[j] = ((along[j] - end * gram[i, j]) / gram[j, j]).clip(0, 1)
            found.append(on_edge)
    gained = [(2 * along * x - x * (gram @ x)).sum(axis=0) for x in found]
    least: np.ndarray = (w**2).sum(axis=0) - np.max(gained, axis=0)
    return least
