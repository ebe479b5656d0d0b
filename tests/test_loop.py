"""The optimiser loop: what is learnt, what is told of it, and where a run that diverges ends."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.loop import LOG_EVERY, History, Phase, run_phases
from ancestry_ddvi.errors import OptionError, TrainingDivergedError


class Two(nn.Module):
    """Two weights that want to be 1, and a buffer that counts the looks at them."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(1, 1, bias=False)
        self.b = nn.Linear(1, 1, bias=False)
        self.register_buffer("seen", torch.zeros(()))
        with torch.no_grad():
            self.a.weight.fill_(3.0)
            self.b.weight.fill_(-3.0)

    def terms(self, step: int) -> dict[str, Tensor]:
        self.seen += 1
        return {name: (getattr(self, name).weight - 1).square().sum() for name in ("a", "b")}

    def values(self) -> tuple[float, float]:
        return float(self.a.weight.detach()), float(self.b.weight.detach())


def phase(model: Two, n_steps: int, learns: nn.Module, **settings: object) -> Phase:
    terms = settings.pop("terms", model.terms)
    return Phase("first", n_steps, 0.1, learns, terms, **settings)  # type: ignore[arg-type]


def test_a_phase_learns_its_own_module_and_no_other() -> None:
    model = Two()
    run_phases(model, [phase(model, 400, model.a)])
    assert model.values() == (pytest.approx(1, abs=0.01), -3)
    run_phases(model, [phase(model, 400, model.b)])
    assert model.values() == (pytest.approx(1, abs=0.01), pytest.approx(1, abs=0.01))
    assert all(p.requires_grad for p in model.parameters())


def test_what_the_caller_froze_stays_frozen() -> None:
    model = Two()
    model.b.requires_grad_(False)
    run_phases(model, [phase(model, 30, model)])
    assert model.values()[1] == -3
    assert [p.requires_grad for p in model.parameters()] == [True, False]
    with pytest.raises(OptionError, match=r"nothing can be learnt in the first phase"):
        run_phases(model, [phase(model, 30, model.b)])
    assert [p.requires_grad for p in model.parameters()] == [True, False]


def test_history_and_progress_go_through_all_phases() -> None:
    model, fractions = Two(), list[float]()

    def named(name: str) -> Callable[[int], dict[str, Tensor]]:
        return lambda step: {name: model.terms(step)["a"]}

    phases = [
        phase(model, 2 * LOG_EVERY + 1, model, terms=named("x")),
        phase(model, 0, model, terms=named("never")),
        phase(model, 3, model, terms=named("y")),
    ]
    history = run_phases(model, phases, fractions.append)
    end = 2 * LOG_EVERY + 4
    assert history.steps == [LOG_EVERY, 2 * LOG_EVERY, end - 3, end]
    assert fractions == [step / end for step in history.steps]
    assert set(history.terms) == {"x", "y"}
    assert history.terms["y"][:3] == [None] * 3
    assert history.terms["x"][3] is None
    x = np.array(history.terms["x"][:3], float)
    assert (np.diff(x) < 0).all()


def test_history_keeps_the_latest_of_terms_that_come_in_turn() -> None:
    model = Two()

    def terms(step: int) -> dict[str, Tensor]:
        return {"odd" if step % 2 else "even": model.terms(step)["a"]}

    history = run_phases(model, [phase(model, 4, model, terms=terms)])
    assert None not in history.terms["odd"]
    assert None not in history.terms["even"]


def test_history_fills_what_a_phase_does_not_have() -> None:
    history = History()
    history.add(1, {"a": 1.0})
    history.add(2, {"b": 2.0})
    history.add(3, {"a": 3.0, "b": 4.0})
    assert history.steps == [1, 2, 3]
    np.testing.assert_equal(history.terms, {"a": [1, None, 3], "b": [None, 2, 4]})


def broken_at(model: Two, at: int, seen: list[tuple[float, float]]) -> Callable[..., object]:
    def terms(step: int) -> dict[str, Tensor]:
        seen.append(model.values())
        found = model.terms(step)
        return found | {"b": found["b"] * math.nan} if step == at else found

    return terms


def test_a_diverged_run_ends_with_the_last_good_weights() -> None:
    model, seen = Two(), list[tuple[float, float]]()
    at = 2 * LOG_EVERY + 7
    with pytest.raises(
        TrainingDivergedError,
        match=rf"loss became non-finite at step {at}, epoch 11, of the first phase \(term: b\); "
        rf"eat less; the model is as it was before step {2 * LOG_EVERY}$",
    ):
        run_phases(
            model,
            [phase(model, 500, model, terms=broken_at(model, at, seen), steps_per_epoch=10.0)],
            remedy="eat less",
        )
    assert model.values() == seen[2 * LOG_EVERY - 1]
    assert model.values() != seen[-1]
    # Buffers are a part of the state: counted just after that step's terms, not at the end.
    assert float(model.seen) == 2 * LOG_EVERY
    assert all(p.requires_grad for p in model.parameters())


def test_a_second_phase_that_diverges_at_once_leaves_what_the_first_one_learnt() -> None:
    model, seen = Two(), list[tuple[float, float]]()
    second = Phase("second", 20, 0.1, model, broken_at(model, 1, seen))  # type: ignore[arg-type]
    with pytest.raises(TrainingDivergedError, match=r"step 1 of the second phase .* step 300$"):
        run_phases(model, [phase(model, 300, model), second])
    assert model.values() == (pytest.approx(1, abs=0.05), pytest.approx(1, abs=0.05))


def test_a_finite_loss_with_an_infinite_gradient_never_reaches_the_weights() -> None:
    model = Two()
    start = model.values()

    def terms(step: int) -> dict[str, Tensor]:
        return {"root": (model.a.weight - 3).abs().sqrt().sum()}

    with pytest.raises(
        TrainingDivergedError,
        match=r"the gradient became .* \(term: root\); try .*; the model is as it was before train",
    ):
        run_phases(model, [phase(model, 20, model, terms=terms)])
    assert model.values() == start
