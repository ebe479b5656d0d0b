"""Gaussian mixtures, learnt or fixed.

    p(z) = sum_c w_c N(z; m_c, diag(s_c^2)),   w = softmax(logits)

With learnt w, m, s this is the first form of clustering of Piriyakulkij, Wang & Kuleshov 2025: a
sample's membership is the posterior probability of the component, averaged over its draws. Fixed
ones are the prior of its second form, and of semi-supervised learning.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.priors.base import ComponentPrior, NormalComponents, check_n_components
from ancestry_ddvi.errors import OptionError

APART = 6.0
"""Distance of the nearest two components of `FixedMixturePrior.spread`, in their own sd."""


class _NormalMixture(ComponentPrior):
    """Components with a diagonal covariance; a subclass owns logits (C,), mean, log_sd (C, D)."""

    mean: Tensor
    log_sd: Tensor

    def component_log_prob(self, z: Tensor) -> Tensor:
        """log w_c + log N(z; m_c, s_c), (..., n_components) for z (..., D)."""
        # Components on the last axis: sums over the few latents are slow there.
        square = ((z.unsqueeze(-1) - self.mean.T) * torch.exp(-self.log_sd).T) ** 2
        log_scale = (self.log_sd + 0.5 * math.log(2 * math.pi)).sum(-1)
        return self.log_weight() - log_scale - 0.5 * square.sum(-2)

    def normal_components(self) -> NormalComponents:
        """The components themselves."""
        return NormalComponents(self.log_weight(), self.mean, torch.exp(self.log_sd))

    def sample_component(self, c: Tensor, generator: torch.Generator) -> Tensor:
        """(n, D) draws of N(m_c, s_c)."""
        normal = torch.randn((len(c), self.n_latent), generator=generator)
        return self.mean[c] + torch.exp(self.log_sd[c]) * normal


class MixturePrior(_NormalMixture):
    """Gaussian mixture with diagonal covariances, learnable by gradient.

    Parameters
    ----------
    n_components
        Number of components, >= 1.
    n_latent
        D.
    generator
        Draws the first component means.
    component_class
        (n_components,) long, see `ComponentPrior`.
    """

    def __init__(
        self,
        n_components: int,
        n_latent: int,
        generator: torch.Generator,
        component_class: Tensor | None = None,
    ) -> None:
        super().__init__(n_latent, n_components, component_class)
        self.labelled = component_class is not None
        self.logits = nn.Parameter(torch.zeros(n_components))
        self.mean = nn.Parameter(torch.randn(n_components, n_latent, generator=generator))
        self.log_sd = nn.Parameter(torch.full((n_components, n_latent), math.log(0.3)))

    def divide(self, class_of_cluster: Tensor) -> None:
        """See `ComponentPrior`; from now on `sort` keeps to the classes."""
        super().divide(class_of_cluster)
        self.labelled = True

    @torch.no_grad()
    def sort(self) -> None:
        """Number the components by weight, largest first; p(z) stays as it is.

        Where classes were assigned, components change places within their class only, and p(l, z)
        stays as it is too.
        """
        order = torch.argsort(self.logits, descending=True, stable=True)
        if self.labelled:
            places = torch.argsort(self.component_class, stable=True)
            by_class = torch.argsort(self.component_class[order], stable=True)
            order = torch.empty_like(order).index_copy(0, places, order[by_class])
        for parameter in (self.logits, self.mean, self.log_sd):
            parameter.copy_(parameter[order].clone())


class FixedMixturePrior(_NormalMixture):
    """Gaussian mixture with diagonal covariances that no training changes.

    Its numbers are buffers: they are saved, but no optimiser sees them.

    Parameters
    ----------
    mean
        (C, D) component means.
    sd
        (C, D) standard deviations, or what broadcasts to them; > 0.
    weight
        (C,) weights, > 0, of any sum; equal if left out.
    component_class
        (C,) long, see `ComponentPrior`.

    Raises
    ------
    OptionError
        If C < 1, an sd or a weight is not positive, or the assignment to classes is at fault.
    """

    def __init__(
        self,
        mean: Tensor,
        sd: Tensor,
        weight: Tensor | None = None,
        component_class: Tensor | None = None,
    ) -> None:
        super().__init__(mean.shape[1], len(mean), component_class)
        weight = torch.ones(len(mean)) if weight is None else weight
        for name, value in (("sd", sd), ("weight", weight)):
            if not (value > 0).all():
                raise OptionError(f"{name} of a mixture must be positive, not {value.min():g}")
        self.register_buffer("logits", weight.log())
        self.register_buffer("mean", mean.clone())
        self.register_buffer("log_sd", sd.log().expand(mean.shape).clone())

    @classmethod
    def spread(
        cls,
        n_components: int,
        n_latent: int,
        generator: torch.Generator,
        component_class: Tensor | None = None,
    ) -> FixedMixturePrior:
        """Equal round components, well apart, with mean 0 and unit mean square per axis.

        Their means are a quantiser of N(0, I), so together they cover what a standard normal
        covers, in any dimension.
        """
        check_n_components(n_components)
        if n_components == 1:
            return cls(torch.zeros(1, n_latent), torch.ones(()), component_class=component_class)
        mean = _quantiser(n_components, n_latent, generator)
        mean = mean - mean.mean(0)
        mean = mean / mean.square().mean().sqrt()
        sd = torch.pdist(mean).min() / APART
        unit = torch.sqrt(1 + sd**2)
        return cls(mean / unit, sd / unit, component_class=component_class)


def _quantiser(n_points: int, n_latent: int, generator: torch.Generator) -> Tensor:
    """(n_points, D) points, each the mean of the N(0, I) draws nearest to it (Lloyd 1982)."""
    draws = torch.randn((200 * n_points, n_latent), generator=generator)
    point = draws[:n_points]
    for _ in range(50):
        nearest = torch.cdist(draws, point).argmin(-1)
        count = torch.bincount(nearest, minlength=n_points).unsqueeze(-1)
        total = torch.zeros_like(point).index_add(0, nearest, draws)
        point = torch.where(count > 0, total / count.clamp(min=1), point)
    return point
