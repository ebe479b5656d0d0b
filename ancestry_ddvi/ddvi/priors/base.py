"""What every prior is: a sum over components, and a partition of the components into classes.

    p(z)    = sum_c w_c p(z | c),              w = softmax(logits)
    p(l, z) = sum_{c in l} w_c p(z | c),       p(l) = sum_{c in l} w_c

A class l is a set of components (an arm, a side, some Gaussians). The sets are disjoint and cover
all components, so sum_l p(l, z) = p(z) without approximation: what the semi-supervised bound of
Piriyakulkij, Wang & Kuleshov 2025 needs when it sums over the label of an unlabelled sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor, nn

from ancestry_ddvi.errors import OptionError


class Prior(Protocol):
    """Any p(z) with a density and draws."""

    @property
    def n_latent(self) -> int:
        """D."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, (...,) for z (..., D)."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, D) draws."""


class PartitionedPrior(Prior, Protocol):
    """A prior whose mass is divided among labelled classes."""

    @property
    def n_classes(self) -> int:
        """Number of classes, >= 1; labels are 0..n_classes - 1."""

    def class_log_weight(self) -> Tensor:
        """log p(l), (n_classes,)."""

    def class_log_prob(self, z: Tensor) -> Tensor:
        """log p(l) + log p(z | l) in nats, (..., n_classes) for z (..., D)."""

    def sample_class(self, label: Tensor, generator: torch.Generator) -> Tensor:
        """(n, D) draws of p(z | l), one for each label (n,)."""


@dataclass(frozen=True)
class NormalComponents:
    """A prior as Gaussians along the axes: log_weight (C,), mean (C, D), sd (C, D)."""

    log_weight: Tensor
    mean: Tensor
    sd: Tensor


class ComponentPrior(nn.Module, ABC):
    """A `PartitionedPrior` made of components; a subclass says what one component is.

    Parameters
    ----------
    n_latent
        D.
    n_components
        C >= 1.
    component_class
        (C,) long, the class of each component; every component is its own class if left out. It is
        a setting and not a weight: it is not in the state_dict.

    Raises
    ------
    OptionError
        If C < 1, or the assignment has another length, no integers, or a class without component.
    """

    logits: Tensor
    component_class: Tensor

    def __init__(
        self, n_latent: int, n_components: int, component_class: Tensor | None = None
    ) -> None:
        super().__init__()
        check_n_components(n_components)
        self.n_latent = n_latent
        if component_class is None:
            component_class = torch.arange(n_components)
        else:
            _check_component_class(component_class, n_components)
        self.register_buffer("component_class", component_class.clone(), persistent=False)

    @abstractmethod
    def component_log_prob(self, z: Tensor) -> Tensor:
        """log w_c + log p(z | c), (..., C) for z (..., D)."""

    @abstractmethod
    def sample_component(self, c: Tensor, generator: torch.Generator) -> Tensor:
        """(n, D) draws of p(z | c), one for each component number (n,)."""

    def normal_components(self) -> NormalComponents | None:
        """The components, if they are Gaussians along the axes."""
        return None

    @property
    def n_components(self) -> int:
        """C."""
        return len(self.component_class)

    @property
    def n_classes(self) -> int:
        """Number of classes, >= 1."""
        return int(self.component_class.max()) + 1

    @property
    def cluster(self) -> Tensor:
        """(C,) long, the cluster that each component stands for: itself, or a part of one."""
        return torch.arange(self.n_components)

    def divide(self, class_of_cluster: Tensor) -> None:
        """Make classes of whole clusters; p(z) stays. A partition that was made so is saved.

        Parameters
        ----------
        class_of_cluster
            (n_clusters,) long, the class of each `cluster`.

        Raises
        ------
        OptionError
            As for `component_class`.
        """
        component_class = class_of_cluster[self.cluster]
        _check_component_class(component_class, self.n_components)
        self.register_buffer("component_class", component_class, persistent=True)

    @property
    def n_clusters(self) -> int:
        """Number of clusters, >= 1."""
        return int(self.cluster.max()) + 1

    def log_weight(self) -> Tensor:
        """log w, (C,)."""
        return torch.log_softmax(self.logits, dim=0)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, (...,) for z (..., D)."""
        return torch.logsumexp(self.component_log_prob(z), dim=-1)

    def membership(self, z: Tensor) -> Tensor:
        """p(c | z), (..., C)."""
        return torch.softmax(self.component_log_prob(z), dim=-1)

    def cluster_probability(self, z: Tensor) -> Tensor:
        """`membership` summed over the components of each `cluster`, (..., n_clusters)."""
        member = self.membership(z)
        total = member.new_zeros(*z.shape[:-1], self.n_clusters)
        return total.index_add(-1, self.cluster, member)

    def class_log_weight(self) -> Tensor:
        """log p(l), (n_classes,)."""
        return self._over_classes(self.log_weight())

    def class_log_prob(self, z: Tensor) -> Tensor:
        """log p(l) + log p(z | l) in nats, (..., n_classes) for z (..., D)."""
        return self._over_classes(self.component_log_prob(z))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, D) draws."""
        weight = torch.softmax(self.logits, dim=0)
        c = torch.multinomial(weight, n, replacement=True, generator=generator)
        return self.sample_component(c, generator)

    def sample_class(self, label: Tensor, generator: torch.Generator) -> Tensor:
        """(n, D) draws of p(z | l), one for each label (n,).

        Raises
        ------
        OptionError
            If a label is outside 0..n_classes - 1.
        """
        check_label(label, self.n_classes)
        outside = self.component_class != torch.arange(self.n_classes).unsqueeze(-1)
        weight = torch.softmax(self.logits.masked_fill(outside, -torch.inf), dim=-1)
        c = torch.multinomial(weight[label], 1, generator=generator).squeeze(-1)
        return self.sample_component(c, generator)

    def _over_classes(self, joint: Tensor) -> Tensor:
        """(..., C) to (..., n_classes): log of the sum over each class's components."""
        classes = [
            torch.logsumexp(joint[..., self.component_class == label], dim=-1)
            for label in range(self.n_classes)
        ]
        return torch.stack(classes, dim=-1)


def check_prior(prior: Prior, n_latent: int) -> None:
    """Raise OptionError unless it is a `Prior`, and over n_latent axes."""
    check_methods("prior", prior, ("n_latent", "log_prob(z)", "sample(n, generator)"))
    if prior.n_latent != n_latent:
        raise OptionError(
            f"{type(prior).__name__} is over {prior.n_latent} latents, not {n_latent}; set "
            f"n_latent to {prior.n_latent} or choose another prior"
        )


@torch.no_grad()
def check_prior_calls(prior: Prior) -> None:
    """Call it as training and scoring will, and look at what comes out.

    Raises
    ------
    OptionError
        If a shape is not that of `Prior`: what would else fail, or broadcast into nonsense,
        somewhere in training.
    """
    d, n_draws = prior.n_latent, 2
    n = d + n_draws  # no axis can be mistaken for another
    z = prior.sample(n, torch.Generator().manual_seed(0))
    check_shape("prior.sample(n, generator)", z, (n, d))
    check_shape("prior.log_prob(z)", prior.log_prob(z), (n,))
    try:
        log_prob = prior.log_prob(z.expand(n_draws, n, d))
    except (RuntimeError, ValueError, IndexError) as error:
        raise OptionError(
            f"prior.log_prob(z) fails at z of shape {(n_draws, n, d)} ({error}); it must take "
            "(..., D), several draws a sample"
        ) from error
    check_shape("prior.log_prob(z), several draws a sample,", log_prob, (n_draws, n))


def check_shape(call: str, given: object, shape: tuple[int, ...]) -> None:
    """Raise OptionError unless what a user's method, written as a call, gave has that shape."""
    if not isinstance(given, Tensor):
        raise OptionError(f"{call} gives a {type(given).__name__}; a tensor of {shape} is needed")
    if given.shape != shape:
        raise OptionError(
            f"{call} has shape {tuple(given.shape)}, where {shape} is needed; see the protocols in "
            "ancestry_ddvi.ddvi"
        )


def check_methods(part: str, given: object, needed: tuple[str, ...]) -> None:
    """Raise OptionError if what is given as a part of a model lacks a method, written as a call."""
    missing = [name for name in needed if not hasattr(given, name.partition("(")[0])]
    if missing:
        raise OptionError(
            f"the {part}, {type(given).__name__}, has no {', '.join(missing)}; add what is "
            "missing, as the protocols in ancestry_ddvi.ddvi say"
        )


def check_n_components(n_components: int) -> None:
    """Raise OptionError unless there is a component."""
    if not isinstance(n_components, Integral) or n_components < 1:
        raise OptionError(f"a mixture needs at least 1 component, not {n_components}")


def check_label(label: Tensor, n_classes: int) -> None:
    """Raise OptionError unless labels are integers in 0..n_classes - 1."""
    if label.dtype != torch.long:
        raise OptionError(f"labels are torch.long numbers of classes, not {label.dtype}")
    outside = label[(label < 0) | (label >= n_classes)]
    if len(outside):
        raise OptionError(
            f"label {int(outside[0])} is outside the prior's partition; known labels are 0 to "
            f"{n_classes - 1}"
        )


def _check_component_class(component_class: Tensor, n_components: int) -> None:
    if component_class.shape != (n_components,):
        raise OptionError(
            f"component_class has shape {tuple(component_class.shape)}; it needs one class for "
            f"each of {n_components} components"
        )
    check_label(component_class, n_components)
    empty = torch.nonzero(torch.bincount(component_class) == 0)
    if len(empty):
        raise OptionError(
            f"class {int(empty[0])} has no component; number the classes from 0 without gaps"
        )
