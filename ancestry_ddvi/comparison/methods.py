"""What is compared, each behind one face: features in, places on a map out.

    METHODS["iaf"].fit(task)      Fit

All latent variable models have the same features, decoder, learnt mixture prior and width, and all
but `ddvi` the same budget of gradient steps on the plain objective of their paper: no neighbour or
distance terms, no noise added. `ddvi` is what `fit_embedding` trains, with its own two phases.

    gaussian, iaf, nsf, hierarchical, pis     the bound (`Unregularised`); pis, too, moves in the
                                              space of the anchor: in z itself, from 0, it does not
                                              get to see x within the budget
    adversarial                               `Adversarial`; its prior stays as it was drawn
    ddvi-unregularised, -wake-sleep           DDVI as the paper has it, from the encoder's Gaussian
                                              and without a guide
    ddvi-simplified                           the blind posterior
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec

import numpy as np
import torch

from ancestry_ddvi.baselines import POSTERIORS, REDUCTIONS, Adversarial, PathIntegralPosterior
from ancestry_ddvi.checkpoint import EmbeddingModel
from ancestry_ddvi.ddvi.blind import BlindPosterior
from ancestry_ddvi.ddvi.engine import fit
from ancestry_ddvi.ddvi.latent import LatentModel
from ancestry_ddvi.ddvi.model import AncestryModel
from ancestry_ddvi.ddvi.networks import FeatureInput, NormalDecoder
from ancestry_ddvi.ddvi.objective import Posterior
from ancestry_ddvi.ddvi.wake_sleep import (
    Objective,
    Simplified,
    Unregularised,
    WakeSleep,
    n_turns,
)
from ancestry_ddvi.errors import OptionError
from ancestry_ddvi.fitting import EmbedConfig, LearntFeatures, train_model

ALL = "all"
BATCH = 256
LEARNING_RATES = {
    **dict.fromkeys(("gaussian", "hierarchical", "pis", "ddvi-unregularised"), 1.6e-2),
    **dict.fromkeys(("iaf", "nsf", "ddvi-wake-sleep", "adversarial"), 8e-3),
    "ddvi-simplified": 4e-3,
}
"""The peak: of .004, .008, .016 and .032 the one with the best bound on the bundled data
(`benchmarks/rates.py`); what has no bound takes .008."""

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Task:
    """One fit: what every method is given.

    Attributes
    ----------
    learnt
        Features of all samples, and which were learnt from.
    config
        The product's settings; shapes, draws and seed of all methods.
    n_steps
        Gradient steps of every method but `ddvi`; of wake-sleep, those of the wake phase.
    progress
        Called with the fraction done.
    learning_rate
        The peak, in the place of `LEARNING_RATES`.
    """

    learnt: LearntFeatures
    config: EmbedConfig
    n_steps: int
    progress: Progress = lambda fraction: None
    learning_rate: float | None = None

    @property
    def placed(self) -> np.ndarray:
        """(n_samples,) bool: training and held-out samples, as far as they have genotypes."""
        learnt = self.learnt
        placed: np.ndarray = learnt.trained_on | (
            learnt.held_out & np.isfinite(learnt.features.noise)
        )
        return placed


@dataclass(frozen=True)
class Fit:
    """Where a method puts the samples.

    Attributes
    ----------
    z
        (n_samples, 2) posterior means, or the place on the map; nan where not `Task.placed`.
    sd
        (n_samples,) posterior sd, averaged over axes; None where there is no posterior.
    elbo
        Gives the (n_samples,) bound in nats, nan where not placed; None where there is no density.
    """

    z: np.ndarray
    sd: np.ndarray | None = None
    elbo: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True)
class Method:
    """A method of the comparison.

    Attributes
    ----------
    title
        As tables and maps name it.
    fit
        Trains and places.
    module
        A module that must be installed, if any, which the extra `benchmark` brings.
    warm_up
        What happens once a process, and is no part of the seconds of a fit: imports, compiling.
    """

    title: str
    fit: Callable[[Task], Fit]
    module: str | None = None
    warm_up: Callable[[], object] = lambda: None

    @property
    def installed(self) -> bool:
        """Whether it can run."""
        return self.module is None or find_spec(self.module) is not None


def _product(task: Task) -> Fit:
    learnt, config = task.learnt, task.config
    model, _ = train_model(learnt, config, progress=task.progress)
    whole = EmbeddingModel(learnt.extractor, model, np.empty(0, dtype=np.uint64))
    table = whole.embed_features(
        learnt.features, learnt.sample_id, n_draws=config.n_draws, seed=config.seed
    ).select(task.placed)
    placed = task.placed
    return Fit(
        _spread(table.z, placed),
        _spread(table.z_sd.mean(axis=1), placed),
        lambda: _spread(table.elbo, placed),
    )


def _rival(
    task: Task, name: str, make: Callable[..., Posterior] | None, objective: Objective
) -> Fit:
    """The product's model with another posterior; `make` None is the diffusion without a guide."""
    learnt, seed, shape = task.learnt, task.config.seed, task.config.model
    x, noise = learnt.features.x[learnt.trained_on], learnt.features.noise[learnt.trained_on]
    scale = x.std(axis=0)
    parts = AncestryModel(scale, replace(shape, guided=False), seed)
    posterior: Posterior = parts.posterior
    if make is not None:
        # Layers of torch draw their weights from the global stream.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            inputs = FeatureInput(torch.as_tensor(scale, dtype=torch.float32))
            posterior = make(inputs, shape.n_latent, shape.n_hidden)
    assert isinstance(parts.decoder, NormalDecoder)
    model = LatentModel(parts.prior, parts.decoder, posterior)
    # As many steps of the decoder as the others take, however many there are between them.
    fit(
        model,
        x,
        noise,
        objective=objective,
        n_steps=task.n_steps * n_turns(objective),
        batch=BATCH,
        learning_rate=task.learning_rate or LEARNING_RATES[name],
        seed=seed,
        progress=task.progress,
    )
    return _from_posterior(model, task, has_density=not isinstance(objective, Adversarial))


def _from_posterior(model: LatentModel, task: Task, *, has_density: bool) -> Fit:
    """Means and sd of the posterior's draws, as the product's table has them."""
    placed, seed = task.placed, task.config.seed
    x, noise = task.learnt.features.x[placed], task.learnt.features.noise[placed]
    n_draws = task.config.n_draws
    draws = model.sample_posterior(x, noise, n_draws=n_draws, seed=seed)
    sd = draws.std(axis=0, ddof=1).mean(axis=-1)
    return Fit(
        _spread(draws.mean(axis=0), placed),
        _spread(sd, placed),
        (lambda: _spread(model.elbo(x, noise, n_draws=n_draws, seed=seed), placed))
        if has_density
        else None,
    )


def _reduction(task: Task, name: str) -> Fit:
    learnt, x = task.learnt, task.learnt.features.x
    with _same_threads():
        fitted = REDUCTIONS[name](x[learnt.trained_on], task.config.seed)
        z = _spread(fitted.train, learnt.trained_on)
        new = task.placed & ~learnt.trained_on
        if new.any():
            z[new] = fitted.transform(x[new])
    return Fit(z)


@cache
def _warm_up(name: str) -> None:
    with _same_threads():
        REDUCTIONS[name](np.random.default_rng(0).normal(size=(100, 5)), 0)


@contextmanager
def _same_threads() -> Iterator[None]:
    """Leave torch its number of threads.

    numba (UMAP) sets that of OpenMP, which is torch's too: small networks would then take many
    times the seconds, and those of all later fits would be wrong.
    """
    n_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _spread(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values of some samples in an array of all, nan elsewhere."""
    out = np.full((len(rows), *values.shape[1:]), np.nan)
    out[rows] = values
    return out


def _latent(
    name: str, objective: Objective, make: Callable[..., Posterior] | None = None
) -> Callable[[Task], Fit]:
    return partial(_rival, name=name, make=make, objective=objective)


def _bounded(name: str) -> Callable[[Task], Fit]:
    return _latent(name, Unregularised(), POSTERIORS[name])


METHODS: dict[str, Method] = {
    "gaussian": Method("AEVB (Gaussian)", _bounded("gaussian")),
    "iaf": Method("AEVB-IAF", _bounded("iaf")),
    "nsf": Method("AEVB-NSF", _bounded("nsf")),
    "adversarial": Method(
        "AAEB (adversarial)",
        _latent("adversarial", Adversarial(), POSTERIORS["adversarial"]),
    ),
    "hierarchical": Method("H-AEVB (hierarchical)", _bounded("hierarchical")),
    "pis": Method(
        "PIS (path integral)",
        _latent("pis", Unregularised(), partial(PathIntegralPosterior, anchored=True)),
    ),
    "ddvi": Method("DDVI (ancestry-ddvi)", _product),
    "ddvi-unregularised": Method(
        "DDVI, unregularised", _latent("ddvi-unregularised", Unregularised())
    ),
    "ddvi-wake-sleep": Method("DDVI, wake-sleep", _latent("ddvi-wake-sleep", WakeSleep())),
    "ddvi-simplified": Method(
        "DDVI, simplified", _latent("ddvi-simplified", Simplified(), BlindPosterior)
    ),
    "pca": Method("PCA", partial(_reduction, name="pca")),
    "tsne": Method(
        "t-SNE", partial(_reduction, name="tsne"), "openTSNE", partial(_warm_up, "tsne")
    ),
    "umap": Method("UMAP", partial(_reduction, name="umap"), "umap", partial(_warm_up, "umap")),
}
"""Name on the command line -> method, in the order of the table."""


def choose(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read `all` or names joined by commas.

    Returns
    -------
    The names in the order of the table, and those of `all` that are left out as not installed.

    Raises
    ------
    OptionError
        If a name is not known, or what it needs is not installed.
    """
    missing = [name for name, method in METHODS.items() if not method.installed]
    if text.strip() == ALL:
        return tuple(n for n in METHODS if n not in missing), tuple(missing)
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in METHODS]
    if unknown or not wanted:
        raise OptionError(
            f"--methods: no method {unknown[0] if unknown else text!r}; name some of "
            f"{', '.join(METHODS)}, joined by commas, or {ALL}"
        )
    for name in wanted:
        if name in missing:
            raise OptionError(
                f"--methods: {name} needs {METHODS[name].module}, which is not installed: pip "
                'install "ancestry-ddvi[benchmark]", or leave it out'
            )
    return tuple(name for name in METHODS if name in wanted), ()
