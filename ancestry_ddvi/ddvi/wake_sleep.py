"""What is optimised: objectives made of parts, each a sum of named losses per sample.

Piriyakulkij, Wang & Kuleshov 2025 maximise L_rec + b_reg L_reg + b_sleep L_diff:

    Wake          L_rec + b_reg L_reg at data x: theta (prior, likelihood) and phi (posterior)
    Sleep         b_sleep L_diff at pairs (z, x) ~ p(z) p(x | z): phi
    LatentSleep   the part of b_sleep L_diff that needs no x, at z ~ p(z): phi

    Unregularised  = Wake, b_reg = 1: the bound itself
    WakeSleep      = Wake, Sleep in turn, the posterior conditioned on x throughout
    JointWakeSleep = Wake + Sleep in one gradient step; ours, not the paper's
    Simplified     = Wake + LatentSleep in one gradient step, for `blind.BlindPosterior`

Sleep minimises KL( p(z | x) || q(z | x) ) over dreams where Wake minimises KL( q || p ), so it
covers modes that Wake would drop (Hinton et al. 1995). Dreams carry no gradient: Sleep leaves theta
alone. While theta is young its dreams tell little of z, and a posterior that believes them teaches
theta little in return: on the bits of a circle of the tests 400 steps reach log p(x) = -3.6 with
b_sleep = 1 and -2.8 with .1, the default (best possible -2.5, independent bits -4.1). Where theta
is fixed the weight hardly matters, and Sleep alone will do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.objective import Likelihood, Posterior, bound_terms, dream
from ancestry_ddvi.ddvi.priors import Prior
from ancestry_ddvi.errors import OptionError, check_count

B_SLEEP = 0.1
"""Weight of the sleep losses beside a wake step."""


class Model(Protocol):
    """What an objective is an objective of."""

    @property
    def prior(self) -> Prior:
        """p(z)."""

    @property
    def likelihood(self) -> Likelihood:
        """p(x | z)."""

    @property
    def posterior(self) -> Posterior:
        """q(z | x)."""


class Objective(Protocol):
    """Anything that gives losses."""

    def losses(
        self, model: Model, x: Tensor, noise: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Losses by name, (n,) each, weights included; the sum of their means is minimised.

        Parameters
        ----------
        model
            Prior, likelihood and posterior.
        x, noise
            (n, K), (n,) a batch of data.
        step
            Optimiser step, from 1.
        generator
            All that is drawn.
        """


@runtime_checkable
class LatentSleeper(Protocol):
    """A posterior of which a part can be taught without x."""

    def latent_sleep_loss(self, z: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses (n,) at z (n, D) drawn from the prior."""


@dataclass(frozen=True)
class Wake:
    """The bound of data, minus: `reconstruction` -log p(x | z) and `prior_kl`.

    Attributes
    ----------
    b_reg
        Weight of the prior's term; the loss is a bound where it is 1.
    """

    b_reg: float = 1.0

    def __post_init__(self) -> None:
        _check_weight("b_reg", self.b_reg)

    def losses(
        self, model: Model, x: Tensor, noise: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Objective`."""
        bound = bound_terms(model.prior, model.likelihood, model.posterior, x, noise, generator)
        return {"reconstruction": -bound.reconstruction, "prior_kl": self.b_reg * bound.prior_kl}


@dataclass(frozen=True)
class Sleep:
    """The posterior's `sleep_loss` at dreams, with the noise levels of the batch.

    Attributes
    ----------
    b_sleep
        Its weight.
    n_dreams
        Dreams in a step; as many as there are samples in the batch if left out.
    """

    b_sleep: float = 1.0
    n_dreams: int | None = None

    def __post_init__(self) -> None:
        _check_weight("b_sleep", self.b_sleep)
        if self.n_dreams is not None:
            check_count("objective: n_dreams", self.n_dreams)

    def losses(
        self, model: Model, x: Tensor, noise: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Objective`."""
        if self.n_dreams is not None:
            noise = noise[torch.randint(len(noise), (self.n_dreams,), generator=generator)]
        z, dreamt = dream(model.prior, model.likelihood, noise, generator)
        terms = model.posterior.sleep_loss(z, dreamt, noise, generator)
        return {name: self.b_sleep * term for name, term in terms.items()}


@dataclass(frozen=True)
class LatentSleep:
    """The posterior's `latent_sleep_loss` at draws of the prior.

    Attributes
    ----------
    b_sleep
        Its weight.
    """

    b_sleep: float = 1.0

    def __post_init__(self) -> None:
        _check_weight("b_sleep", self.b_sleep)

    def losses(
        self, model: Model, x: Tensor, noise: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Objective`.

        Raises
        ------
        OptionError
            If the posterior's denoiser sees x.
        """
        posterior = model.posterior
        if not isinstance(posterior, LatentSleeper):
            raise OptionError(
                f"the simplified objective needs a posterior that refines without x, not "
                f"{type(posterior).__name__}; use BlindPosterior, or WakeSleep as objective"
            )
        with torch.no_grad():
            z = model.prior.sample(len(x), generator)
        terms = posterior.latent_sleep_loss(z, generator)
        return {name: self.b_sleep * term for name, term in terms.items()}


@dataclass(frozen=True)
class Alternating:
    """One part in each step, in turn.

    Attributes
    ----------
    parts
        The turns, repeated without end.
    """

    parts: tuple[Objective, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    def losses(
        self, model: Model, x: Tensor, noise: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Objective`."""
        part = self.parts[(step - 1) % len(self.parts)]
        return part.losses(model, x, noise, step, generator)


@dataclass(frozen=True)
class Joint:
    """All parts in each step; losses of one name are added up.

    Attributes
    ----------
    parts
        What is added.
    """

    parts: tuple[Objective, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    def losses(
        self, model: Model, x: Tensor, noise: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Objective`."""
        total: dict[str, Tensor] = {}
        for part in self.parts:
            for name, term in part.losses(model, x, noise, step, generator).items():
                total[name] = total[name] + term if name in total else term
        return total


class Unregularised(Wake):
    """L_rec + L_reg: the bound and nothing else."""

    def __init__(self) -> None:
        super().__init__(b_reg=1.0)


class WakeSleep(Alternating):
    """A wake step of theta and phi, then `sleep_steps` sleep steps of phi, and so on.

    Parameters
    ----------
    b_reg, b_sleep
        Weights.
    sleep_steps
        Sleep steps after each wake step.
    n_dreams
        See `Sleep`.
    """

    def __init__(
        self,
        b_reg: float = 1.0,
        b_sleep: float = B_SLEEP,
        *,
        sleep_steps: int = 1,
        n_dreams: int | None = None,
    ) -> None:
        check_count("objective: sleep_steps", sleep_steps)
        sleep = Sleep(b_sleep, n_dreams)
        super().__init__((Wake(b_reg), *[sleep] * sleep_steps))


class JointWakeSleep(Joint):
    """Wake and Sleep in one gradient step, the posterior conditioned on x.

    Parameters
    ----------
    b_reg, b_sleep
        Weights.
    n_dreams
        See `Sleep`.
    """

    def __init__(
        self, b_reg: float = 1.0, b_sleep: float = B_SLEEP, *, n_dreams: int | None = None
    ) -> None:
        super().__init__((Wake(b_reg), Sleep(b_sleep, n_dreams)))


class Simplified(Joint):
    """Wake and LatentSleep in one gradient step.

    Parameters
    ----------
    b_reg, b_sleep
        Weights.
    """

    def __init__(self, b_reg: float = 1.0, b_sleep: float = B_SLEEP) -> None:
        super().__init__((Wake(b_reg), LatentSleep(b_sleep)))


def n_turns(objective: Objective) -> int:
    """Optimiser steps of a round in which prior and likelihood take one, so that objectives can
    be given the same number of those."""
    return len(objective.parts) if isinstance(objective, Alternating) else 1


def check_objective(objective: object) -> None:
    """Raise OptionError unless it gives losses."""
    if isinstance(objective, type) or not hasattr(objective, "losses"):
        raise OptionError(
            f"{objective!r} is no objective; give an object with a method losses, such as "
            "WakeSleep()"
        )


def _check_parts(parts: tuple[Objective, ...]) -> None:
    if not parts:
        raise OptionError("an objective of no parts has no loss; give at least 1")
    for part in parts:
        check_objective(part)


def _check_weight(name: str, value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise OptionError(f"objective: {name} must be a finite number of at least 0, not {value}")
