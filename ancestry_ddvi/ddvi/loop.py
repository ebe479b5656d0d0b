"""One optimiser loop for all that is trained.

    loss(step) = sum of the terms of `Phase.terms_at(step)`

Adam (Kingma & Ba 2015) with a one-cycle learning rate (Smith & Topin 2019) and gradients clipped to
MAX_GRADIENT. Weights whose loss and gradient were finite are kept every LOG_EVERY steps; a run that
diverges ends with the latest of these in the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ancestry_ddvi.errors import OptionError, TrainingDivergedError

LOG_EVERY = 50
"""Steps between entries of the training history, and between copies of the weights."""

MAX_GRADIENT = 50.0
"""Gradients are clipped to this norm."""

REMEDY = (
    "try a lower learning rate or another seed, or look for samples far from all others in the "
    "input"
)


@dataclass
class History:
    """Loss terms along training: `steps` and, by term, the latest value at each; None before the
    term's phase has begun or after it has ended."""

    steps: list[int] = field(default_factory=list)
    terms: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, step: int, terms: dict[str, float]) -> None:
        """Append one row; terms that a phase does not have are None."""
        self.steps.append(step)
        for name in {**self.terms, **terms}:
            column = self.terms.setdefault(name, [None] * (len(self.steps) - 1))
            column.append(terms.get(name))


@dataclass(frozen=True)
class Phase:
    """What is optimised, for how long, on which terms.

    Attributes
    ----------
    name
        Said in errors.
    n_steps
        Optimiser steps; 0 leaves the phase out.
    learning_rate
        Peak of the one cycle.
    learns
        The module whose weights are learnt; those that take no gradient when `run_phases` is called
        stay as they are.
    terms_at
        Step (from 1) to scalar loss terms by name; their sum is the loss.
    steps_per_epoch
        Steps in which every sample is seen once, where that means something.
    """

    name: str
    n_steps: int
    learning_rate: float
    learns: nn.Module
    terms_at: Callable[[int], dict[str, Tensor]]
    steps_per_epoch: float | None = None

    def place(self, step: int) -> str:
        """The step in words."""
        epoch = ""
        if self.steps_per_epoch is not None:
            epoch = f", epoch {math.ceil(step / self.steps_per_epoch)},"
        return f"step {step}{epoch} of the {self.name} phase"


def run_phases(
    model: nn.Module,
    phases: Sequence[Phase],
    progress: Callable[[float], None] = lambda fraction: None,
    remedy: str = REMEDY,
) -> History:
    """Run phases one after the other; what a phase does not learn takes no gradient in it.

    Parameters
    ----------
    model
        Holds all that any phase learns.
    phases
        In order.
    progress
        Called with the fraction done.
    remedy
        What the message of a diverged run advises.

    Raises
    ------
    OptionError
        If a phase has no weight to learn.
    TrainingDivergedError
        If a loss or a gradient is not finite; the model is left with the last good weights.
    """
    learnt = [p for p in model.parameters() if p.requires_grad]
    history, good = History(), _LastGood(model)
    total, done = sum(phase.n_steps for phase in phases), 0
    try:
        for phase in phases:
            own = {id(p) for p in phase.learns.parameters()}
            for parameter in learnt:
                parameter.requires_grad_(id(parameter) in own)
            latest: dict[str, Tensor] = {}
            for step, terms in _optimise(phase, done, good, remedy):
                latest |= terms
                if _is_logged(phase, step):
                    row = {name: float(term.detach()) for name, term in latest.items()}
                    history.add(done + step, row)
                    progress((done + step) / total)
            done += phase.n_steps
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)
    return history


def _is_logged(phase: Phase, step: int) -> bool:
    return step % LOG_EVERY == 0 or step == phase.n_steps


class _LastGood:
    """The latest copy of a model's state that is known to be good."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.step: int | None = None
        self.state: dict[str, Any] = {}

    def keep(self, step: int) -> None:
        """Copy the state before the update of this step, counted over all phases."""
        self.step = step
        self.state = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in self.model.state_dict().items()
        }

    def restore(self) -> str:
        """Put the copy back and say which it is."""
        if self.step is None:
            return "the model is as it was before training"
        self.model.load_state_dict(self.state)
        return f"the model is as it was before step {self.step}"


def _optimise(
    phase: Phase, done: int, good: _LastGood, remedy: str
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield (step, loss terms)."""
    if phase.n_steps < 1:
        return
    parameters = [p for p in phase.learns.parameters() if p.requires_grad]
    if not parameters:
        raise OptionError(
            f"training: nothing can be learnt in the {phase.name} phase; call requires_grad_() on "
            "what should be"
        )
    optimiser = torch.optim.Adam(parameters, lr=phase.learning_rate, fused=True)
    # The warm-up of a tenth must be at least two steps long.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, phase.learning_rate, total_steps=max(phase.n_steps, 20), pct_start=0.1
    )
    for step in range(1, phase.n_steps + 1):
        terms = phase.terms_at(step)
        loss = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        slope = nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT)
        # A finite loss can have a non-finite gradient; both are caught before they reach weights.
        if not (torch.isfinite(loss) and torch.isfinite(slope)):
            bad = [name for name, term in terms.items() if not torch.isfinite(term)]
            what, where = ("loss", bad) if bad else ("gradient", list(terms))
            raise TrainingDivergedError(
                f"training: the {what} became non-finite at {phase.place(step)} "
                f"(term: {', '.join(where)}); {remedy}; {good.restore()}"
            )
        if step == 1 or _is_logged(phase, step):
            good.keep(done + step)
        optimiser.step()
        schedule.step()
        yield step, terms
