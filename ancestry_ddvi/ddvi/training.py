"""How the model is trained: first the map, then the posterior.

Map (theta and the anchor): the bound with the Gaussian anchor as posterior (the case T = 0), plus
the two terms of `geometry`. Part of what the anchor sees (`noisy_share`) has noise added as missing
genotypes would add it, so one network serves every call rate.

Posterior (phi), wake-sleep with theta frozen (Piriyakulkij, Wang & Kuleshov 2025): sleep steps on
pairs (z, x) drawn from the model, whose posterior they are exact draws of, at noise levels from
complete to some sixty variants of fifteen thousand; wake steps on the bound of real samples. Sleep
carries the calibration: a posterior trained on the bound alone is too sure of itself where
genotypes are missing.
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
from ancestry_ddvi.errors import OptionError, TrainingDivergedError

LOG_EVERY = 50
"""Steps between entries of the training history."""

MAX_GRADIENT = 50.0
"""Gradients are clipped to this norm."""

COMPLETE_SHARE = 0.15
"""Share of sleep samples with no noise added: most real samples are complete."""

_SHARE = (0.0, 1.0, "from 0 to 1")
_ABOVE_0 = (math.ulp(0.0), math.inf, "above 0")
_RANGES = {
    "wide_share": _SHARE,
    "wide_probability": _SHARE,
    "noisy_share": _SHARE,
    "min_kept": (math.ulp(0.0), 1.0, "above 0 and at most 1"),
    **dict.fromkeys(("map_pairs", "posterior_batch", "wake_batch", "close_neighbours"), _ABOVE_0),
    **dict.fromkeys(("map_learning_rate", "posterior_learning_rate", "tau"), _ABOVE_0),
}


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

    map_steps: int = 8000
    map_pairs: int = 128
    map_learning_rate: float = 4e-3
    neighbour_weight: float = 30.0
    distance_weight: float = 8.0
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

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            low, high, words = _RANGES.get(name, (0, math.inf, "at least 0"))
            if not (low <= value <= high and math.isfinite(value)):
                raise OptionError(f"training: {name} must be {words}, not {value}")
        if self.noisy_share == 1 and (self.neighbour_weight or self.distance_weight):
            raise OptionError(
                "training: with noisy_share 1 no sample is left for the neighbour and distance "
                "terms; lower it or set both weights to 0"
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
    _check_features(x, noise)
    generator = torch.Generator().manual_seed(seed)
    x_tensor = torch.as_tensor(x, dtype=torch.float32)
    noise_tensor = torch.as_tensor(noise, dtype=torch.float32).clamp(max=MAX_NOISE)
    neighbours = Neighbours(
        x,
        close=config.close_neighbours,
        wide_share=config.wide_share,
        wide_probability=config.wide_probability,
    )
    data = _Data(x_tensor, noise_tensor, unit, neighbours, generator)
    phases = (
        _Phase(
            "map",
            config.map_steps,
            config.map_learning_rate,
            nn.ModuleList([model.prior, model.decoder, model.posterior.anchor]),
            lambda step: _map_terms(model, data, config),
        ),
        # Theta is frozen here: what is not optimised takes no gradient.
        _Phase(
            "posterior",
            config.posterior_steps,
            config.posterior_learning_rate,
            model.posterior,
            lambda step: _posterior_terms(model, data, config, step),
        ),
    )
    history = History()
    total, done = sum(phase.n_steps for phase in phases), 0
    try:
        for phase in phases:
            model.requires_grad_(False)
            phase.learns.requires_grad_(True)
            latest: dict[str, Tensor] = {}
            for step, terms in _optimise(phase):
                latest |= terms
                if step % LOG_EVERY == 0 or step == phase.n_steps:
                    row = {name: float(term.detach()) for name, term in latest.items()}
                    history.add(done + step, row)
                    progress((done + step) / total)
            done += phase.n_steps
    finally:
        model.requires_grad_(True)
    model.prior.sort()
    return history


@dataclass(frozen=True)
class _Data:
    """Training samples and what is needed to draw batches of them."""

    x: Tensor
    noise: Tensor
    unit: float
    neighbours: Neighbours
    generator: torch.Generator


@dataclass(frozen=True)
class _Phase:
    """What is optimised, for how long, on which terms; the loss is the sum of the terms."""

    name: str
    n_steps: int
    learning_rate: float
    learns: nn.Module
    terms_at: Callable[[int], dict[str, Tensor]]


def _check_features(x: np.ndarray, noise: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1) | np.isnan(noise))
    if len(bad):
        raise TrainingDivergedError(
            f"training: features of row {bad[0]} are not finite ({len(bad)} such rows); look for "
            "samples or variants with hardly any called genotype in the input"
        )


def _optimise(phase: _Phase) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Adam with a one-cycle learning rate; yields (step, loss terms)."""
    if phase.n_steps < 1:
        return
    parameters = list(phase.learns.parameters())
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
                f"training: the {what} became non-finite at step {step} of the {phase.name} phase "
                f"(term: {', '.join(where)}); try another --seed, fewer --n-clusters, or look for "
                "samples far from all others in the input"
            )
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


def _map_terms(model: AncestryModel, data: _Data, config: TrainingConfig) -> dict[str, Tensor]:
    """Terms of the map phase on one batch of neighbour pairs."""
    x, unit, generator = data.x, data.unit, data.generator
    i = torch.randint(len(x), (config.map_pairs,), generator=generator)
    pairs = torch.cat([i, data.neighbours.partner(i, generator)])
    # Pairs with added noise come first and teach only the bound; the geometry terms look at
    # complete features, where "neighbour" means something.
    n_noisy = round(config.noisy_share * config.map_pairs)
    added = torch.zeros(config.map_pairs)
    added[:n_noisy] = _draw_noise(n_noisy, unit, 0.0, config.min_kept, generator)
    added = added.repeat(2)
    clean = x[pairs]
    seen = clean + added.unsqueeze(1) * torch.randn(clean.shape, generator=generator)
    level = torch.sqrt(data.noise[pairs] ** 2 + added**2)
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
    model: AncestryModel, data: _Data, config: TrainingConfig, step: int
) -> dict[str, Tensor]:
    """Terms of one wake or sleep step."""
    generator = data.generator
    if config.wake_every and step % config.wake_every == 0:
        i = torch.randint(len(data.x), (config.wake_batch,), generator=generator)
        bound = model.bound(data.x[i], data.noise[i], generator)
        return {"reconstruction": -bound.reconstruction.mean(), "prior_kl": bound.prior_kl.mean()}
    level = _draw_noise(
        config.posterior_batch, data.unit, COMPLETE_SHARE, config.min_kept, generator
    )
    z, dreamt = dream(model.prior, model.decoder, level, generator)
    sleep = model.posterior.sleep_loss(z, dreamt, level, generator)
    return {name: term.mean() for name, term in sleep.items()}
