"""Priors by name, each with the options that it takes."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.priors.base import ComponentPrior, check_n_components, check_prior
from ancestry_ddvi.ddvi.priors.gaussian import GaussianPrior, check_sectors
from ancestry_ddvi.ddvi.priors.mixture import FixedMixturePrior, MixturePrior
from ancestry_ddvi.ddvi.priors.pinwheel import PinwheelPrior
from ancestry_ddvi.ddvi.priors.square import SquarePrior
from ancestry_ddvi.ddvi.priors.swiss_roll import SwissRollPrior
from ancestry_ddvi.ddvi.priors.vamp import Encoder, VampPrior
from ancestry_ddvi.errors import OptionError, check_count

Generator = torch.Generator

COUNTS = {
    "gaussian": 1,
    "pinwheel": 5,
    "swiss-roll": 5,
    "square": 4,
    "mixture": 30,
    "fixed-mixture": 10,
    "vamp": 30,
}
"""Name -> clusters that it has where no number is asked for: components, arms, pieces, sides."""


def _gaussian(
    n_latent: int, generator: Generator, *, n_classes: int = COUNTS["gaussian"]
) -> ComponentPrior:
    return GaussianPrior(n_latent, n_classes)


def _pinwheel(
    n_latent: int, generator: Generator, *, n_classes: int = COUNTS["pinwheel"]
) -> ComponentPrior:
    return PinwheelPrior(n_classes)


def _swiss_roll(
    n_latent: int, generator: Generator, *, n_classes: int = COUNTS["swiss-roll"]
) -> ComponentPrior:
    return SwissRollPrior(n_classes)


def _square(n_latent: int, generator: Generator) -> ComponentPrior:
    return SquarePrior()


def _mixture(
    n_latent: int,
    generator: Generator,
    *,
    n_components: int = COUNTS["mixture"],
    component_class: Tensor | None = None,
) -> ComponentPrior:
    return MixturePrior(n_components, n_latent, generator, component_class)


def _fixed_mixture(
    n_latent: int,
    generator: Generator,
    *,
    n_components: int = COUNTS["fixed-mixture"],
    component_class: Tensor | None = None,
) -> ComponentPrior:
    return FixedMixturePrior.spread(n_components, n_latent, generator, component_class)


def _vamp(
    n_latent: int,
    generator: Generator,
    *,
    encoder: Encoder,
    scale: Tensor,
    n_components: int = COUNTS["vamp"],
    component_class: Tensor | None = None,
) -> ComponentPrior:
    """Pseudo-inputs start at normal draws of the features' sd, `scale` (K,)."""
    check_n_components(n_components)
    normal = torch.randn((n_components, len(scale)), generator=generator)
    return VampPrior(encoder, scale * normal, component_class)


PRIORS: dict[str, Callable[..., ComponentPrior]] = {
    "gaussian": _gaussian,
    "pinwheel": _pinwheel,
    "swiss-roll": _swiss_roll,
    "square": _square,
    "mixture": _mixture,
    "fixed-mixture": _fixed_mixture,
    "vamp": _vamp,
}
"""Name -> constructor (n_latent, generator, *, options of its own)."""


_PLANE = ("pinwheel", "swiss-roll", "square")
_SHAPES = ("gaussian", "pinwheel", "swiss-roll", "fixed-mixture")
"""Priors that no training changes and that can have any number of clusters."""


def check_named_prior(name: str, n_latent: int) -> None:
    """Raise OptionError unless there is a prior of that name over n_latent axes."""
    if name not in PRIORS:
        raise OptionError(f"there is no prior {name!r}; choose one of {', '.join(PRIORS)}")
    if name in _PLANE and n_latent != 2:
        raise OptionError(
            f"the prior {name!r} is over 2 latents, not {n_latent}; set n_latent to 2 or choose "
            "another prior"
        )


def count_clusters(
    name: str, n_latent: int, n_clusters: int | None = None, n_classes: int = 0
) -> int:
    """How many clusters the prior of that name has.

    Parameters
    ----------
    name, n_latent
        See `make_prior`.
    n_clusters
        How many are asked for. As `COUNTS` says if left out; what is not learnt then has a cluster
        for each class.
    n_classes
        Classes that it is to be divided into.

    Raises
    ------
    OptionError
        If there is no such prior, or it cannot have so many.
    """
    check_named_prior(name, n_latent)
    if n_clusters is None:
        n_clusters = n_classes if n_classes and name in _SHAPES else COUNTS[name]
    if name == "square" and n_clusters != COUNTS[name]:
        raise OptionError(
            f"a square has 4 sides, not {n_clusters}; leave the number of clusters (--n-clusters, "
            "n_clusters) out, or choose another prior"
        )
    if name == "gaussian":
        check_sectors(n_latent, n_clusters)
    return n_clusters


def clustered_prior(
    name: str, n_latent: int, generator: torch.Generator, n_clusters: int, **vamp: Any
) -> ComponentPrior:
    """The prior of that name, made of so many clusters.

    Parameters
    ----------
    name, n_latent, generator
        See `make_prior`.
    n_clusters
        See `count_clusters`.
    vamp
        `encoder` and `scale`, see `make_prior`; for others they are not looked at.

    Raises
    ------
    OptionError
        As `make_prior` and `count_clusters`.
    """
    n_clusters = count_clusters(name, n_latent, n_clusters)
    takes = signature(PRIORS[name]).parameters
    count = [option for option in ("n_components", "n_classes") if option in takes]
    options: dict[str, Any] = dict.fromkeys(count, n_clusters)
    return make_prior(name, n_latent, generator, **options, **(vamp if name == "vamp" else {}))


def make_prior(
    name: str, n_latent: int, generator: torch.Generator, **options: Any
) -> ComponentPrior:
    """The prior of that name.

    Parameters
    ----------
    name
        A key of `PRIORS`.
    n_latent
        D; pinwheel, swiss-roll and square are for D = 2.
    generator
        Draws what starts at random.
    options
        `n_classes` for gaussian, pinwheel, swiss-roll; `n_components` and `component_class` for the
        mixtures and vamp; also `encoder` and `scale` (K,), the features' sd, for vamp.

    Raises
    ------
    OptionError
        If the name is unknown, an option is not one of that prior's, is missing or has an unusable
        value, or the prior is not over n_latent axes.
    """
    check_count("n_latent", n_latent)
    check_named_prior(name, n_latent)
    takes = {
        option: parameter
        for option, parameter in signature(PRIORS[name]).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
    }
    for option in options:
        if option not in takes:
            raise OptionError(
                f"the prior {name!r} takes no option {option!r}; it takes "
                f"{', '.join(takes) or 'none'}"
            )
    for option, parameter in takes.items():
        if parameter.default is Parameter.empty and option not in options:
            raise OptionError(f"the prior {name!r} needs the option {option!r}")
    prior = PRIORS[name](n_latent, generator, **options)
    check_prior(prior, n_latent)
    return prior
