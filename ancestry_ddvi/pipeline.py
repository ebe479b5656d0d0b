"""The whole story: genotypes to features to a model to draws to a table to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi import __version__
from ancestry_ddvi.ancestry import AncestryCaller, AncestryCalls, CallConfig
from ancestry_ddvi.checkpoint import N_DRAWS, EmbeddingModel, load_model
from ancestry_ddvi.console import Console, Verbosity, say_genotypes
from ancestry_ddvi.ddvi.loop import History
from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.ddvi.supervision import UNLABELLED, check_enough
from ancestry_ddvi.ddvi.training import TrainingConfig, train
from ancestry_ddvi.embedding import EmbeddingTable, ReferencePlaces
from ancestry_ddvi.errors import (
    LabelFileError,
    NotEnoughDataError,
    OptionError,
    OutputError,
    TrainingDivergedError,
    first_few,
)
from ancestry_ddvi.genotypes import GenotypeMatrix, id_hash
from ancestry_ddvi.loaders import (
    LabelTable,
    ReadOptions,
    label_levels,
    read_genotypes,
    read_labels,
)
from ancestry_ddvi.loaders.batches import GenotypeBatches
from ancestry_ddvi.loaders.containers import CheckedFile
from ancestry_ddvi.outputs import MANIFEST, files_in, new_folder
from ancestry_ddvi.placing import Placer, say_matched
from ancestry_ddvi.preprocessing.features import (
    MIN_SAMPLES,
    FeatureConfig,
    FeatureExtractor,
    Features,
)
from ancestry_ddvi.preprocessing.filters import sample_call_rate
from ancestry_ddvi.preprocessing.fst import hudson_fst_matrix
from ancestry_ddvi.preprocessing.ploidy import MAX_FEW, MIN_REFERENCE
from ancestry_ddvi.preprocessing.relatedness import (
    DEGREES,
    Relatives,
    find_relatives,
    relation,
)
from ancestry_ddvi.provenance import describe_run, measured, summary_rows
from ancestry_ddvi.reference_models import MODELS, card_of
from ancestry_ddvi.reference_sites import unlike_build
from ancestry_ddvi.reporting import (
    MAX_REGIONS,
    Headline,
    call_scores,
    class_scores,
    evaluate,
    headline,
    unfit_id,
    write_report,
)
from ancestry_ddvi.reporting.html import json_ready

MAX_LISTED = 1000
"""More pairs of relatives are counted, not listed."""

NOT_A_LABEL = {"NA", "N/A", "n/a", "na", "NaN", "nan", "None", "none", "NULL", "null", ".", "-9"}
"""What other programs write where a label is not known; as a class to learn it is a mistake."""

FEW_SITES = 500
"""Samples with fewer sites that ancestry is called from are warned of."""

LOW_POWER = 0.5
"""Samples of which typicality has a smaller power are warned of."""


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
        _check_order(labels, genotypes)
        drawn = training_mask(genotypes.n_samples, config, genotypes.name)
        _check_taught(labels, drawn, config, f"labels {labels.name!r}")
    learnt = learn_features(genotypes, config, console)
    extractor, features, trained_on = learnt.extractor, learnt.features, learnt.trained_on
    label, supervision = None, None
    if labels is not None:
        classes, label = _classes(labels.to_numpy()[trained_on])
        config = replace(config, model=replace(config.model, classes=classes))
        supervision = {
            "column": labels.name,
            "n_labelled": int((label >= 0).sum()),
            "n_unlabelled": int((label < 0).sum()),
        }
        console.warn(_supervised_words(supervision, len(classes)))
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


def _check_order(labels: pd.Series, genotypes: GenotypeMatrix) -> None:
    """Raise OptionError unless there is a label a sample, in the samples' order."""
    if not isinstance(labels, pd.Series) or len(labels) != genotypes.n_samples:
        n = len(labels) if hasattr(labels, "__len__") else 0
        raise OptionError(
            f"labels: {n} of type {type(labels).__name__}; give a pandas Series of one for each of "
            f"{genotypes.n_samples} samples"
        )
    if isinstance(labels.index, pd.RangeIndex):
        return
    if list(map(str, labels.index)) != list(map(str, genotypes.sample_id)):
        raise OptionError(
            "labels: their index is not the sample ids in the samples' order; reindex them by "
            "genotypes.sample_id, or reset_index if they are in that order"
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


def _check_taught(labels: pd.Series, drawn: np.ndarray, config: EmbedConfig, where: str) -> None:
    """Refuse before anything is learnt the labels of the samples drawn (n_samples,) bool that no
    model learns from, and say where they are."""
    try:
        classes, _ = _classes(labels.to_numpy()[drawn])
        shape = replace(config.model, classes=classes)
        check_enough(shape.n_prior_clusters, len(classes))
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from error


def _classes(labels: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the classes, and the number of each sample's, -1 where it has no label."""
    known = pd.notna(labels)
    classes, number = np.unique(labels[known].astype(str), return_inverse=True)
    if not len(classes):
        raise OptionError(
            "no sample to learn from has a label; fill some in, or learn without labels (leave "
            "--supervise out)"
        )
    label = np.full(len(labels), UNLABELLED)
    label[known] = number
    return tuple(classes.tolist()), label


def _supervised_words(supervision: Mapping[str, Any], n_classes: int) -> str:
    """What a reader of map and metrics must know first."""
    return (
        f"supervised: the labels of {supervision['n_labelled']:,} training samples (column "
        f"{supervision['column']!r}, {n_classes} classes) were learnt from; map and in-sample "
        "metrics are not unsupervised"
    )


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


@dataclass(frozen=True)
class RunSummary:
    """What the command prints at its end."""

    rows: tuple[tuple[str, str], ...]
    headlines: tuple[Headline, ...]
    out_dir: Path
    files: tuple[str, ...]


def embed_file(
    paths: Path | Sequence[Path],
    *,
    out_dir: Path,
    reading: ReadOptions | None = None,
    labels_path: Path | None = None,
    id_column: str | None = None,
    population_column: str | None = None,
    superpopulation_column: str | None = None,
    supervise: str | None = None,
    model_path: Path | None = None,
    absent_is_ref: bool = False,
    config: EmbedConfig | None = None,
    calling: CallConfig | None = None,
    save_draws: bool = False,
    pictures: bool = True,
    force: bool = False,
    console: Console | None = None,
    command: str = "",
) -> RunSummary:
    """Run the whole command: read, fit or load a model, embed, score, write.

    The output folder appears whole at the end or not at all.

    Parameters
    ----------
    paths
        Genotypes: a file, or several of the same samples.
    out_dir
        Output folder; an earlier one of ours is replaced only with `force`.
    reading
        What to read of them. `maf` is that of the features, so that no rare variant is held.
    labels_path, id_column, population_column, superpopulation_column
        Label table and its columns (`read_labels`, `label_levels`), found by name if not given.
    supervise
        The column whose labels are learnt from, "" for that of the population; no labels are if
        left out.
    model_path
        Place the samples with this model instead of learning one.
    absent_is_ref
        Take variants of the model that the file has nothing at as homozygous for REF
        (`alignment.match`): right of variants called over the whole genome, wrong of arrays.
    config
        Settings.
    calling
        When to call an ancestry, with a model of a labelled reference.
    save_draws
        Whether to write the posterior draws, `draws.npz`.
    pictures
        Whether to write the map and the page.
    console
        Where progress goes.
    command
        The command line, for the provenance.

    Raises
    ------
    InputError
        Whatever is wrong with the input, the options or the output folder.
    """
    config = config or EmbedConfig()
    console = console or Console(Verbosity.QUIET)
    given = [paths] if isinstance(paths, Path) else list(paths)
    data = first_few([path.name for path in given], 3)
    wanted = LabelChoice(labels_path, id_column, population_column, superpopulation_column)
    if supervise is not None and labels_path is None:
        raise OptionError("--supervise learns from labels, and none are given; add --labels TSV")
    if supervise is not None and model_path is not None:
        raise OptionError("--supervise is for learning a map, and --model gives a learnt one")
    if absent_is_ref:
        _check_absent_is_ref(model_path, reading or ReadOptions())
    calling = calling or CallConfig()
    calls: AncestryCalls | None = None
    fst: Callable[[], pd.DataFrame] | None
    with new_folder(out_dir, force=force) as folder:
        fitted_model = load_model(model_path) if model_path else None
        wanted.check()  # before the reading that a typo would cost
        options = reading or ReadOptions()
        read: GenotypeMatrix | GenotypeBatches
        if fitted_model is None:
            read = about = read_for(config, given, options, console)
        else:
            placer = Placer(fitted_model, given, options, absent_is_ref, console)
            read = placer.read()
            about = read.about
        sample_id = read.sample_id
        labels, levels, described = wanted.read(sample_id, console)
        fine, coarse = level_values(labels, levels)
        # Known before the training that it must not cost.
        families = None if read.family_id is None else read.family_id.tolist()
        unfit = unfit_id(map(str, sample_id)) or unfit_id(
            (family for family in families or () if family != "0"), "family"
        )
        if unfit:
            console.warn(f"covariates.tsv is left out: {about.name}: {unfit}")
        taught = _taught(labels, levels[0], supervise)
        if labels is not None and taught is not None:
            drawn = training_mask(len(sample_id), config, data)
            _check_taught(taught, drawn, config, f"{labels.path}: column {taught.name!r}")
        if isinstance(read, GenotypeMatrix):
            with _last_good_kept(out_dir):
                fitted = fit_embedding(
                    read, config, labels=taught, console=console, keep_draws=save_draws
                )
            model, table, features = fitted.model, fitted.table, fitted.features
            in_sample, held_out = fitted.trained_on, fitted.held_out
            history = fitted.history
            if labels is not None:
                with console.stage("learn ancestry calls"):
                    model = with_calls(fitted, read, fine, coarse, config.seed)
            fst = None if fine is None else partial(hudson_fst_matrix, read, fine)
            n_variants = len(model.extractor.variants)
            parameters = asdict(config) | {"supervise": None if taught is None else taught.name}
            relatives = fitted.relatives
        else:
            model = placer.model
            placed = placer.place(
                read,
                n_draws=config.n_draws,
                seed=config.seed,
                keep_draws=save_draws or (pictures and len(sample_id) <= MAX_REGIONS),
                population=fine,
            )
            about, calls = placed.about, placed.calls
            features, table = placed.features, placed.table
            fst = None if placed.alleles is None else placed.alleles.hudson_fst
            known, history = placed.known, None
            relatives = None
            held_out = ~known
            # A few that the model knows must not stand for a file of new samples.
            in_sample = known & known.all()
            n_variants = say_matched(console, about, features.matched, absent_is_ref)
            _warn_overlap(console, sample_id[known], all_known=bool(known.all()))
            _warn_variants_only(console, about.name, features)
            parameters = {
                "n_draws": config.n_draws,
                "seed": config.seed,
                "absent_is_ref": absent_is_ref,
            }
            taught = _taught_before(console, model, labels)
        called = np.isfinite(features.noise)
        _warn_no_data(console, sample_id[~called])
        if features.haploid is not None:
            _warn_haploid(console, sample_id[features.haploid])
        scored = called & (in_sample | held_out)
        if labels is not None:
            table = table.with_labels(_without_clashes(labels.frame, table))
        with console.stage("score the embedding"):
            metrics: dict[str, Any] = {}
            if scored.any():
                metrics = evaluate(
                    table.select(scored),
                    population=_rows(fine, scored),
                    superpopulation=_rows(coarse, scored),
                    fst=None if fst is None else fst(),
                    seed=config.seed,
                    data=f"{data}: {len(sample_id)} samples, {n_variants} variants"
                    + _columns_words(levels),
                    held_out=held_out[scored],
                )
            if table.classes is not None:
                metrics["supervision"] = {
                    "meaning": "labels of training samples were learnt from; not unsupervised",
                    **(model.provenance.get("supervision") or {}),
                }
                metrics |= class_scores(
                    table,
                    None if taught is None else taught.reset_index(drop=True),
                    called & held_out,
                    seed=config.seed,
                    data=f"{data}: {len(sample_id)} samples",
                )
            if calls is not None:
                metrics |= call_scores(
                    calls.population,
                    calls.group,
                    fine,
                    coarse,
                    called & held_out,
                    seed=config.seed,
                    data=f"{data}: {len(sample_id)} samples",
                )
            metrics["model"] = _model_metrics(
                table.elbo, scored & in_sample, scored & held_out, data, config
            )
        reason = "low call rate" if fitted_model is None else "known to the model"
        related = called & ~scored
        related &= False if relatives is None else relatives.left_out | relatives.near
        not_scored = {
            "no called genotype": int((~called).sum()),
            "close relative": int(related.sum()),
            reason: int((called & ~scored & ~related).sum()),
        }
        parameters["reading"] = options.describe()
        run = describe_run(
            about,
            len(sample_id),
            model,
            features.matched,
            not_scored,
            parameters,
            history,
            described,
            command,
        )
        run["relatives"] = _describe_relatives(sample_id, relatives)
        with console.stage("write the results"):
            if calls is not None:
                run["ancestry calls"] = _describe_calls(console, calls, calling)
            report = write_report(
                table,
                folder,
                reference=None if fitted_model is None else fitted_model.places,
                ancestry=None if calls is None else calls.frame(calling),
                card=_card(model, model_path),
                population=fine,
                superpopulation=coarse,
                metrics=metrics,
                run={k: run[k] for k in ("version", "command", "seed", "input", "counts")},
                warnings=console.warnings,
                fid=families,
                covariates=unfit is None,
                pictures=pictures,
            )
            model.save(folder / "model")
            if table.draws is not None and save_draws:
                np.savez(folder / "draws.npz", sample_id=table.sample_id, draws=table.draws)
        if report.covariates_left_out:
            console.note(
                "covariates.tsv leaves out constant or collinear columns: "
                + ", ".join(report.covariates_left_out)
            )
        run |= measured(console)
        run["files"] = sorted([*files_in(folder), MANIFEST, "run.log"])
        _write_text(folder / "run.log", "\n".join(console.lines))
        text = json.dumps(json_ready(run), indent=2, allow_nan=False, ensure_ascii=False)
        _write_text(folder / MANIFEST, text)
        files = tuple(sorted(p.name + "/" * p.is_dir() for p in folder.iterdir()))
    return RunSummary(
        tuple(summary_rows(run, table.frame)), tuple(headline(metrics)), out_dir, files
    )


def _card(model: EmbeddingModel, path: Path | None) -> dict[str, Any] | None:
    """What a model that was loaded, or that will call ancestry, says of itself."""
    if path is None:
        return None if model.caller is None else card_of(model, "of this run")
    return card_of(model, path.name if path.parent == MODELS else str(path))


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


def _describe_calls(console: Console, calls: AncestryCalls, config: CallConfig) -> dict[str, Any]:
    """How many samples got which call, for the record and, in short, for the console."""
    frame = calls.frame(config)
    said = np.isfinite(calls.typicality)
    sites = calls.n_sites[said]
    by_sites = f", from {int(np.median(sites)):,} sites" if said.any() else ""
    count = {
        level: frame[level].value_counts()
        for level in ("superpopulation", "population")
        if level in frame
    }
    for level, of in count.items():
        called = ", ".join(f"{n:,} {name}" for name, n in of.items())
        console.note(f"ancestry calls ({level}{by_sites}): {called}")
    few = int((sites < FEW_SITES).sum())
    if few:
        console.warn(
            f"{few:,} samples have fewer than {FEW_SITES} of the {calls.matched.total:,} sites "
            "that ancestry is called from; most calls of populations will be uncertain"
        )
    weak = said & (calls.power < LOW_POWER)
    if weak.any():
        console.warn(
            f"{int(weak.sum()):,} samples have so few sites that of samples of an ancestry that "
            f"the reference lacks typicality tells {np.median(calls.power[weak]):.0%}: their calls "
            "say which of the reference they are nearest to, and not that they are of it "
            "(typicality_power in ancestry.csv)"
        )
    return {
        "threshold": config.threshold,
        "min_typicality": config.min_typicality,
        "sites": calls.matched.total,
        "called samples": int(said.sum()),
        "median typicality_power": float(np.median(calls.power[said])) if said.any() else None,
        "sites, by what the file has": calls.matched.by_words(),
        "calls": {
            level: {str(name): int(n) for name, n in of.items()} for level, of in count.items()
        },
    }


@contextmanager
def _last_good_kept(out_dir: Path) -> Iterator[None]:
    """Save what a diverged training leaves beside the output folder, which it does not make."""
    try:
        yield
    except TrainingDivergedError as error:
        if not isinstance(error.last_good, EmbeddingModel):
            raise
        place = out_dir.with_name(f"{out_dir.name}.diverged")
        try:
            with new_folder(place, force=True) as folder:
                error.last_good.save(folder / "model")
                _write_text(folder / MANIFEST, json.dumps({"files": [*files_in(folder), MANIFEST]}))
        except OutputError:
            raise error from None
        raise TrainingDivergedError(f"{error} ({place / 'model'})") from error


def _taught(
    labels: LabelTable | None, population: str | None, supervise: str | None
) -> pd.Series | None:
    """The column of labels to learn from."""
    if labels is None or supervise is None:
        return None
    column = supervise or population
    if column is None:
        raise OptionError(
            f"{labels.path}: no column looks like a population; name the one to learn from, "
            "--supervise COLUMN"
        )
    label_levels(labels, column)  # which says so if there is no such column
    taught = labels.frame[column]
    if unknown := sorted(NOT_A_LABEL & set(taught.dropna().astype(str))):
        raise OptionError(
            f"{labels.path}: column {column!r} has the label {unknown[0]!r}, which would be a "
            "class of its own; leave the field empty where a label is not known, or write it out"
        )
    return taught


def _taught_before(
    console: Console, model: EmbeddingModel, labels: LabelTable | None
) -> pd.Series | None:
    """Say that a loaded model learnt from labels; the same column here, if there is one."""
    supervision, classes = model.provenance.get("supervision"), model.model.config.classes
    if not classes or not isinstance(supervision, dict):
        return None
    console.warn(_supervised_words(supervision, len(classes)))
    column = supervision.get("column")
    return None if labels is None else labels.frame.get(column)


@dataclass(frozen=True)
class LabelChoice:
    """Which file of labels is wanted, if any, and its columns, found by name if not given."""

    path: Path | None
    id_column: str | None = None
    population: str | None = None
    superpopulation: str | None = None

    def __post_init__(self) -> None:
        if self.path is None and (self.id_column or self.population or self.superpopulation):
            raise OptionError("a label column is named but no file of labels; give --labels TSV")

    def check(self) -> None:
        """Raise LabelFileError if there is no such file."""
        if self.path is not None:
            CheckedFile(self.path, LabelFileError)

    def read(
        self, sample_id: np.ndarray, console: Console
    ) -> tuple[LabelTable | None, Levels, dict[str, Any] | None]:
        """The labels, the columns of populations and superpopulations, and both described."""
        labels = _read_labels(console, self.path, self.id_column, sample_id)
        levels: Levels = (None, None)
        if labels is not None:
            levels = label_levels(labels, self.population, self.superpopulation)
        return labels, levels, _describe_labels(console, labels, levels)


Levels = tuple[str | None, str | None]
"""Names of the columns of populations and of superpopulations."""


def level_values(
    labels: LabelTable | None, levels: Levels
) -> tuple[pd.Series | None, pd.Series | None]:
    """(n_samples,) populations and superpopulations in the samples' order."""
    fine, coarse = (
        None if name is None or labels is None else labels.frame[name].reset_index(drop=True)
        for name in levels
    )
    return fine, coarse


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


def _describe_relatives(
    sample_id: np.ndarray, relatives: Relatives | None
) -> dict[str, Any] | None:
    if relatives is None or not np.isfinite(relatives.min_kinship):
        return None
    pairs = relatives.pairs
    return {
        "method": "KING-robust kinship",
        "min_kinship": relatives.min_kinship,
        "variants": pairs.n_variants,
        "n_pairs": len(pairs.kinship),
        "left_out": sample_id[relatives.left_out].tolist(),
        "pairs": [
            [str(sample_id[first]), str(sample_id[second]), round(float(kinship), 4)]
            for first, second, kinship in zip(
                pairs.first[:MAX_LISTED],
                pairs.second[:MAX_LISTED],
                pairs.kinship[:MAX_LISTED],
                strict=True,
            )
        ],
    }


def _read_labels(
    console: Console, path: Path | None, id_column: str | None, sample_id: np.ndarray
) -> LabelTable | None:
    if path is None:
        return None
    labels = read_labels(path, sample_id, id_column)
    if labels.missing:
        console.warn(
            f"{path}: no row for {len(labels.missing):,} of {len(sample_id):,} samples "
            f"({first_few(labels.missing)}); they are embedded and left out of label metrics"
        )
    if labels.extra:
        console.note(
            f"{path}: {len(labels.extra):,} rows have no genotypes ({first_few(labels.extra)})"
        )
    return labels


def _check_absent_is_ref(model_path: Path | None, reading: ReadOptions) -> None:
    """Refuse it where it would have nothing to do, or do harm."""
    if model_path is None:
        raise OptionError(
            "--absent-is-ref is about the variants of a model; give one with --model, or leave it "
            "out"
        )
    leave_out = ("extract", "exclude", "maf", "geno", "hwe")
    if taken := set(leave_out) & set(reading.describe()):
        given = ", ".join(f"--{name}" for name in leave_out if name in taken)
        raise OptionError(
            f"--absent-is-ref with {given}: what that leaves out would be taken as homozygous for "
            "REF; give one of them"
        )


def _warn_overlap(console: Console, sample_id: np.ndarray, *, all_known: bool) -> None:
    if len(sample_id):
        scored = "scored as in-sample" if all_known else "left out of the metrics"
        console.warn(
            f"{len(sample_id)} samples share an id with samples the model was trained on "
            f"({first_few(sample_id)}): placed like new ones, so not just where the "
            f"training run has them, and {scored}; if they are others, give them other ids"
        )


def _rows(labels: pd.Series | None, samples: np.ndarray) -> pd.Series | None:
    return None if labels is None else labels[samples].reset_index(drop=True)


def _columns_words(levels: Levels) -> str:
    """Which columns are the labels, for the `data` of each metric."""
    named = zip(("population", "superpopulation"), levels, strict=True)
    return "".join(f", {level} = column {name!r}" for level, name in named if name is not None)


def _describe_labels(
    console: Console, labels: LabelTable | None, levels: Levels
) -> dict[str, Any] | None:
    """Say and return which file and columns the labels come from."""
    if labels is None:
        return None
    if any(levels):
        console.note(f"labels: {_columns_words(levels)[2:]}")
    else:
        console.warn(
            f"{labels.path}: no column looks like a population, so nothing is scored against "
            "labels; name one with --population-column"
        )
    return {
        "path": labels.path,
        "sha256": labels.sha256,
        "columns": dict(zip(("population", "superpopulation"), levels, strict=True)),
        "samples without a row": len(labels.missing),
        "rows without genotypes": len(labels.extra),
    }


def _without_clashes(frame: pd.DataFrame, table: EmbeddingTable) -> pd.DataFrame:
    """A label column named like one of ours would make two columns of one name."""
    taken = {*table.frame.columns, *frame.columns}
    names = {}
    for column in frame.columns:
        if column in table.frame.columns:
            name = f"label_{column}"
            while name in taken:
                name = f"label_{name}"
            names[column] = name
            taken.add(name)
    return frame.rename(columns=names)


def _warn_variants_only(console: Console, name: str, features: Features) -> None:
    shares = features.reference
    if shares is None or not np.isfinite(shares).any() or len(shares) > MAX_FEW:
        return
    share = float(np.nanmedian(shares))
    if share < MIN_REFERENCE:
        console.warn(
            f"{name}: of the genotypes without ALT that are expected at these variants there are "
            f"{share:.0%} at most, as in a file that has only the sites where its few samples have "
            "ALT: places are wrong then, and calls mostly `outside reference`. If it was called "
            "over whole genomes, --absent-is-ref takes the others as homozygous for REF; if not, "
            "genotype all sites of the model (a gVCF, or `bcftools mpileup -R` and `bcftools call` "
            "without -v)"
        )


def _warn_haploid(console: Console, sample_id: np.ndarray) -> None:
    if len(sample_id):
        console.warn(
            f"{len(sample_id):,} samples have hardly a heterozygous genotype "
            f"({first_few(sample_id)}): they are read as one allele a site, haploid or "
            "pseudo-haploid, which says half as much"
        )


def _warn_no_data(console: Console, sample_id: np.ndarray) -> None:
    if len(sample_id):
        console.warn(
            f"{len(sample_id)} samples have no called genotype at the model's variants; their rows "
            f"say nothing but the prior and are not scored ({first_few(sample_id)})"
        )


def _model_metrics(
    elbo: np.ndarray, in_sample: np.ndarray, held_out: np.ndarray, data: str, config: EmbedConfig
) -> dict[str, Any]:
    """Evidence lower bound, of trained and of held-out samples apart."""
    groups: dict[str, Any] = {
        "scorer": "mean evidence lower bound of log p(x) in nats, "
        f"{config.n_draws} draws of the chain a sample",
        "data": data,
        "seed": config.seed,
        "split": {},
    }
    for split, rows in (("in-sample", in_sample), ("held-out", held_out)):
        if rows.any():
            name = f"elbo_{split.replace('-', '_')}"
            groups[name] = float(elbo[rows].mean())
            groups["split"][name] = split
            groups[f"n_{name.removeprefix('elbo_')}"] = int(rows.sum())
    return groups


def _write_text(path: Path, text: str) -> None:
    # A path in it need not be valid unicode; JSON reads the escape back.
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
