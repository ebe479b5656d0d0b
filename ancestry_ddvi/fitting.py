"""From genotypes to a fitted embedding: whom to learn from, features, model, table, calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ancestry_ddvi import __version__
from ancestry_ddvi.ancestry import AncestryCaller
from ancestry_ddvi.checkpoint import N_DRAWS, EmbeddingModel
from ancestry_ddvi.console import Console, Verbosity, say_genotypes
from ancestry_ddvi.ddvi.loop import History
from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.ddvi.training import TrainingConfig, train
from ancestry_ddvi.embedding import EmbeddingTable, ReferencePlaces
from ancestry_ddvi.errors import (
    NotEnoughDataError,
    OptionError,
    TrainingDivergedError,
    first_few,
)
from ancestry_ddvi.genotypes import GenotypeMatrix, id_hash
from ancestry_ddvi.labelling import check_order, check_taught, classes_of, supervised_words
from ancestry_ddvi.loaders import ReadOptions, read_genotypes
from ancestry_ddvi.preprocessing.features import (
    MIN_SAMPLES,
    FeatureConfig,
    FeatureExtractor,
    Features,
)
from ancestry_ddvi.preprocessing.filters import sample_call_rate
from ancestry_ddvi.preprocessing.relatedness import (
    DEGREES,
    Relatives,
    find_relatives,
    relation,
)
from ancestry_ddvi.reference_sites import unlike_build


@dataclass(frozen=True)
class EmbedConfig:
    """All settings of one embedding; the defaults are what the command line uses.

    Attributes
    ----------
    features, model, training
        Settings of the three parts.
    n_draws
        Posterior draws behind each row of the table.
    holdout
        Share of the samples that nothing is learnt from and that are placed like new ones.
    max_kinship
        Of samples related more closely (KING-robust kinship) only some are learnt from, so that no
        such pair is left among them; the others are placed afterwards. 1 learns from all.
    seed
        Everything random follows from it.
    """

    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    n_draws: int = N_DRAWS
    holdout: float = 0.0
    max_kinship: float = 0.0884
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise OptionError(f"--holdout must be at least 0 and below 1, not {self.holdout:g}")
        if not 0 < self.max_kinship <= 1:
            raise OptionError(
                f"--max-kinship must be above 0 and at most 1, not {self.max_kinship:g}"
            )
        if self.n_draws < 2:
            raise OptionError(f"--draws must be at least 2, not {self.n_draws}")
        if not 0 <= self.seed < 2**31:
            raise OptionError(f"--seed must be from 0 to {2**31 - 1}, not {self.seed}")
        if self.model.n_latent > self.features.n_pcs:
            raise OptionError(
                f"--n-latent {self.model.n_latent} is more than the {self.features.n_pcs} "
                "principal components it would be learnt from; lower it or raise --n-pcs"
            )


@dataclass(frozen=True)
class LearntFeatures:
    """Everything before the model: who is learnt from, and what of them.

    Attributes
    ----------
    extractor
        Makes the features of further samples.
    features
        The model's input for all samples.
    sample_id
        (n_samples,) their ids.
    trained_on, held_out, relatives
        See `FittedEmbedding`.
    """

    extractor: FeatureExtractor
    features: Features
    sample_id: np.ndarray
    trained_on: np.ndarray
    held_out: np.ndarray
    relatives: Relatives | None


@dataclass(frozen=True)
class FittedEmbedding:
    """What `fit_embedding` returns.

    Attributes
    ----------
    model
        Places further samples; can be saved.
    table
        Embedding of all samples given.
    features
        The model's input for all samples.
    trained_on
        (n_samples,) bool: samples that something was learnt from.
    held_out
        (n_samples,) bool: samples that `holdout` drew, but for close relatives of samples that
        were learnt from. Those in neither are such relatives, or were called too badly.
    relatives
        Who is closely related to whom; None if it was not looked for.
    history
        Loss terms along training.
    """

    model: EmbeddingModel
    table: EmbeddingTable
    features: Features
    trained_on: np.ndarray
    held_out: np.ndarray
    relatives: Relatives | None
    history: History


def read_for(
    config: EmbedConfig,
    paths: Sequence[Path],
    options: ReadOptions,
    console: Console,
) -> GenotypeMatrix:
    """Read what the run can learn from: common variants."""
    options = replace(options, maf=max(options.maf, config.features.min_maf))
    counted = partial(training_mask, config=config, name=first_few(paths, 3))
    with console.stage("read genotypes") as update:
        genotypes = read_genotypes(paths, options, update, counted=counted)
    say_genotypes(console, genotypes)
    if said := unlike_build(genotypes, options.region_builds):
        console.warn(said)
    return genotypes


def fit_embedding(
    genotypes: GenotypeMatrix,
    config: EmbedConfig | None = None,
    *,
    labels: pd.Series | None = None,
    console: Console | None = None,
    keep_draws: bool = False,
) -> FittedEmbedding:
    """Learn features and model from the genotypes and embed every sample.

    Parameters
    ----------
    genotypes
        At least 20 samples.
    config
        Settings; defaults if not given.
    labels
        (n_samples,) text, missing where unknown. If given, those of training samples are learnt
        from (`ddvi.supervision`); nothing is learnt from those of held-out samples.
    console
        Where progress goes; nowhere if not given.
    keep_draws
        Whether the table has the posterior draws, too.

    Raises
    ------
    OptionError
        If labels cannot be learnt from: none, one, or more classes than the prior has clusters.
    NotEnoughDataError
        Too few samples or usable variants.
    TrainingDivergedError
        The loss became non-finite; `last_good` is the `EmbeddingModel` as it was before.
    """
    config = config or EmbedConfig()
    console = console or Console(Verbosity.QUIET)
    if labels is not None:
        check_order(labels, genotypes)
        drawn = training_mask(genotypes.n_samples, config, genotypes.name)
        check_taught(labels, drawn, config.model, f"labels {labels.name!r}")
    learnt = learn_features(genotypes, config, console)
    extractor, features, trained_on = learnt.extractor, learnt.features, learnt.trained_on
    label, supervision = None, None
    if labels is not None:
        classes, label = classes_of(labels.to_numpy()[trained_on])
        config = replace(config, model=replace(config.model, classes=classes))
        supervision = {
            "column": labels.name,
            "n_labelled": int((label >= 0).sum()),
            "n_unlabelled": int((label < 0).sum()),
        }
        console.warn(supervised_words(supervision, len(classes)))
    provenance = {
        "version": __version__,
        "input": dict(genotypes.source),
        "n_training_samples": int(trained_on.sum()),
        "n_variants": len(extractor.variants),
        "seed": config.seed,
        "config": asdict(config),
        "supervision": supervision,
    }
    hashes = np.sort(id_hash(genotypes.sample_id[trained_on]))
    try:
        with console.stage("train the model") as update:
            model, history = train_model(learnt, config, label, progress=update)
    except TrainingDivergedError as error:
        if isinstance(error.last_good, AncestryModel):
            provenance["diverged"] = str(error)
            error.last_good = EmbeddingModel(extractor, error.last_good, hashes, provenance)
        raise
    with console.stage("draw from the posterior"):
        fitted = EmbeddingModel(extractor, model, hashes, provenance)
        table = fitted.embed_features(
            features,
            genotypes.sample_id,
            n_draws=config.n_draws,
            seed=config.seed,
            keep_draws=keep_draws,
        )
    return FittedEmbedding(
        fitted, table, features, trained_on, learnt.held_out, learnt.relatives, history
    )


def learn_features(
    genotypes: GenotypeMatrix, config: EmbedConfig, console: Console
) -> LearntFeatures:
    """Draw the held-out samples, set relatives apart, and learn the features from the others."""
    extractor = FeatureExtractor(config.features)
    drawn = training_mask(genotypes.n_samples, config, genotypes.name)
    relatives = _find_relatives(genotypes, drawn, config, console)
    train_mask = drawn if relatives is None else drawn & ~relatives.left_out
    with console.stage("learn features"):
        features = extractor.fit_transform(genotypes, train=train_mask, progress=console.detail)
    _say_features(console, genotypes, extractor, train_mask)
    held_out = ~drawn if relatives is None else ~drawn & ~relatives.near
    return LearntFeatures(
        extractor, features, genotypes.sample_id, extractor.trained_on, held_out, relatives
    )


def train_model(
    learnt: LearntFeatures,
    config: EmbedConfig,
    label: np.ndarray | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[AncestryModel, History]:
    """The product's model, trained on the features of the training samples, and on their labels
    where the model has classes (`train`)."""
    x, noise = learnt.features.x[learnt.trained_on], learnt.features.noise[learnt.trained_on]
    model = AncestryModel(x.std(axis=0), config.model, config.seed)
    try:
        history = train(
            model,
            x,
            noise,
            learnt.extractor.unit,
            config.training,
            config.seed,
            progress=progress,
            denoised=learnt.features.denoised,
            label=label,
        )
    except TrainingDivergedError as error:
        error.last_good = model
        raise
    return model, history


def training_mask(n_samples: int, config: EmbedConfig, name: str) -> np.ndarray:
    """(n_samples,) bool: a random share `holdout` is False. `name` is the input's, for messages."""
    order = np.random.default_rng(config.seed).permutation(n_samples)
    # Whoever asks for held-out samples gets at least one.
    n_held_out = max(round(config.holdout * n_samples), int(config.holdout > 0))
    mask = np.ones(n_samples, dtype=bool)
    mask[order[:n_held_out]] = False
    if n_samples >= MIN_SAMPLES > n_samples - n_held_out:
        raise NotEnoughDataError(
            f"{name}: --holdout {config.holdout:g} leaves {n_samples - n_held_out} of "
            f"{n_samples} samples to learn from, and {MIN_SAMPLES} are needed; hold out fewer"
        )
    return mask


def _find_relatives(
    genotypes: GenotypeMatrix, train: np.ndarray, config: EmbedConfig, console: Console
) -> Relatives | None:
    """Look for close relatives and say what was found; None where it is not looked for."""
    if config.max_kinship >= 1 or genotypes.n_samples < MIN_SAMPLES:
        return None
    # Samples that are badly called are not learnt from in any case.
    train = train & (sample_call_rate(genotypes) >= config.features.min_sample_call_rate)
    if not train.any():
        return None  # said when features are learnt
    with console.stage("find relatives") as update:
        found = find_relatives(
            genotypes,
            train,
            min_kinship=config.max_kinship,
            min_call_rate=config.features.min_call_rate,
            min_maf=config.features.min_maf,
            progress=update,
        )
    pairs, ids = found.pairs, genotypes.sample_id
    if not np.isfinite(found.min_kinship):
        console.warn(
            f"relatives are not told apart by {pairs.n_variants:,} common variants of "
            f"{genotypes.n_samples:,} samples; find them with `plink2 --king-cutoff`, and leave "
            "them out with --remove"
        )
    elif found.min_kinship > config.max_kinship:
        console.warn(
            f"{pairs.n_variants:,} common variants tell relatives only from kinship "
            f"{found.min_kinship:.3f} on, not from {config.max_kinship:g}"
        )
    if len(pairs.kinship):
        apart = found.left_out | found.near
        console.note(
            f"{len(pairs.kinship):,} pairs of close relatives (kinship {found.min_kinship:.3g} or "
            f"more); placed on the map, not learnt from and not scored: {first_few(ids[apart])}"
        )
    for first, second, kinship in zip(pairs.first, pairs.second, pairs.kinship, strict=True):
        said = f"{ids[first]} and {ids[second]}: {relation(kinship)}, kinship {kinship:.3f}"
        (console.warn if relation(kinship) == DEGREES[0][1] else console.detail)(said)
    return found


def _say_features(
    console: Console, genotypes: GenotypeMatrix, extractor: FeatureExtractor, mask: np.ndarray
) -> None:
    for reason, n in extractor.funnel.items():
        console.detail(f"variants taken by the filter {reason!r}: {n:,}")
    low = genotypes.sample_id[mask & ~extractor.trained_on]
    if len(low):
        console.warn(
            f"{len(low)} samples have a call rate below "
            f"{extractor.config.min_sample_call_rate:g}: placed on the map, not learnt from and "
            f"not scored ({first_few(low)})"
        )


def with_calls(
    fitted: FittedEmbedding,
    genotypes: GenotypeMatrix,
    population: pd.Series | None,
    superpopulation: pd.Series | None,
    seed: int,
) -> EmbeddingModel:
    """The fitted model, and what calls ancestry: learnt from the labels of the samples that it was
    trained on; as it is if too few have one."""
    if population is None:
        return fitted.model
    train = fitted.trained_on
    caller = AncestryCaller.learn(genotypes, population, superpopulation, train, seed)
    if caller is None:
        return fitted.model

    def text(labels: pd.Series | None) -> np.ndarray:
        if labels is None:
            return np.full(int(train.sum()), "")
        return labels[train].fillna("").astype(str).to_numpy(str)

    z = fitted.table.z[train].astype(np.float32)
    places = ReferencePlaces(z, text(population), text(superpopulation))
    return replace(fitted.model, caller=caller, places=places)
