"""How the model is trained: first the map, then what the map means, then the posterior.

Map (theta and the encoder): the bound with the encoder's Gaussian as posterior (the case T = 0),
plus the two terms of `geometry`. Part of what the encoder sees (`noisy_share`) has noise added as
missing genotypes would add it, so one network serves every call rate.

Where some samples have labels (`supervision`) their bound is that of the labelled, and the
classifier q(l | x) learns with the map, from batches of labelled samples of its own.

Clusters (only where the decoder sees them, before the map): see `dirichlet`.

Decoder (theta): the bound alone, the encoder held and its Gaussian narrowed. The terms of
`geometry` place samples where the likelihood of the moment would not; theta now follows, so that
the posterior of the model puts a sample where the map does.

Posterior (phi), the sleep phase with theta frozen (Piriyakulkij, Wang & Kuleshov 2025): pairs
(z, x) drawn from the model, whose posterior they are exact draws of, at noise levels from complete
to some sixty variants of fifteen thousand. Sleep carries the calibration: a posterior trained on
the bound alone is too sure of itself where genotypes are missing. Where the diffusion starts from
the encoder's Gaussian, every eighth step is a wake step on the bound of real samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from ancestry_ddvi.ddvi.dirichlet import ClusterDecoder
from ancestry_ddvi.ddvi.geometry import Neighbours, distance_loss, neighbour_loss
from ancestry_ddvi.ddvi.guided import GuidedPosterior
from ancestry_ddvi.ddvi.loop import History, Phase, run_phases
from ancestry_ddvi.ddvi.model import AncestryModel
from ancestry_ddvi.ddvi.networks import MAX_NOISE
from ancestry_ddvi.ddvi.objective import dream
from ancestry_ddvi.ddvi.posterior import log_det, unwhiten
from ancestry_ddvi.ddvi.priors import MixturePrior, VampPrior, check_label
from ancestry_ddvi.ddvi.supervision import UNLABELLED
from ancestry_ddvi.errors import OptionError, TrainingDivergedError

COMPLETE_SHARE = 0.15
"""Share of sleep samples with no noise added: most real samples are complete."""

MATCHED, LEADING = 0.25, 0.5
"""After the first share of the map phase the parts of the prior are matched to the classes; before
it the bound knows no labels. Until the second it moves the map towards q(l | x), and not q(l | x)
towards the map: while that is out of place, it would teach the classifier wrong."""

GUIDED_STEPS, UNGUIDED_STEPS = 50, 3000
"""Posterior steps: with a guide there is next to nothing left to learn, measured."""

REMEDY = (
    "try another --seed, fewer --n-clusters, or look for samples far from all others in the input"
)

_SHARE = (0.0, 1.0, "from 0 to 1")
_ABOVE_0 = (math.ulp(0.0), math.inf, "above 0")
_RANGES = {
    "wide_share": _SHARE,
    "wide_probability": _SHARE,
    "noisy_share": _SHARE,
    **dict.fromkeys(("decoder_width", "min_kept"), (math.ulp(0.0), 1.0, "above 0 and at most 1")),
    **dict.fromkeys(
        ("map_pairs", "posterior_batch", "posterior_draws", "wake_batch", "class_batch"),
        _ABOVE_0,
    ),
    **dict.fromkeys(
        ("map_learning_rate", "posterior_learning_rate", "tau", "close_neighbours"), _ABOVE_0
    ),
}

_WHOLE = {
    *("map_steps", "map_pairs", "close_neighbours", "class_batch", "posterior_steps"),
    *("posterior_batch", "posterior_draws", "wake_every", "wake_batch"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """Length and weights of the phases.

    Attributes
    ----------
    map_steps, map_pairs, map_learning_rate
        Optimiser steps of the map phase, neighbour pairs in a batch, peak learning rate. The
        decoder phase has a quarter as many steps of the same pairs.
    neighbour_weight, distance_weight, tau
        Weights (nats) and kernel width of the `geometry` terms.
    close_neighbours, wide_share, wide_probability
        Where neighbour partners come from (`geometry.Neighbours`).
    class_weight, class_batch
        Weight of the classification loss (`supervision`), and labelled samples in its batch.
    decoder_width
        In the decoder phase z is drawn from the encoder's Gaussian at this share of its width. Less
        fits training samples better and new ones worse (`benchmarks/results/decoder_width.md`).
    noisy_share
        Share of a map batch that has noise added.
    min_kept
        Smallest share of variants that training imitates.
    posterior_steps, posterior_batch, posterior_learning_rate
        The same for the posterior phase; the steps are 50 for a guided posterior and 3,000 for
        another if left out.
    posterior_draws
        Steps of the diffusion that a guided posterior learns at each pair of its batch.
    wake_every
        Without a guide, one posterior step in so many is a wake step on real samples; 0 for none.
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
    class_weight: float = 10.0
    class_batch: int = 64
    decoder_width: float = 1.0
    noisy_share: float = 0.25
    min_kept: float = 0.004
    posterior_steps: int | None = None
    posterior_batch: int = 512
    posterior_learning_rate: float = 2e-3
    posterior_draws: int = 8
    wake_every: int = 8
    wake_batch: int = 128

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            low, high, words = _RANGES.get(name, (0, math.inf, "at least 0"))
            if value is None:
                continue
            if name in _WHOLE and not isinstance(value, Integral):
                raise OptionError(f"training: {name} must be a whole number, not {value!r}")
            if not (low <= value <= high and math.isfinite(value)):
                raise OptionError(f"training: {name} must be {words}, not {value}")
        if self.noisy_share == 1 and (self.neighbour_weight or self.distance_weight):
            raise OptionError(
                "training: with noisy_share 1 no sample is left for the neighbour and distance "
                "terms; lower it or set both weights to 0"
            )


def train(
    model: AncestryModel,
    x: np.ndarray,
    noise: np.ndarray,
    unit: float,
    config: TrainingConfig,
    seed: int,
    progress: Callable[[float], None] = lambda fraction: None,
    denoised: np.ndarray | None = None,
    label: np.ndarray | None = None,
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
    denoised
        (n_samples, K) features in which neighbours are looked for; x if left out.
    label
        (n_samples,) int, the class of each sample, -1 where it is not known; for a model that has
        classes, and only for such.

    Raises
    ------
    OptionError
        If a label is none of the model's classes, no sample is labelled, or labels and classes do
        not go together; before the first step.
    TrainingDivergedError
        If a loss is not finite; the model is left with the last good weights.
    """
    _check_features(x, noise)
    labels = _checked_labels(model, label, len(x))
    data = _Data.of(x, noise, x if denoised is None else denoised, labels, unit, config, seed)
    guided = isinstance(model.posterior, GuidedPosterior)
    decoder = model.decoder
    with_clusters = isinstance(decoder, ClusterDecoder)
    theta = _modules(model.prior, decoder.normal if with_clusters else decoder)
    anchor = model.posterior.anchor
    if isinstance(decoder, ClusterDecoder):
        decoder.start_at(x, seed)
    # A prior that is made by the encoder keeps it as it is once theta is frozen.
    shared = isinstance(model.prior, VampPrior)
    map_steps = config.map_steps
    per_epoch = len(x) / config.map_pairs
    posterior_steps = config.posterior_steps
    if posterior_steps is None:
        posterior_steps = GUIDED_STEPS if guided else UNGUIDED_STEPS

    def rate(n_steps: int) -> float:
        return n_steps and config.map_learning_rate

    clusters = Phase(
        "clusters",
        map_steps // 2,
        rate(map_steps),
        decoder,
        lambda step: _cluster_terms(model, data, config, 2 * step / map_steps),
        per_epoch,
    )
    phases = (
        *[clusters] * with_clusters,
        Phase(
            "map",
            map_steps,
            rate(map_steps),
            _modules(theta, anchor, model.classifier),
            lambda step: _map_terms(model, data, config, step),
            per_epoch,
        ),
        Phase(
            "decoder",
            map_steps // 4,
            rate(map_steps),
            theta,
            lambda step: _decoder_terms(model, data, config),
            per_epoch,
        ),
        # Theta is frozen here: what is not optimised takes no gradient.
        Phase(
            "posterior",
            posterior_steps,
            config.posterior_learning_rate,
            _modules(*(m for m in model.posterior.children() if not (shared and m is anchor))),
            lambda step: _posterior_terms(model, data, config, step, guided=guided),
        ),
    )
    history = run_phases(model, phases, progress, REMEDY)
    if isinstance(model.prior, MixturePrior):
        model.prior.sort()
    return history


@dataclass(frozen=True)
class _Data:
    """Training samples and what is needed to draw batches of them."""

    x: Tensor
    noise: Tensor
    denoised: Tensor
    unit: float
    neighbours: Neighbours
    generator: torch.Generator
    label: Tensor | None = None

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        noise: np.ndarray,
        denoised: np.ndarray,
        label: Tensor | None,
        unit: float,
        config: TrainingConfig,
        seed: int,
    ) -> _Data:
        neighbours = Neighbours(
            denoised,
            close=config.close_neighbours,
            wide_share=config.wide_share,
            wide_probability=config.wide_probability,
        )
        return cls(
            torch.as_tensor(x, dtype=torch.float32),
            torch.as_tensor(noise, dtype=torch.float32).clamp(max=MAX_NOISE),
            torch.as_tensor(denoised, dtype=torch.float32),
            unit,
            neighbours,
            torch.Generator().manual_seed(seed),
            label,
        )


def _modules(*parts: object) -> nn.ModuleList:
    """Those parts that are modules."""
    return nn.ModuleList([part for part in parts if isinstance(part, nn.Module)])


def _checked_labels(model: AncestryModel, label: np.ndarray | None, n: int) -> Tensor | None:
    n_classes = len(model.config.classes)
    if label is None and not n_classes:
        return None
    if label is None or not n_classes:
        raise OptionError(
            f"training: {'labels are' if label is None else 'no labels are'} what a model of "
            f"{n_classes} classes learns from; give both labels and classes, or neither"
        )
    labels = torch.as_tensor(label, dtype=torch.long)
    if labels.shape != (n,):
        raise OptionError(f"training: labels have shape {tuple(labels.shape)}, not ({n},)")
    known = labels[labels != UNLABELLED]
    check_label(known, n_classes)
    if not len(known):
        raise OptionError(
            "no sample that is learnt from has a label; label some, or train without labels"
        )
    return labels


def _check_features(x: np.ndarray, noise: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1) | np.isnan(noise))
    if len(bad):
        raise TrainingDivergedError(
            f"training: features of row {bad[0]} are not finite ({len(bad)} such rows); look for "
            "samples or variants with hardly any called genotype in the input"
        )


def missing_noise(kept: Tensor, unit: float) -> Tensor:
    """s of features.py, eq. (2), for a share `kept` of the variants: sqrt(unit (1 - k) / k)."""
    return torch.sqrt(unit * (1 - kept) / kept)


def draw_noise(
    n: int, unit: float, complete_share: float, min_kept: float, generator: torch.Generator
) -> Tensor:
    """(n,) noise levels: complete, or a kept share log-uniform in [min_kept, 1]."""
    kept = torch.exp(torch.rand(n, generator=generator) * math.log(min_kept))
    complete = torch.rand(n, generator=generator) < complete_share
    return missing_noise(torch.where(complete, 1.0, kept), unit)


@dataclass(frozen=True)
class _Pairs:
    """A batch of neighbour pairs (i, j), their first ends before their second ends.

    Attributes
    ----------
    seen, level
        (2 n, K), (2 n,) features with noise added to some pairs, and the noise of all.
    index
        (2 n,) row numbers.
    clean
        (2 n,) bool: pairs without added noise.
    """

    seen: Tensor
    level: Tensor
    index: Tensor
    clean: Tensor


def _draw_pairs(data: _Data, config: TrainingConfig) -> _Pairs:
    generator = data.generator
    i = torch.randint(len(data.x), (config.map_pairs,), generator=generator)
    index = torch.cat([i, data.neighbours.partner(i, generator)])
    added = _some_noise(config.map_pairs, data, config)
    clean = torch.arange(config.map_pairs) >= round(config.noisy_share * config.map_pairs)
    return _Pairs(*_noised(data, index, added.repeat(2)), index, clean.repeat(2))


def _some_noise(n: int, data: _Data, config: TrainingConfig) -> Tensor:
    """(n,) noise to add: some to the first `noisy_share`, none to the others."""
    n_noisy = round(config.noisy_share * n)
    added = torch.zeros(n)
    added[:n_noisy] = draw_noise(n_noisy, data.unit, 0.0, config.min_kept, data.generator)
    return added


def _noised(data: _Data, index: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """Features of some rows with noise added, and the noise that they then have."""
    x = data.x[index]
    seen = x + added.unsqueeze(1) * torch.randn(x.shape, generator=data.generator)
    return seen, torch.sqrt(data.noise[index] ** 2 + added**2)


def _classification(model: AncestryModel, data: _Data, config: TrainingConfig) -> Tensor:
    """-log q(l | x) of a batch of labelled samples, and their share of the prior of its weights."""
    assert model.classifier is not None
    assert data.label is not None
    labelled = torch.nonzero(data.label != UNLABELLED).squeeze(-1)
    index = labelled[torch.randint(len(labelled), (config.class_batch,), generator=data.generator)]
    log_q = model.classifier(*_noised(data, index, _some_noise(len(index), data, config)))
    return nll_loss(log_q, data.label[index]) - model.classifier.log_weight_prior() / len(labelled)


def _cluster_terms(
    model: AncestryModel, data: _Data, config: TrainingConfig, done: float
) -> dict[str, Tensor]:
    """The bound where z is drawn from the prior, minus, at a share `done` of the phase."""
    assert isinstance(model.decoder, ClusterDecoder)
    pairs = _draw_pairs(data, config)
    z = model.prior.sample(len(pairs.seen), data.generator)
    bound = model.decoder.log_bound(
        pairs.seen, z, pairs.level, data.generator, kl_weight=min(1.0, 2 * done)
    )
    return {"cluster": -bound.mean()}


def _bound_terms(
    model: AncestryModel,
    data: _Data,
    pairs: _Pairs,
    mean: Tensor,
    factor: Tensor,
    *,
    with_labels: bool = True,
    classifier_leads: bool = False,
) -> dict[str, Tensor]:
    """The bound with the encoder's Gaussian as posterior, minus."""
    generator = data.generator
    label = data.label[pairs.index] if with_labels and data.label is not None else None
    u = torch.randn(mean.shape, generator=generator)
    z = unwhiten(u, mean, factor)
    # log q(z | x) with its expectation over u in closed form: this is the entropy of the anchor.
    entropy = log_det(factor) + 0.5 * mean.shape[1] * math.log(2 * math.pi * math.e)
    log_likelihood = model.log_likelihood(pairs.seen, z, pairs.level, generator)
    log_prior = model.log_prior(
        z, pairs.seen, pairs.level, label, classifier_leads=classifier_leads
    )
    return {
        "reconstruction": -log_likelihood.mean(),
        "prior_kl": -(entropy + log_prior).mean(),
    }


def _map_terms(
    model: AncestryModel, data: _Data, config: TrainingConfig, step: int
) -> dict[str, Tensor]:
    """Terms of the map phase on one batch of neighbour pairs."""
    pairs = _draw_pairs(data, config)
    mean, factor = model.posterior.anchor(pairs.seen, pairs.level)
    matched = round(MATCHED * config.map_steps)
    if data.label is not None and step == matched + 1:
        model.match_classes(data.x, data.noise, data.label)
    terms = _bound_terms(
        model,
        data,
        pairs,
        mean,
        factor,
        with_labels=step > matched,
        classifier_leads=step <= LEADING * config.map_steps,
    )
    if data.label is not None:
        terms["classification"] = config.class_weight * _classification(model, data, config)
    # Pairs with added noise teach only the bound; the geometry terms look at complete features,
    # where "neighbour" means something.
    on_map = mean[pairs.clean]
    denoised = data.denoised[pairs.index[pairs.clean]]
    first, second = on_map.chunk(2)
    neighbour = neighbour_loss(first, second, config.tau)
    distance = distance_loss(on_map, denoised, data.generator)
    return terms | {
        "neighbour": config.neighbour_weight * neighbour,
        "distance": config.distance_weight * distance,
    }


def _decoder_terms(model: AncestryModel, data: _Data, config: TrainingConfig) -> dict[str, Tensor]:
    """Terms of the decoder phase: the bound where the encoder stays as it is."""
    pairs = _draw_pairs(data, config)
    with torch.no_grad():
        mean, factor = model.posterior.anchor(pairs.seen, pairs.level)
    return _bound_terms(model, data, pairs, mean, config.decoder_width * factor)


def _posterior_terms(
    model: AncestryModel, data: _Data, config: TrainingConfig, step: int, *, guided: bool
) -> dict[str, Tensor]:
    """Terms of one wake or sleep step."""
    generator = data.generator
    if not guided and config.wake_every and step % config.wake_every == 0:
        i = torch.randint(len(data.x), (config.wake_batch,), generator=generator)
        bound = model.bound(data.x[i], data.noise[i], generator)
        return {"reconstruction": -bound.reconstruction.mean(), "prior_kl": bound.prior_kl.mean()}
    # A guide costs more than the steps that learn from it, so several share one.
    n_draws = config.posterior_draws if guided else 1
    n_pairs = -(-config.posterior_batch // n_draws)
    level = draw_noise(n_pairs, data.unit, COMPLETE_SHARE, config.min_kept, generator)
    z, dreamt = dream(model.prior, model.decoder, level, generator)
    if isinstance(model.posterior, GuidedPosterior):
        sleep = model.posterior.sleep_loss(z, dreamt, level, generator, n_draws)
    else:
        sleep = model.posterior.sleep_loss(z, dreamt, level, generator)
    return {name: term.mean() for name, term in sleep.items()}
