"""How the model is trained: first the map, then the posterior.

Map (theta and the anchor): the bound with the Gaussian anchor as posterior (the case T = 0), plus the
two terms of `geometry`. Half of what the anchor sees is complete, the rest has noise added as missing
genotypes would add it, so one network serves every call rate.

Posterior (phi), wake-sleep with theta frozen (Piriyakulkij et al. 2025, sec. 3): sleep steps on pairs
(z, x) drawn from the model, whose posterior they are exact draws of, at noise levels from complete to
a few hundred variants; wake steps on the bound of real samples. Sleep carries the calibration:
a posterior trained on the bound alone is too sure of itself where genotypes are missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.geometry import Neighbours, distance_loss, neighbour_loss
from ancestry_ddvi.ddvi.model import AncestryModel
from ancestry_ddvi.ddvi.networks import MAX_NOISE
from ancestry_ddvi.ddvi.objective import dream
from ancestry_ddvi.ddvi.posterior import log_det
from ancestry_ddvi.errors import TrainingDivergedError


@dataclass(frozen=True)
class TrainingConfig:
    """Length and weights of the two phases.

    Attributes
    ----------
    map_steps, map_pairs, map_learning_rate
        Optimiser steps of the map phase, neighbour pairs in a batch, peak learning rate.
    neighbour_weight, distance_weight, tau
        Weights (nats) and kernel width of the `geometry` terms.
    close_neighbours, wide_share, wide_probability
        Where neighbour partners come from (`geometry.Neighbours`).
    noisy_share
        Share of a map batch that has noise added.
    min_kept
        Smallest share of variants that training imitates.
    posterior_steps, posterior_batch, posterior_learning_rate
        The same for the posterior phase.
    wake_every
        One posterior step in so many is a wake step on real samples, the others sleep.
    wake_batch
        Real samples of a wake step.
    """

    map_steps: int = 4000
    map_pairs: int = 128
    map_learning_rate: float = 2e-3
    neighbour_weight: float = 30.0
    distance_weight: float = 30.0
    tau: float = 0.1
    close_neighbours: int = 15
    wide_share: float = 0.05
    wide_probability: float = 0.5
    noisy_share: float = 0.25
    min_kept: float = 0.004
    posterior_steps: int = 3000
    posterior_batch: int = 512
    posterior_learning_rate: float = 2e-3
    wake_every: int = 8
    wake_batch: int = 128


@dataclass
class History:
    """Loss terms along training: `steps` and, by term, the value at each."""

    steps: list[int] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, step: int, terms: dict[str, float]) -> None:
        """Append one row; terms that a phase does not have are nan."""
        self.steps.append(step)
        for name in {**self.terms, **terms}:
            column = self.terms.setdefault(name, [math.nan] * (len(self.steps) - 1))
            column.append(terms.get(name, math.nan))


def train(
    model: AncestryModel,
    x: np.ndarray,
    noise: np.ndarray,
    unit: float,
    config: TrainingConfig,
    seed: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> History:
    """Train the model in place.

    Parameters
    ----------
    model
        Freshly made.
    x, noise
        (n_samples, K), (n_samples,) features of the training samples.
    unit
        n / m of the feature extractor: variance that losing half of the variants adds.
    config
        Length and weights.
    seed
        Everything random in training.
    progress
        Called with the fraction done.

    Raises
    ------
    TrainingDivergedError
        If a loss is not finite; the model is left at the step before.
    """
    generator = torch.Generator().manual_seed(seed)
    history = History()
    x_tensor = torch.as_tensor(x, dtype=torch.float32)
    noise_tensor = torch.as_tensor(noise, dtype=torch.float32).clamp(max=MAX_NOISE)
    neighbours = Neighbours(
        x,
        close=config.close_neighbours,
        wide_share=config.wide_share,
        wide_probability=config.wide_probability,
    )
    total = config.map_steps + config.posterior_steps
    for phase, offset, length, learning_rate, parameters, terms_at in (
        (
            "map",
            0,
            config.map_steps,
            config.map_learning_rate,
            [
                *model.prior.parameters(),
                *model.decoder.parameters(),
                *model.posterior.anchor.parameters(),
            ],
            lambda step: _map_terms(
                model, x_tensor, noise_tensor, unit, neighbours, config, generator
            ),
        ),
        (
            "posterior",
            config.map_steps,
            config.posterior_steps,
            config.posterior_learning_rate,
            list(model.posterior.parameters()),
            lambda step: _posterior_terms(
                model, x_tensor, noise_tensor, unit, config, step, generator
            ),
        ),
    ):
        steps = _optimise(parameters, terms_at, length, learning_rate, phase)
        for step, terms in steps:
            if step % 50 == 0 or step == length:
                history.add(offset + step, {k: float(v.detach()) for k, v in terms.items()})
                progress((offset + step) / total)
    model.requires_grad_(True)
    return history


def _optimise(
    parameters: list[nn.Parameter],
    terms_at: Callable[[int], dict[str, Tensor]],
    length: int,
    peak: float,
    phase: str,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Adam with a one-cycle learning rate; yields (step, loss terms), the loss being their sum."""
    if length < 1:
        return
    optimiser = torch.optim.Adam(parameters, lr=peak, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, peak, total_steps=max(length, 10), pct_start=0.1
    )
    for step in range(1, length + 1):
        terms = terms_at(step)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            bad = ", ".join(k for k, v in terms.items() if not torch.isfinite(v)) or "sum"
            raise TrainingDivergedError(
                f"training: the loss became non-finite at step {step} of the {phase} phase "
                f"(term: {bad}); try another --seed, fewer --n-components, or look for samples "
                "far from all others in the input"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 50.0)
        optimiser.step()
        schedule.step()
        yield step, terms


def missing_noise(kept: Tensor, unit: float) -> Tensor:
    """s of features.py, eq. (2), for a share `kept` of the variants: sqrt(unit (1 - k) / k)."""
    return torch.sqrt(unit * (1 - kept) / kept)


def _draw_noise(
    n: int, unit: float, complete_share: float, min_kept: float, generator: torch.Generator
) -> Tensor:
    """(n,) noise levels: complete, or a kept share log-uniform in [min_kept, 1]."""
    kept = torch.exp(torch.rand(n, generator=generator) * math.log(min_kept))
    complete = torch.rand(n, generator=generator) < complete_share
    return missing_noise(torch.where(complete, 1.0, kept), unit)


def _map_terms(
    model: AncestryModel,
    x: Tensor,
    noise: Tensor,
    unit: float,
    neighbours: Neighbours,
    config: TrainingConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Terms of the map phase on one batch of neighbour pairs."""
    i = torch.randint(len(x), (config.map_pairs,), generator=generator)
    pairs = torch.cat([i, neighbours.partner(i, generator)])
    # Pairs with added noise come first and teach only the bound; the geometry terms look at
    # complete features, where "neighbour" means something.
    n_noisy = round(config.noisy_share * config.map_pairs)
    added = torch.zeros(config.map_pairs)
    added[:n_noisy] = _draw_noise(n_noisy, unit, 0.0, config.min_kept, generator)
    added = added.repeat(2)
    clean = x[pairs]
    seen = clean + added.unsqueeze(1) * torch.randn(clean.shape, generator=generator)
    level = torch.sqrt(noise[pairs] ** 2 + added**2)
    mean, factor = model.posterior.anchor(seen, level)
    u = torch.randn(mean.shape, generator=generator)
    z = mean + (factor @ u.unsqueeze(-1)).squeeze(-1)
    # log q(z | x) with its expectation over u in closed form: this is the entropy of the anchor.
    entropy = log_det(factor) + 0.5 * mean.shape[1] * math.log(2 * math.pi * math.e)
    first, second = mean.chunk(2)
    first, second = first[n_noisy:], second[n_noisy:]
    complete = torch.cat([clean[: config.map_pairs][n_noisy:], clean[config.map_pairs :][n_noisy:]])
    on_map = torch.cat([first, second])
    return {
        "reconstruction": -model.decoder.log_prob(seen, z, level).mean(),
        "prior_kl": -(entropy + model.prior.log_prob(z)).mean(),
        "neighbour": config.neighbour_weight * neighbour_loss(first, second, config.tau),
        "distance": config.distance_weight * distance_loss(on_map, complete, generator),
    }


def _posterior_terms(
    model: AncestryModel,
    x: Tensor,
    noise: Tensor,
    unit: float,
    config: TrainingConfig,
    step: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Terms of one wake or sleep step; theta takes no gradient in this phase."""
    model.prior.requires_grad_(False)
    model.decoder.requires_grad_(False)
    if config.wake_every and step % config.wake_every == 0:
        i = torch.randint(len(x), (config.wake_batch,), generator=generator)
        bound = model.bound(x[i], noise[i], generator)
        return {"reconstruction": -bound.reconstruction.mean(), "prior_kl": bound.prior_kl.mean()}
    level = _draw_noise(config.posterior_batch, unit, 0.15, config.min_kept, generator)
    z, dreamt = dream(model.prior, model.decoder, level, generator)
    sleep = model.posterior.sleep_loss(z, dreamt, level, generator)
    return {name: term.mean() for name, term in sleep.items()}


def config_dict(config: TrainingConfig) -> dict[str, float | int]:
    """JSON-ready settings."""
    return asdict(config)
