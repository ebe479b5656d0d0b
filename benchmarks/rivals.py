"""Posteriors trained for one and the same model, and an examination by its exact posterior.

Theta, the decoder and the prior, comes out of one default fit and stays. A rival is trained from
fresh weights on what theta itself draws: z ~ p(z), a noise level, x ~ p(x | z, noise).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import common
import numpy as np
import torch
from torch import Tensor, nn

from ancestry_ddvi import fit_embedding, load_model
from ancestry_ddvi.baselines import POSTERIORS, PathIntegralPosterior, Posterior
from ancestry_ddvi.baselines.discrepancy import Discrepancy, discrepancy, region_level
from ancestry_ddvi.baselines.exact import GridPosterior, exact_posterior
from ancestry_ddvi.ddvi.guided import GuidedPosterior
from ancestry_ddvi.ddvi.latent import BATCH
from ancestry_ddvi.ddvi.loop import MAX_GRADIENT
from ancestry_ddvi.ddvi.model import AncestryModel
from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.objective import bound_terms, dream
from ancestry_ddvi.ddvi.posterior import DiffusionPosterior, GaussianAnchor
from ancestry_ddvi.ddvi.training import COMPLETE_SHARE, draw_noise, missing_noise
from ancestry_ddvi.ddvi.training import train as train_phases
from ancestry_ddvi.fitting import EmbedConfig
from ancestry_ddvi.genotypes import GenotypeMatrix

torch.set_num_threads(1)

MISSING = (0.0, 0.5, 0.9, 0.97, 0.995)
"""Shares of missing SNPs; of 23,770 SNPs the last leaves 119."""

REGIONS = (0.5, 0.9, 0.95)
MEASURES = ("kl_exact_q", "kl_q_exact", "total_variation")
COVERAGE_DRAWS = 200
HELD_OUT_PAIRS = 8192
WARM_UP = 0.1
RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
RATE_SHARE = 0.25
"""Of the budget, that each learning rate is tried for."""
RATE_SEEDS = (10_000, 10_001, 10_002)
"""Of these trials; no examination has them."""


@dataclass(frozen=True)
class Theta:
    """A fitted model, whose decoder and prior are all that is taken as given.

    Attributes
    ----------
    model
        With the posterior that the fit trained.
    unit
        Variance that losing half of the variants adds.
    x, noise
        (n, K), (n,) features of the samples learnt from.
    config
        What it was fitted with.
    cpu_seconds
        Of the whole fit.
    """

    model: AncestryModel
    unit: float
    x: Tensor
    noise: Tensor
    config: EmbedConfig
    cpu_seconds: float

    def noise_of(self, missing: float, n: int) -> Tensor:
        """(n,) the noise that this share of missing SNPs brings."""
        return missing_noise(torch.full((n,), 1 - missing), self.unit)

    def pairs(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """z, x and noise as the sleep phase draws them."""
        least = self.config.training.min_kept
        noise = draw_noise(n, self.unit, COMPLETE_SHARE, least, generator)
        return *dream(self.model.prior, self.model.decoder, noise, generator), noise


def fitted_theta(genotypes: GenotypeMatrix, config: EmbedConfig, folder: Path) -> Theta:
    """The fit of these genotypes, from `folder` if it was made by this code and these settings."""
    key = [asdict(config), genotypes.source["sha256"], genotypes.n_samples]
    key += [common.code_digest("ddvi", "preprocessing")]
    key += [common.digest(*(common.ROOT / "ancestry_ddvi" / f"{f}.py" for f in _FIT))]
    mark = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    place = folder / f"theta-{mark}.ddvi"
    if not place.exists():
        start = time.process_time()
        fitted = fit_embedding(genotypes, config)
        seconds = time.process_time() - start
        rows = fitted.trained_on
        unfinished = place.with_suffix(".unfinished.ddvi")
        provenance = fitted.model.provenance | {"cpu_seconds": seconds}
        replace(fitted.model, provenance=provenance).save(unfinished)
        features = {"x": fitted.features.x[rows], "noise": fitted.features.noise[rows]}
        np.savez(unfinished / "features.npz", **features)
        unfinished.rename(place)
    stored = load_model(place)
    stored.model.requires_grad_(False)
    with np.load(place / "features.npz", allow_pickle=False) as file:
        x, noise = (torch.as_tensor(file[name], dtype=torch.float32) for name in ("x", "noise"))
    seconds = stored.provenance["cpu_seconds"]
    return Theta(stored.model, stored.extractor.unit, x, noise, config, seconds)


_FIT = ("fitting", "checkpoint")


def posterior_phase_seconds(theta: Theta) -> float:
    """CPU seconds of the default's posterior phase, of theta's samples and alone."""
    model = deepcopy(theta.model).requires_grad_()
    config = replace(theta.config.training, map_steps=0)
    start = time.process_time()
    train_phases(model, theta.x.numpy(), theta.noise.numpy(), theta.unit, config, 0)
    return time.process_time() - start


# --- rivals -------------------------------------------------------------------------------------


class Sampler(Protocol):
    """Whatever can be drawn from."""

    def sample(self, x: Tensor, noise: Tensor, n_draws: int, generator: torch.Generator) -> Tensor:
        """(n_draws, n, D) draws."""


Loss = Callable[[Theta, Posterior, int, torch.Generator], Tensor]
"""(theta, posterior, batch, generator) -> mean loss of a batch in nats."""


def sleep_loss(theta: Theta, posterior: Posterior, n: int, generator: torch.Generator) -> Tensor:
    """Minus the sleep bound of pairs that theta draws."""
    terms = posterior.sleep_loss(*theta.pairs(n, generator), generator)
    return torch.stack(list(terms.values())).sum(0).mean()


def bound_loss(theta: Theta, posterior: Posterior, n: int, generator: torch.Generator) -> Tensor:
    """Minus the evidence lower bound of x that theta draws."""
    _, x, noise = theta.pairs(n, generator)
    model = theta.model
    return -bound_terms(model.prior, model.decoder, posterior, x, noise, generator).elbo.mean()


def wake_loss(theta: Theta, posterior: Posterior, n: int, generator: torch.Generator) -> Tensor:
    """Minus the evidence lower bound of real samples."""
    i = torch.randint(len(theta.x), (n,), generator=generator)
    model, x, noise = theta.model, theta.x[i], theta.noise[i]
    return -bound_terms(model.prior, model.decoder, posterior, x, noise, generator).elbo.mean()


@dataclass(frozen=True)
class Rival:
    """A posterior, and how it is trained.

    Attributes
    ----------
    make
        It, with fresh weights from torch's global stream.
    loss
        What is trained, and judged on held-out draws of theta; None for what needs no training.
    wake
        Whether one step in `wake_every` is one on real samples, as in the default training.
    """

    make: Callable[[Theta], Sampler]
    loss: Loss | None = sleep_loss
    wake: bool = False


def from_table(theta: Theta, *, make: Callable[[FeatureInput, int, int], Posterior]) -> Posterior:
    """A posterior of the package's table, of the width of theta's own."""
    scale = theta.x.std(0, correction=0)
    return make(FeatureInput(scale), theta.model.prior.n_latent, theta.config.model.n_hidden)


def diffusion(theta: Theta) -> DiffusionPosterior:
    """DDVI with a fresh anchor."""
    shape = theta.config.model
    anchor = from_table(theta, make=GaussianAnchor)
    return DiffusionPosterior(anchor, shape.n_steps, shape.n_hidden)


def guided(theta: Theta) -> GuidedPosterior:
    """DDVI that starts from theta's Laplace mixture; its networks are fresh."""
    posterior = theta.model.posterior
    assert isinstance(posterior, GuidedPosterior)
    return posterior.fresh()


@dataclass(frozen=True)
class LaplaceMixture:
    """The guide without a diffusion: what of the guided posterior is closed form."""

    theta: Theta

    def sample(self, x: Tensor, noise: Tensor, n_draws: int, generator: torch.Generator) -> Tensor:
        """(n_draws, n, D) draws."""
        mixture = self.theta.model.laplace_mixture(x, noise)
        return mixture.sample(torch.Size((n_draws, len(x))), generator)


RIVALS: dict[str, Rival] = {
    "product default": Rival(lambda theta: theta.model.posterior, loss=None),
    "guided": Rival(guided),
    "laplace mixture": Rival(LaplaceMixture, loss=None),
    "diffusion": Rival(diffusion, wake=True),
    "diffusion, sleep only": Rival(diffusion),
    "gaussian, bound": Rival(partial(from_table, make=POSTERIORS["gaussian"]), bound_loss),
    **{
        name: Rival(partial(from_table, make=POSTERIORS[name]))
        for name in ("gaussian", "iaf", "nsf", "hierarchical", "pis")
    },
    "pis, anchored": Rival(partial(from_table, make=partial(PathIntegralPosterior, anchored=True))),
}


# --- training -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A trained rival and what it took."""

    posterior: Sampler
    cpu_seconds: float
    steps: int


def train(rival: Rival, theta: Theta, rate: float, budget: float, seed: int) -> Trained:
    """Adam with a one-cycle rate that runs along the CPU seconds spent, until `budget` is.

    Raises
    ------
    FloatingPointError
        If the loss or its gradient is not finite.
    """
    settings = theta.config.training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        posterior = rival.make(theta)
    if rival.loss is None:
        return Trained(posterior, 0.0, 0)
    assert isinstance(posterior, nn.Module)
    parameters = list(posterior.parameters())
    optimiser = torch.optim.Adam(parameters, fused=True)
    generator = torch.Generator().manual_seed(seed)
    start, steps, spent = time.process_time(), 0, 0.0
    while spent < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * one_cycle(spent)
        steps += 1
        if rival.wake and steps % settings.wake_every == 0:
            loss = wake_loss(theta, posterior, settings.wake_batch, generator)
        else:
            loss = rival.loss(theta, posterior, settings.posterior_batch, generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        slope = nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT)
        if not (torch.isfinite(loss) and torch.isfinite(slope)):
            raise FloatingPointError(f"not finite at step {steps}, learning rate {rate:g}")
        optimiser.step()
        spent = (time.process_time() - start) / budget
    posterior.requires_grad_(False)
    return Trained(posterior, time.process_time() - start, steps)


def one_cycle(spent: float) -> float:
    """Share of the peak rate when a share of the budget is spent: up in a tenth, down to 0."""
    if spent < WARM_UP:
        return max(spent / WARM_UP, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (spent - WARM_UP) / (1 - WARM_UP))))


@torch.no_grad()
def held_out_loss(rival: Rival, theta: Theta, trained: Trained) -> float:
    """The rival's loss on draws of theta that it was not trained on."""
    assert rival.loss is not None
    assert isinstance(trained.posterior, nn.Module)
    generator = torch.Generator().manual_seed(20_000)
    return float(rival.loss(theta, trained.posterior, HELD_OUT_PAIRS, generator))


def trial_loss(rival: Rival, theta: Theta, rate: float, budget: float) -> float:
    """The held-out loss, mean over `RATE_SEEDS`; infinite if training diverges."""
    try:
        trained = [train(rival, theta, rate, budget, seed) for seed in RATE_SEEDS]
    except FloatingPointError:
        return math.inf
    loss = float(np.mean([held_out_loss(rival, theta, each) for each in trained]))
    return loss if math.isfinite(loss) else math.inf


def train_well(
    rival: Rival, theta: Theta, rate: float, budget: float, seed: int, worst: float
) -> tuple[Trained, float]:
    """Train; where the held-out loss ends above `worst`, again at half the rate, and so on.

    Returns
    -------
    The trained rival, and the rate that it took.

    Raises
    ------
    FloatingPointError
        If a sixteenth of the rate is too high still.
    """
    for halvings in range(5):
        try:
            trained = train(rival, theta, rate / 2**halvings, budget, seed)
        except FloatingPointError:
            continue
        if held_out_loss(rival, theta, trained) <= worst:
            return trained, rate / 2**halvings
    raise FloatingPointError(f"worse than its trials from learning rate {rate:g} on")


# --- examination --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """Simulated samples with one share of missing SNPs.

    Attributes
    ----------
    z, x, noise
        (m, 2), (m, K), (m,) draws of theta, all of which coverage is counted over.
    grid
        Exact posterior of the first n.
    bias
        What draws of the exact posterior score.
    """

    z: Tensor
    x: Tensor
    noise: Tensor
    grid: GridPosterior
    bias: Discrepancy


class Exam:
    """Samples of every level with their exact posteriors; the same for all rivals of one seed."""

    def __init__(self, theta: Theta, n: int, n_coverage: int, n_draws: int, seed: int) -> None:
        self.n_draws = n_draws
        self.seed = seed
        self.levels: dict[str, Level] = {}
        prior, decoder = theta.model.prior, theta.model.decoder
        for number, missing in enumerate(MISSING):
            generator = torch.Generator().manual_seed(1000 * (seed + 1) + number)
            noise = theta.noise_of(missing, max(n, n_coverage))
            z, x = dream(prior, decoder, noise, generator)
            grid = exact_posterior(prior, decoder, x[:n], noise[:n])
            bias = discrepancy(grid, grid.sample(n_draws, generator))
            self.levels[f"{missing:g}"] = Level(z, x, noise, grid, bias)

    def mark(self, posterior: Sampler) -> dict[str, Any]:
        """Every measure of a posterior, by level, and what drawing took."""
        generator = torch.Generator().manual_seed(self.seed)
        marks, seconds, drawn = {}, 0.0, 0
        for name, level in self.levels.items():
            n = len(level.grid.mass)
            start = time.process_time()
            draws = in_parts(posterior, level.x[:n], level.noise[:n], self.n_draws, generator)
            seconds += time.process_time() - start
            drawn += self.n_draws * n
            few = in_parts(posterior, level.x, level.noise, COVERAGE_DRAWS, generator)
            marks[name] = mark_level(level, draws, few, generator)
        return {"levels": marks, "cpu_seconds_per_million_draws": 1e6 * seconds / drawn}

    def mark_exact(self) -> dict[str, Any]:
        """The same of draws of the exact posterior: what a perfect rival would get."""
        generator = torch.Generator().manual_seed(self.seed)
        marks = {}
        for name, level in self.levels.items():
            draws, few = (level.grid.sample(n, generator) for n in (self.n_draws, COVERAGE_DRAWS))
            marks[name] = mark_level(level, draws, few, generator)
        return {"levels": marks}


def mark_level(
    level: Level, draws: Tensor, few: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Means over samples: of `draws` against the grids, and coverage of the true z by `few`."""
    found = discrepancy(level.grid, draws)
    row = {}
    for measure in MEASURES:
        row[measure] = float(getattr(found, measure).mean())
        row[f"{measure}_bias"] = float(getattr(level.bias, measure).mean())
    row["sd_ratio"] = float(found.sd_ratio.log().mean().exp())
    at = region_level(few, level.z[: few.shape[1]], generator)
    for region in REGIONS:
        row[f"coverage_{region:g}"] = float((at <= region).double().mean())
    return row


def in_parts(
    posterior: Sampler, x: Tensor, noise: Tensor, n_draws: int, generator: torch.Generator
) -> Tensor:
    """(n_draws, n, D) draws, a few samples at a time: what networks make of them fits a cache."""
    size = max(1, BATCH // n_draws)
    parts = zip(x.split(size), noise.split(size), strict=True)
    return torch.cat([posterior.sample(*part, n_draws, generator) for part in parts], dim=1)
