"""The posterior of a model with a Gaussian-mixture prior, one Gaussian for each component.

    p(z | x) = sum_c p(c | x) p(z | x, c),    p(z | x, c) ~ p(x | z) N(z; m_c, S_c)

Each p(z | x, c) is found by Gauss-Newton steps from m_c with Levenberg's damping, on
p(x | z) = N(x; f(z), diag(V)), V = sigma_k^2 + s^2:

    H = J' V^-1 J + S_c^-1,   step = (H + d I)^-1 ( J' V^-1 (x - f) - S_c^-1 (z - m_c) )

With z* the end and C C' = H^-1, Gauss-Hermite quadrature at z* + C xi gives the evidence of the
component, its mean and its covariance (Naylor & Smith 1982, Appl. Stat. 31:214), so that skew
shifts the Gaussian and does not only go unseen.

Where f bends over the width of a component, one Gaussian will not do; such a component is first
replaced by three narrower ones along that axis, which together are the same prior (DeMars, Bishop &
Jah 2013, J. Guid. Control Dyn. 36:1047, table 2):

    bend_d = | f(m + s_d) - 2 f(m) + f(m - s_d) | / 2   in units of V^(1/2)

Missing genotypes bury the bend in s: the fewer genotypes, the fewer components need splitting.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ancestry_ddvi.ddvi.mixture import GaussianMixture
from ancestry_ddvi.ddvi.noise import normal_log_prob
from ancestry_ddvi.ddvi.priors import NormalComponents

N_STEPS = 8
"""Gauss-Newton steps. Few samples need more than three; one that is cut short is far off."""

N_SCREENED = 2
"""Of these, as many as come before the components that fell behind are left."""

N_KEPT = 32
"""Most components of a sample that are followed."""

MARGIN = 16.0
"""Components that fall so many nats behind are left."""

MAX_BEND = 1.0
"""Components are split until f bends by less than this many standard deviations over their sd."""

MAX_GROWTH = 2
"""Splitting makes no more than so many times the prior's components."""

NEAR = 0.02
"""Slopes are taken over this share of a component's sd."""

_SHARE, _SHIFT, _WIDTH = 0.2252246249, 1.0575154615, 0.6715662887
"""Weight and place of the outer two of three that replace N(0, 1), and the sd of all three."""

WIDEST = 4.0
"""Quadrature may change the variance along an axis by at most this factor either way."""


class NormalLikelihood(Protocol):
    """p(x | z) = N(f(z), diag(exp(log_variance)))."""

    @property
    def mean(self) -> Callable[[Tensor], Tensor]:
        """f."""

    def log_variance(self, noise: Tensor) -> Tensor:
        """(..., K) for noise (...,)."""


def split(
    components: NormalComponents, likelihood: NormalLikelihood, noise: Tensor
) -> NormalComponents:
    """Narrower components where f bends, the same prior in sum (see the module's equations)."""
    most = MAX_GROWTH * len(components.mean)
    while (room := (most - len(components.mean)) // 2) > 0:
        bend = _bend(components, likelihood, noise)
        # What weighs next to nothing need not be exact.
        bend[components.log_weight < math.log(1e-4)] = 0
        worst, axis = bend.max(dim=1)
        c = torch.argsort(worst, descending=True)[:room]
        c = c[worst[c] > MAX_BEND]
        if not len(c):
            break
        components = _replaced(components, c, axis[c])
    return components


def _bend(components: NormalComponents, likelihood: NormalLikelihood, noise: Tensor) -> Tensor:
    """(C, D), see the module's equations."""
    step = torch.diag_embed(components.sd)
    at = components.mean.unsqueeze(1)
    second = likelihood.mean(at + step) - 2 * likelihood.mean(at) + likelihood.mean(at - step)
    sigma = torch.exp(0.5 * likelihood.log_variance(noise))
    bend: Tensor = (second / (2 * sigma)).norm(dim=-1)
    return bend


def _replaced(components: NormalComponents, c: Tensor, axis: Tensor) -> NormalComponents:
    """Components c by three each, along the axis given for each."""
    log_weight, mean, sd = components.log_weight, components.mean, components.sd
    others = torch.ones(len(mean), dtype=torch.bool)
    others[c] = False
    along = one_hot(axis, mean.shape[1]).to(mean.dtype)
    parts = [(log_weight[others], mean[others], sd[others])]
    for share, shift in ((_SHARE, -_SHIFT), (1 - 2 * _SHARE, 0.0), (_SHARE, _SHIFT)):
        place = mean[c] + shift * along * sd[c]
        parts.append((log_weight[c] + math.log(share), place, sd[c] * (1 + along * (_WIDTH - 1))))
    return NormalComponents(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.no_grad()
def laplace_mixture(
    components: NormalComponents, likelihood: NormalLikelihood, x: Tensor, noise: Tensor
) -> GaussianMixture:
    """p(z | x) as a mixture of Gaussians, see the module's equations.

    Parameters
    ----------
    components
        The prior.
    likelihood
        p(x | z).
    x, noise
        (n, K), (n,); each sample's mixture depends on its own row alone.

    Returns
    -------
    At most `N_KEPT` components a sample, the heaviest first.
    """
    sigma = torch.exp(0.5 * likelihood.log_variance(torch.zeros(()))).median()
    # Tier k > 0: noise from 2^(k-2) to 2^(k-1) sigma. Told by the sample alone, so that its
    # components do not depend on the company it is in.
    tier = (torch.log2((noise / sigma).clamp(min=0.25)).floor() + 2).clamp(min=0)
    tier[noise < 0.5 * sigma] = 0
    parts, order = [], []
    for level in sorted(set(tier.tolist())):
        rows = torch.nonzero(tier == level).squeeze(-1)
        least = torch.zeros(()) if level == 0 else sigma * 2 ** (level - 2)
        narrow = split(components, likelihood, least)
        parts.append(_laplace_mixture(narrow, likelihood, x[rows], noise[rows]))
        order.append(rows)
    return GaussianMixture.cat(parts).take(torch.argsort(torch.cat(order)))


def _laplace_mixture(
    components: NormalComponents, likelihood: NormalLikelihood, x: Tensor, noise: Tensor
) -> GaussianMixture:
    """`laplace_mixture` with the components as they are."""
    n, c = len(x), len(components.mean)
    problem = _Problem(
        likelihood,
        x.unsqueeze(1),
        likelihood.log_variance(noise).unsqueeze(1),
        components.log_weight.expand(n, c),
        components.mean.expand(n, c, -1),
        components.sd.expand(n, c, -1),
    )
    # At the start all samples are at the same points, so f and J are those of one sample.
    state = problem.state(problem.centre, *problem.linearised(components.mean, components.sd))
    problem, state = problem.likeliest(state, state.log_evidence_ahead(), math.inf)
    state = problem.descend(state, N_SCREENED)
    problem, state = problem.likeliest(state, state.log_evidence(), MARGIN)
    state = problem.descend(state, N_STEPS - N_SCREENED)
    return problem.integrate(state)


@dataclass(frozen=True)
class _State:
    """Where each component stands: z (n, C, D), log p(x, z, c) (n, C), gradient and H there, and
    the damping of the next step."""

    z: Tensor
    log_joint: Tensor
    gradient: Tensor
    hessian: Tensor
    damping: Tensor

    def log_evidence(self) -> Tensor:
        """Laplace's log p(x, c) up to a constant, (n, C)."""
        half_log_det: Tensor = 0.5 * torch.logdet(self.hessian)
        return self.log_joint - half_log_det

    def log_evidence_ahead(self) -> Tensor:
        """The same where the next step would end."""
        step = torch.linalg.solve(self.hessian, self.gradient.unsqueeze(-1)).squeeze(-1)
        gain: Tensor = 0.5 * (self.gradient * step).sum(-1)
        return self.log_evidence() + gain

    def where(self, better: Tensor, new: _State) -> _State:
        """The new state of those components (n, C) that are better off there."""

        def choose(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(better.reshape(*better.shape, *[1] * (old.ndim - 2)), new, old)

        parts = zip(vars(self).values(), vars(new).values(), strict=True)
        return _State(*(choose(old, new) for old, new in parts))

    def take(self, kept: Tensor) -> _State:
        """Some components of each sample, kept (n, C')."""
        return _State(*(_take(part, kept) for part in vars(self).values()))


@dataclass(frozen=True)
class _Problem:
    """x and log V (n, 1, K); components of each sample (n, C), (n, C, D), (n, C, D)."""

    likelihood: NormalLikelihood
    x: Tensor
    log_variance: Tensor
    log_weight: Tensor
    centre: Tensor
    sd: Tensor

    def take(self, kept: Tensor) -> _Problem:
        """Some components of each sample."""
        parts = (_take(part, kept) for part in (self.log_weight, self.centre, self.sd))
        return _Problem(self.likelihood, self.x, self.log_variance, *parts)

    def linearised(self, z: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
        """f (..., K) and J (..., D, K) at z (..., D) of components of that sd (..., D)."""
        # Differences are good enough: f bends little over an sd, and quadrature has the last word.
        h = NEAR * sd
        f = self.likelihood.mean(z)
        moved = self.likelihood.mean(z.unsqueeze(-2) + torch.diag_embed(h))
        return f, (moved - f.unsqueeze(-2)) / h.unsqueeze(-1)

    def log_joint(self, z: Tensor, f: Tensor) -> Tensor:
        """log p(x, z, c), (n, C)."""
        prior = normal_log_prob(z - self.centre, 2 * self.sd.log())
        return self.log_weight + prior + normal_log_prob(self.x - f, self.log_variance)

    def state(self, z: Tensor, f: Tensor, slope: Tensor) -> _State:
        """Value and derivatives at z."""
        precision = torch.exp(-self.log_variance)
        weighed = slope * precision.unsqueeze(-2)
        pull = (weighed @ (self.x - f).unsqueeze(-1)).squeeze(-1)
        gradient = pull - (z - self.centre) / self.sd**2
        hessian = weighed @ slope.mT + torch.diag_embed(self.sd**-2)
        log_joint = self.log_joint(z, f)
        return _State(z, log_joint, gradient, hessian, torch.full_like(log_joint, 1e-3))

    def descend(self, state: _State, n_steps: int) -> _State:
        """Damped steps; one that does not go up is taken back, and the next is shorter."""
        eye = torch.eye(state.z.shape[-1])
        for _ in range(n_steps):
            scale = state.hessian.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) * eye
            damped = state.hessian + state.damping[..., None, None] * scale
            step = torch.linalg.solve(damped, state.gradient.unsqueeze(-1)).squeeze(-1)
            at = state.z + step
            new = self.state(at, *self.linearised(at, self.sd))
            better = new.log_joint > state.log_joint
            damping = torch.where(better, state.damping / 10, state.damping * 10).clamp(1e-6, 1e3)
            state = replace(state.where(better, new), damping=damping)
        return state

    def likeliest(
        self, state: _State, log_evidence: Tensor, margin: float
    ) -> tuple[_Problem, _State]:
        """The `N_KEPT` components of most evidence (n, C); none counts that is further than
        `margin` behind the first, and where no sample has more, fewer are kept."""
        near = log_evidence > log_evidence.max(dim=1, keepdim=True).values - margin
        n_kept = min(N_KEPT, int(near.sum(dim=1).max()))
        kept = log_evidence.topk(n_kept, dim=1).indices
        problem = self.take(kept)
        log_weight = problem.log_weight.masked_fill(~_take(near, kept), -math.inf)
        return replace(problem, log_weight=log_weight), state.take(kept)

    def integrate(self, state: _State) -> GaussianMixture:
        """Evidence, mean and covariance of each component by quadrature around its mode."""
        n_latent = state.z.shape[-1]
        node, log_share = (values.to(state.z.dtype) for values in _quadrature(n_latent))
        # C with C C' = H^-1, from H = G G': C = G'^-1.
        lower = torch.linalg.cholesky(state.hessian)
        factor = torch.linalg.inv(lower).mT
        z = state.z.unsqueeze(-2) + node @ factor.mT  # (n, C, Q, D)
        shape = z.shape[:-1]
        prior = normal_log_prob(
            z - self.centre.unsqueeze(-2), 2 * self.sd.log().unsqueeze(-2).expand(*shape, n_latent)
        )
        fit = normal_log_prob(
            self.x.unsqueeze(-2) - self.likelihood.mean(z), self.log_variance.unsqueeze(-2)
        )
        # log of p(x, z, c) over the Gaussian that the nodes stand for.
        log_ratio = prior + fit + 0.5 * (node**2).sum(-1) + log_share
        share = torch.softmax(log_ratio, dim=-1)
        log_det = lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_evidence = self.log_weight + torch.logsumexp(log_ratio, dim=-1) - log_det
        centre = (share.unsqueeze(-1) * node).sum(-2)
        apart = node - centre.unsqueeze(-2)
        spread = (share.unsqueeze(-1) * apart).mT @ apart
        # A few nodes can miss a width; then the curvature at the mode is the better witness.
        value, vector = torch.linalg.eigh(spread)
        value = value.clamp(1 / WIDEST, WIDEST)
        half = factor @ vector * value.sqrt().unsqueeze(-2)
        mean = state.z + (factor @ centre.unsqueeze(-1)).squeeze(-1)
        return GaussianMixture.of_covariances(log_evidence, mean, half @ half.mT)


def _take(values: Tensor, kept: Tensor) -> Tensor:
    index = kept.reshape(*kept.shape, *[1] * (values.ndim - 2))
    return torch.take_along_dim(values, index, dim=1)


def _quadrature(n_latent: int) -> tuple[Tensor, Tensor]:
    """Nodes (Q, D) and log weights (Q,) for integrals against N(0, I).

    A product of Gauss-Hermite rules on few axes; on many the cubature of degree 3, which takes two
    nodes an axis (Arasaratnam & Haykin 2009).
    """
    per_axis = {1: 9, 2: 5, 3: 3, 4: 3}.get(n_latent)
    if per_axis is None:
        eye = torch.eye(n_latent) * n_latent**0.5
        return torch.cat([eye, -eye]), torch.full((2 * n_latent,), -np.log(2 * n_latent))
    node, share = np.polynomial.hermite_e.hermegauss(per_axis)
    grid = np.stack(np.meshgrid(*[node] * n_latent, indexing="ij"), -1).reshape(-1, n_latent)
    shares = np.stack(np.meshgrid(*[share] * n_latent, indexing="ij"), -1).reshape(-1, n_latent)
    log_share = np.log(shares / share.sum()).sum(-1)
    return torch.as_tensor(grid, dtype=torch.float32), torch.as_tensor(
        log_share, dtype=torch.float32
    )
