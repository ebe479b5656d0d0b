"""From likelihoods to probabilities that can be believed, and to typicality.

    u_l       = (log p(g | l) - mean over l) / m               m sites that the sample has
    d_l       = max_k v_k - v_l,   v = W u
    log p(l)  = -nu log(1 + a d_l / nu) + b_l                  up to a constant

Temperature and matrix scaling (Guo et al. 2017) with a heavy tail: sites are linked and samples are
admixed, so that likelihoods are far too sure of themselves, and now and then wrong by much. W is
drawn towards the identity. All is learnt from log-likelihoods of training samples in populations
that were counted without the sample itself, at several numbers of sites; a last temperature (Guo et
al. 2017) from samples that W was not learnt from. A sample of one allele a site counts as one with
half as many sites.

    typicality = share of training samples less like their nearest population than this one,
                 by max_l N(u; mu_l, C_l)

over the differences u of a sample's likelihoods, which hold where it is among the populations. One
that is like none has a small typicality, whatever p(l) says, if there are sites enough:

    power      = share of the training samples of a group that have a typicality below `ATYPICAL`
                 where its populations are taken out of u and of the max, mean over groups
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

IDENTITY_WEIGHT = 1.0
"""Of the squared distance of W from the identity, in nats a sample."""

BIAS_WEIGHT = 1e-4
SHRINKAGE = 100
"""Training samples of a population at which its own covariance counts as much as that of all."""

ATYPICAL = 0.01
"""Typicality at which `power` is told."""

N_QUANTILES = 1001
MAX_ITERATIONS = 100


@dataclass(frozen=True)
class Calibration:
    """What was learnt at one number of sites, for L populations.

    Attributes
    ----------
    n_sites
        m.
    weight, bias
        W (L, L), b (L,).
    slope, tail
        a m (of log-likelihoods in nats a site) and nu.
    centre, factor
        mu_l (L, L - 1), and L_l of C_l = L_l L_l' (L, L - 1, L - 1).
    atypical
        (N_QUANTILES,) quantiles of -2 max_l log N over training samples, ascending.
    power
        Share of samples of an ancestry that the reference lacks that typicality tells: each group
        left out in turn.
    """

    n_sites: float
    weight: np.ndarray
    bias: np.ndarray
    slope: float
    tail: float
    centre: np.ndarray
    factor: np.ndarray
    atypical: np.ndarray
    power: float

    @classmethod
    def learn(
        cls,
        likelihood: np.ndarray,
        n_sites: np.ndarray,
        label: np.ndarray,
        fold: np.ndarray,
        start: Calibration | None = None,
        temperature: float = 1.0,
        power: float = 0.0,
    ) -> Calibration:
        """From (n, L) log-likelihoods over about as many sites (n,), the true populations (n,), and
        folds (n,) for the distances to populations; sooner from a `start` of more or fewer sites.
        The `temperature` is one of `cross_fitted`, the `power` of `powers`.
        """
        u = _differences(likelihood) / n_sites[:, None]
        weight, bias, slope, tail = _fit_link(u, label, start)
        distance = _cross_distance(u, label, fold)
        quantiles = np.quantile(distance, np.linspace(0, 1, N_QUANTILES))
        centre, factor = _classes(u, label)
        # T times the link is the link with these three T times as large.
        t = temperature
        link = weight, t * bias, t * slope, t * tail
        return cls(float(n_sites.mean()), *link, centre, factor, quantiles, power)

    def log_probability(self, likelihood: np.ndarray, n_sites: np.ndarray) -> np.ndarray:
        """(n, L) log p(l | g) of (n, L) log-likelihoods over (n,) sites."""
        u = _differences(likelihood) / n_sites[:, None]
        with torch.no_grad():
            return _link(
                *map(torch.as_tensor, (u, self.weight, self.bias, self.slope, self.tail))
            ).numpy()

    def typicality(self, likelihood: np.ndarray, n_sites: np.ndarray) -> np.ndarray:
        """(n,) share of training samples that are less typical, never 0."""
        u = _differences(likelihood) / n_sites[:, None]
        distance = _distance(u, self.centre, self.factor)
        below = np.interp(distance, self.atypical, np.linspace(0, 1, len(self.atypical)))
        typical: np.ndarray = np.maximum(1 - below, 1 / len(self.atypical))
        return typical

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `from_state` rebuilds it."""
        return {f.name: np.asarray(getattr(self, f.name), dtype=float) for f in fields(self)}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Calibration:
        """Rebuild from `state`."""
        values: dict[str, Any] = dict(state)
        return cls(
            **values | {k: float(state[k].item()) for k in ("n_sites", "slope", "tail", "power")}
        )


def between(
    levels: Sequence[Calibration], likelihood: np.ndarray, n_sites: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (n, L) and typicality (n,), between levels linear in log m.

    Parameters
    ----------
    levels
        Ascending in their number of sites.
    likelihood, n_sites
        (n, L), (n,); n_sites at least 1. Outside of the levels the nearest counts.
    """
    at = np.log([level.n_sites for level in levels])
    position = np.interp(np.log(n_sites), at, np.arange(len(levels)))
    log_p = np.zeros(likelihood.shape)
    log_typicality = np.zeros(len(likelihood))
    for i, level in enumerate(levels):
        share = np.clip(1 - np.abs(position - i), 0, 1)
        rows = share > 0
        if not rows.any():
            continue
        given = likelihood[rows], n_sites[rows]
        log_p[rows] += share[rows, None] * level.log_probability(*given)
        log_typicality[rows] += share[rows] * np.log(level.typicality(*given))
    log_p -= _log_sum(log_p)
    return log_p, np.exp(log_typicality)


def cross_fitted(
    likelihood: np.ndarray, n_sites: np.ndarray, label: np.ndarray, fold: np.ndarray
) -> tuple[float, np.ndarray]:
    """Log-probabilities (n, L) of samples by a link that was learnt from the other folds, made
    flatter or sharper by the one temperature of least log loss, which comes first: W is too sure of
    the samples that it was learnt from. Arguments as those of `Calibration.learn`."""
    from scipy.optimize import minimize_scalar

    u = _differences(likelihood) / n_sites[:, None]
    log_p = np.empty_like(u)
    for k in np.unique(fold):
        new = fold == k
        link = _fit_link(u[~new], label[~new], None)
        with torch.no_grad():
            log_p[new] = _link(*map(torch.as_tensor, (u[new], *link))).numpy()

    def at(log_t: float) -> np.ndarray:
        scaled: np.ndarray = np.exp(log_t) * log_p
        scaled -= _log_sum(scaled)
        return scaled

    def loss(log_t: float) -> float:
        return -float(at(log_t)[np.arange(len(label)), label].mean())

    log_t = float(minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x)
    return float(np.exp(log_t)), at(log_t)


def powers(
    likelihood: np.ndarray,
    n_sites: np.ndarray,
    label: np.ndarray,
    fold: np.ndarray,
    group: np.ndarray,
) -> np.ndarray:
    """(G,) share of the samples of each group that are told to be of none of the populations where
    these are those of the other groups; 0 where these are fewer than two, which tell nothing.

    Parameters
    ----------
    likelihood, n_sites, label, fold
        As in `Calibration.learn`.
    group
        (L,) number of each population's group.
    """
    found = np.zeros(group.max() + 1)
    for g in range(len(found)):
        there = np.flatnonzero(group != g)
        if len(there) < 2:
            continue
        u = _differences(likelihood[:, there]) / n_sites[:, None]
        number = np.searchsorted(there, label)
        new = group[label] == g
        known = u[~new], number[~new]
        usual = np.quantile(_cross_distance(*known, fold[~new]), 1 - ATYPICAL)
        found[g] = (_distance(u[new], *_classes(*known)) > usual).mean()
    return found


def _cross_distance(u: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(n,) distances of samples to populations of the other folds."""
    distance = np.empty(len(u))
    for k in np.unique(fold):
        new = fold == k
        distance[new] = _distance(u[new], *_classes(u[~new], label[~new]))
    return distance


def _differences(likelihood: np.ndarray) -> np.ndarray:
    """Without the part that all populations share."""
    centred: np.ndarray = likelihood - likelihood.mean(axis=1, keepdims=True)
    return centred


def _log_sum(values: np.ndarray) -> np.ndarray:
    from scipy.special import logsumexp

    total: np.ndarray = logsumexp(values, axis=1, keepdims=True)
    return total


def _link(u: Tensor, weight: Tensor, bias: Tensor, slope: Tensor, tail: Tensor) -> Tensor:
    v = u @ weight
    behind = v.amax(1, keepdim=True) - v
    score: Tensor = -tail * torch.log1p(slope * behind / tail) + bias
    return score.log_softmax(dim=1)


def _fit_link(
    u: np.ndarray, label: np.ndarray, start: Calibration | None
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """W, b, a and nu of least penalised log loss."""
    n_classes = u.shape[1]
    # In units of a typical lead of the best over the next, where all that is learnt is near 1 and
    # single precision will do.
    top = np.sort(u, axis=1)
    unit = float(np.median(top[:, -1] - top[:, -2])) + 1e-12
    x, y = torch.as_tensor((u / unit).astype(np.float32)), torch.as_tensor(label)
    identity = torch.eye(n_classes)
    first = (0.0, 1.0, np.zeros((n_classes, n_classes)), np.zeros(n_classes))
    if start is not None:
        first = (0.0, float(np.log(start.tail)), start.weight - np.eye(n_classes), start.bias)
    parameters = [torch.tensor(v, dtype=torch.float32, requires_grad=True) for v in first]
    log_slope, log_tail, off, bias = parameters
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=MAX_ITERATIONS,
        tolerance_change=1e-6,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        log_p = _link(x, identity + off, bias, log_slope.exp(), log_tail.exp())
        total: Tensor = -log_p[torch.arange(len(y)), y].mean()
        total = total + IDENTITY_WEIGHT * off.square().sum() + BIAS_WEIGHT * bias.square().sum()
        # Weak, and all that holds them where no sample is in doubt.
        total = total + 1e-3 * (log_tail - 1).square() + 1e-4 * log_slope.square()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return (
            (identity + off).double().numpy(),
            bias.double().numpy(),
            float(log_slope.exp()) / unit,
            float(log_tail.exp()),
        )


def _classes(u: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and Cholesky factor of every population; one of the L differences is given by the
    others."""
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


def _distance(u: np.ndarray, centre: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """(n,) -2 max_l log N(u; mu_l, C_l), up to a constant."""
    from scipy.linalg import solve_triangular

    least = np.full(len(u), np.inf)
    for mean, root in zip(centre, factor, strict=True):
        white = solve_triangular(root, (u[:, 1:] - mean).T, lower=True)
        here = (white**2).sum(axis=0) + 2 * np.log(np.diag(root)).sum()
        least = np.minimum(least, here)
    return least
