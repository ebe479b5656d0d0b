"""Priors by name, each with the options that it takes."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.priors.base import ComponentPrior, check_n_components, check_prior
from ancestry_ddvi.ddvi.priors.gaussian import GaussianPrior
from ancestry_ddvi.ddvi.priors.mixture import FixedMixturePrior, MixturePrior
from ancestry_ddvi.ddvi.priors.pinwheel import PinwheelPrior
from ancestry_ddvi.ddvi.priors.square import SquarePrior
from ancestry_ddvi.ddvi.priors.swiss_roll import SwissRollPrior
from ancestry_ddvi.ddvi.priors.vamp import Encoder, VampPrior
from ancestry_ddvi.errors import OptionError

Generator = torch.Generator


def _gaussian(n_latent: int, generator: Generator, *, n_classes: int = 1) -> ComponentPrior:
    return GaussianPrior(n_latent, n_classes)


def _pinwheel(n_latent: int, generator: Generator, *, n_classes: int = 5) -> ComponentPrior:
    return PinwheelPrior(n_classes)


def _swiss_roll(n_latent: int, generator: Generator, *, n_classes: int = 5) -> ComponentPrior:
    return SwissRollPrior(n_classes)


def _square(n_latent: int, generator: Generator) -> ComponentPrior:
    return SquarePrior()


def _mixture(
    n_latent: int,
    generator: Generator,
    *,
    n_components: int = 30,
    component_class: Tensor | None = None,
) -> ComponentPrior:
    return MixturePrior(n_components, n_latent, generator, component_class)


def _fixed_mixture(
    n_latent: int,
    generator: Generator,
    *,
    n_components: int = 10,
    component_class: Tensor | None = None,
) -> ComponentPrior:
    return FixedMixturePrior.spread(n_components, n_latent, generator, component_class)


def _vamp(
    n_latent: int,
    generator: Generator,
    *,
    encoder: Encoder,
    scale: Tensor,
    n_components: int = 30,
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
    if name not in PRIORS:
        raise OptionError(f"there is no prior {name!r}; choose one of {', '.join(PRIORS)}")
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
