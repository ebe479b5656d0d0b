"""Train any latent variable model: the user's p(z) and p(x | z), any posterior, any objective.

    model = LatentModel(prior, likelihood, posterior)
    fit(model, x, objective=JointWakeSleep(), epochs=50)
    model.elbo(x_test), model.sample_posterior(x_test, n_draws=100)

Prior and likelihood are learnt as far as they have weights that take a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ancestry_ddvi.ddvi.latent import LatentModel, checked_features
from ancestry_ddvi.ddvi.loop import History, Phase, run_phases
from ancestry_ddvi.ddvi.networks import MAX_NOISE
from ancestry_ddvi.ddvi.priors import check_prior_calls, check_shape
from ancestry_ddvi.ddvi.wake_sleep import JointWakeSleep, Objective, check_objective
from ancestry_ddvi.errors import OptionError, check_count

EPOCHS = 50


def fit(
    model: LatentModel,
    x: np.ndarray,
    noise: np.ndarray | None = None,
    *,
    objective: Objective | None = None,
    n_steps: int | None = None,
    epochs: float | None = None,
    batch: int = 128,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> History:
    """Train the model in place.

    Parameters
    ----------
    model
        Weights that take no gradient stay as they are.
    x
        (n_samples, K) features.
    noise
        (n_samples,) their noise; 0 if left out.
    objective
        `JointWakeSleep()` if left out. `WakeSleep`, level with it on digits, needs two steps for
        one of its.
    n_steps, epochs
        Length in optimiser steps or in passes over the samples, one of the two; 50 epochs if both
        are left out.
    batch
        Samples of a step.
    learning_rate
        Peak of the one-cycle rate.
    seed
        Everything random in training. Initial weights are the caller's.
    progress
        Called with the fraction done.

    Returns
    -------
    Losses along training.

    Raises
    ------
    InputError
        If a feature is not finite or a shape does not fit.
    OptionError
        If an option has no use, or the parts of the model do not fit each other, the features or
        the objective; before the first step.
    TrainingDivergedError
        If a loss or a gradient is not finite; the model is left with the last good weights.
    """
    x, noise = checked_features(x, noise)
    if not len(x):
        raise OptionError("there is no sample to learn from; give at least 1 row of features")
    check_count("batch", batch)
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise OptionError(f"learning_rate must be a finite number above 0, not {learning_rate}")
    batch = min(batch, len(x))
    per_epoch = len(x) / batch
    n_steps = _length(n_steps, epochs, per_epoch)
    x_tensor = torch.as_tensor(x, dtype=torch.float32)
    noise_tensor = torch.as_tensor(noise, dtype=torch.float32).clamp(max=MAX_NOISE)
    check_parts(model, x_tensor[:2], noise_tensor[:2])
    objective = JointWakeSleep() if objective is None else objective
    check_objective(objective)
    generator = torch.Generator().manual_seed(seed)
    passes = _Passes(len(x), batch, generator)

    def terms_at(step: int) -> dict[str, Tensor]:
        i = passes.next()
        losses = objective.losses(model, x_tensor[i], noise_tensor[i], step, generator)
        return {name: loss.mean() for name, loss in losses.items()}

    mode = {module: module.training for module in model.modules()}
    model.train()
    try:
        phase = Phase("only", n_steps, learning_rate, model, terms_at, per_epoch)
        return run_phases(model, [phase], progress)
    finally:
        for module, was_training in mode.items():
            module.training = was_training


class _Passes:
    """Batches that go through all samples in a new order each time, across the ends of passes."""

    def __init__(self, n: int, batch: int, generator: torch.Generator) -> None:
        self.n, self.batch, self.generator = n, batch, generator
        self.left = torch.empty(0, dtype=torch.long)

    def next(self) -> Tensor:
        """(batch,) row numbers."""
        if len(self.left) < self.batch:
            self.left = torch.cat([self.left, torch.randperm(self.n, generator=self.generator)])
        rows, self.left = self.left[: self.batch], self.left[self.batch :]
        return rows


def _length(n_steps: int | None, epochs: float | None, per_epoch: float) -> int:
    """Optimiser steps."""
    if n_steps is not None and epochs is not None:
        raise OptionError(f"n_steps={n_steps} and epochs={epochs} say the length twice; give one")
    if n_steps is not None:
        check_count("n_steps", n_steps)
        return n_steps
    epochs = EPOCHS if epochs is None else epochs
    if not (epochs > 0 and math.isfinite(epochs)):
        raise OptionError(f"epochs must be a finite number above 0, not {epochs}")
    return math.ceil(epochs * per_epoch)


@torch.no_grad()
def check_parts(model: LatentModel, x: Tensor, noise: Tensor) -> None:
    """Send a few samples through prior and likelihood and look at what comes out.

    Raises
    ------
    OptionError
        If a shape is not that of the protocols: what would else fail, or broadcast into nonsense,
        somewhere in training.
    """
    n, k = x.shape
    check_prior_calls(model.prior)
    generator = torch.Generator().manual_seed(0)
    z = model.prior.sample(n, generator)
    dreamt = model.likelihood.sample(z, noise, generator)
    check_shape("likelihood.sample(z, noise, generator)", dreamt, (n, k))
    log_prob = model.likelihood.log_prob(x, z, noise)
    check_shape("likelihood.log_prob(x, z, noise)", log_prob, (n,))
    try:
        draws = model.posterior.sample(x, noise, 3, generator)
    except RuntimeError as error:
        raise OptionError(
            f"the posterior, {type(model.posterior).__name__}, cannot take {k} features ({error}); "
            "make it with a FeatureInput of that many"
        ) from error
    check_shape("posterior.sample(x, noise, 3, generator)", draws, (3, n, model.n_latent))
    try:
        chain = model.posterior.chain(x, noise, generator, 3)
    except OptionError:  # it has no density, which is for the objective to ask for
        return
    check_shape("posterior.chain(x, noise, generator, 3).z", chain.z, (3, n, model.n_latent))
