"""From likelihoods to probabilities that can be believed.

    u_l       = (log p(g | l) - mean over l) / m               m sites that the sample has
    d_l       = max_k v_k - v_l,   v = W u
    log p(l)  = -nu log(1 + a d_l / nu) + b_l                  up to a constant

Temperature and matrix scaling (Guo et al. 2017) with a heavy tail: sites are linked and samples are
admixed, so that likelihoods are far too sure of themselves, and now and then wrong by much. W is
drawn towards the identity. All is learnt from log-likelihoods of training samples in populations
that were counted without the sample itself, at several numbers of sites; a last temperature (Guo et
al. 2017) from samples that W was not learnt from. A sample of one allele a site counts as one with
half as many sites, and one whose sites are linked as one with fewer (`effective_sites`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestry_ddvi.ancestry.typicality import Neighbourhoods, differences
from ancestry_ddvi.errors import NotEnoughDataError

IDENTITY_WEIGHT = 1.0
"""Of the squared distance of W from the identity, in nats a sample."""

BIAS_WEIGHT = 1e-4
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
    near
        What typicality is told by.
    power
        Share of samples of an ancestry that the reference lacks that typicality tells: each group
        left out in turn; nan where none can be.
    """

    n_sites: float
    weight: np.ndarray
    bias: np.ndarray
    slope: float
    tail: float
    near: Neighbourhoods
    power: float

    @classmethod
    def learn(
        cls,
        likelihood: np.ndarray,
        n_sites: np.ndarray,
        label: np.ndarray,
        fold: np.ndarray,
        shift: np.ndarray,
        start: Calibration | None = None,
        temperature: float = 1.0,
        power: float = 0.0,
    ) -> Calibration:
        """From (n, L) log-likelihoods over about as many sites (n,), the true populations (n,), and
        folds (n,) for the distances to populations; sooner from a `start` of more or fewer sites.
        `shift` is from `mean_shift`, the `temperature` from `cross_fitted`, the `power`
        from `powers`.
        """
        u = differences(likelihood) / n_sites[:, None]
        weight, bias, slope, tail = _fit_link(u, label, start)
        near = Neighbourhoods.learn(u, label, fold, differences(shift))
        # T times the link is the link with these three T times as large.
        t = temperature
        link = weight, t * bias, t * slope, t * tail
        return cls(float(n_sites.mean()), *link, near, power)

    def log_probability(self, u: np.ndarray) -> np.ndarray:
        """(n, L) log p(l | g) of (n, L) differences."""
        with torch.no_grad():
            return _link(
                *map(torch.as_tensor, (u, self.weight, self.bias, self.slope, self.tail))
            ).numpy()

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `from_state` rebuilds it."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "near"}
        near = {f.name: getattr(self.near, f.name) for f in fields(self.near)}
        return {name: np.asarray(value, dtype=float) for name, value in (own | near).items()}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Calibration:
        """Rebuild from `state`."""
        values: dict[str, Any] = dict(state)
        near = Neighbourhoods(**{f.name: values.pop(f.name) for f in fields(Neighbourhoods)})
        scalars = ("n_sites", "slope", "tail", "power")
        return cls(**values | {k: float(state[k].item()) for k in scalars}, near=near)


def between(
    levels: Sequence[Calibration], u: np.ndarray, n_sites: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (n, L) and typicality (n,), between levels linear in log m.

    Parameters
    ----------
    levels
        Ascending in their number of sites.
    u, n_sites
        Differences (n, L), and for how many random sites (n,) what says as much counts; at least 1.
        Outside of the levels the nearest counts.
    """
    at = np.log([level.n_sites for level in levels])
    position = np.interp(np.log(n_sites), at, np.arange(len(levels)))
    log_p = np.zeros(u.shape)
    log_typicality = np.zeros(len(u))
    for i, level in enumerate(levels):
        share = np.clip(1 - np.abs(position - i), 0, 1)
        rows = share > 0
        if not rows.any():
            continue
        log_p[rows] += share[rows, None] * level.log_probability(u[rows])
        log_typicality[rows] += share[rows] * np.log(level.near.typicality(u[rows]))
    log_p -= _log_sum(log_p)
    return log_p, np.exp(log_typicality)


def cross_fitted(
    likelihood: np.ndarray, n_sites: np.ndarray, label: np.ndarray, fold: np.ndarray
) -> tuple[float, np.ndarray]:
    """Log-probabilities (n, L) of samples by a link that was learnt from the other folds, made
    flatter or sharper by the one temperature of least log loss, which comes first: W is too sure of
    the samples that it was learnt from. Arguments as those of `Calibration.learn`."""
    from scipy.optimize import minimize_scalar

    u = differences(likelihood) / n_sites[:, None]
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
    # In units of a typical lead of the best over the next, where all that is learnt is near 1 and
    # single precision will do, in half the time; where populations are so far apart that the loss
    # is flat, its line search may fail.
    top = np.sort(u, axis=1)
    unit = float(np.median(top[:, -1] - top[:, -2])) + 1e-12
    for dtype in (torch.float32, torch.float64):
        try:
            found = _least_loss(torch.as_tensor(u / unit, dtype=dtype), label, start)
        except RuntimeError:
            continue
        if all(np.isfinite(part).all() for part in found):
            weight, bias, slope, tail = found
            return weight, bias, slope / unit, tail
    raise NotEnoughDataError(
        f"no calibration of {u.shape[1]} populations by {len(u)} labelled samples was found; leave "
        "out the smallest populations, or learn without labels"
    )


def _least_loss(
    x: Tensor, label: np.ndarray, start: Calibration | None
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """`_fit_link` in the units and the precision of x."""
    n_classes, y = x.shape[1], torch.as_tensor(label)
    identity = torch.eye(n_classes, dtype=x.dtype)
    first = (0.0, 1.0, np.zeros((n_classes, n_classes)), np.zeros(n_classes))
    if start is not None:
        first = (0.0, float(np.log(start.tail)), start.weight - np.eye(n_classes), start.bias)
    parameters = [torch.tensor(v, dtype=x.dtype, requires_grad=True) for v in first]
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
        total = total + 1e-3 * (log_tail - 1).square() + 1e-3 * log_slope.square()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return (
            (identity + off).double().numpy(),
            bias.double().numpy(),
            float(log_slope.exp()),
            float(log_tail.exp()),
        )
