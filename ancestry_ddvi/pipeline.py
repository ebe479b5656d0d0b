"""The whole story: genotypes to features to a model to draws to a table to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.ancestry import KNOWN, NO_DATA, TOO_FEW, AncestryCalls, CallConfig
from ancestry_ddvi.ancestry.calls import MIN_SPREAD
from ancestry_ddvi.checkpoint import EmbeddingModel, load_model
from ancestry_ddvi.console import Console, Verbosity
from ancestry_ddvi.ddvi.loop import History
from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.errors import (
    NotEnoughDataError,
    OptionError,
    OutputError,
    TrainingDivergedError,
    counted,
    first_few,
)
from ancestry_ddvi.fitting import (
    EmbedConfig,
    fit_embedding,
    read_for,
    training_mask,
    with_calls,
)
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.labelling import LabelChoice, SampleLabels
from ancestry_ddvi.loaders import ReadOptions
from ancestry_ddvi.loaders.batches import GenotypeBatches
from ancestry_ddvi.outputs import MANIFEST, files_in, new_folder
from ancestry_ddvi.placing import Placer, say_matched
from ancestry_ddvi.preprocessing.alignment import OF_CALLS, OF_MAP
from ancestry_ddvi.preprocessing.features import Features
from ancestry_ddvi.preprocessing.fst import hudson_fst_matrix
from ancestry_ddvi.preprocessing.ploidy import MAX_FEW, MIN_REFERENCE
from ancestry_ddvi.preprocessing.relatedness import Relatives
from ancestry_ddvi.provenance import describe_run, measured, summary_rows
from ancestry_ddvi.reference_models import MODELS, card_of
from ancestry_ddvi.reporting import (
    MAX_REGIONS,
    Headline,
    Report,
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

FEW_SITES = 500
"""Samples with fewer sites that ancestry is called from are warned of."""

LOW_POWER = 0.5
"""Samples of which typicality has a smaller power are warned of."""

_ON_THE_PAGE = ("version", "command", "seed", "input", "genome build", "counts")
"""Of the record; the rest is in run.json."""


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
    config, calling = config or EmbedConfig(), calling or CallConfig()
    reading = reading or ReadOptions()
    console = console or Console(Verbosity.QUIET)
    given = [paths] if isinstance(paths, Path) else list(paths)
    wanted = LabelChoice(labels_path, id_column, population_column, superpopulation_column)
    _check_supervise(supervise, labels_path, model_path)
    if absent_is_ref:
        _check_absent_is_ref(model_path, reading)
    with new_folder(out_dir, force=force) as folder:
        known = load_model(model_path) if model_path else None
        wanted.check()  # before the reading that a typo would cost
        read: GenotypeMatrix | GenotypeBatches
        if known is None:
            read = about = read_for(config, given, reading, console)
        else:
            placer = Placer(known, given, reading, absent_is_ref, console)
            read = placer.read()
            about = read.about
        labels = wanted.read(read.sample_id, console)
        families = None if read.family_id is None else read.family_id.tolist()
        # Known before the training that it must not cost.
        covariates = _covariates_possible(read.sample_id, families, about.name, console)
        if isinstance(read, GenotypeMatrix):
            with _last_good_kept(out_dir):
                embedded = _fit(read, labels, supervise, config, save_draws, console)
        else:
            keep_draws = save_draws or (pictures and len(read.sample_id) <= MAX_REGIONS)
            embedded = _place(placer, read, labels, config, keep_draws)
        _warn_of_samples(console, embedded)
        data = first_few([path.name for path in given], 3)
        with console.stage("score the embedding"):
            metrics = _score(embedded, labels, data, config)
        called = None if embedded.calls is None else embedded.calls.frame(calling)
        run = _describe(embedded, labels, reading, called, command)
        if embedded.calls is not None and called is not None:
            run["ancestry calls"] = _describe_calls(console, embedded.calls, called, calling)
        with console.stage("write the results"):
            report = write_report(
                embedded.table,
                folder,
                reference=None if known is None else known.places,
                ancestry=called,
                card=_card(embedded.model, model_path),
                population=labels.population,
                superpopulation=labels.superpopulation,
                metrics=metrics,
                run={k: run[k] for k in _ON_THE_PAGE if run[k] is not None},
                warnings=console.warnings,
                fid=families,
                covariates=covariates,
                pictures=pictures,
                placed=known is not None,
            )
            embedded.model.save(folder / "model")
            if save_draws and (draws := embedded.table.draws) is not None:
                np.savez(folder / "draws.npz", sample_id=embedded.table.sample_id, draws=draws)
        run = _write_record(run, report, folder, console)
        files = tuple(sorted(p.name + "/" * p.is_dir() for p in folder.iterdir()))
    rows = summary_rows(run, embedded.table.frame)
    return RunSummary(tuple(rows), tuple(headline(metrics)), out_dir, files)


def _check_supervise(
    supervise: str | None, labels_path: Path | None, model_path: Path | None
) -> None:
    if supervise is not None and labels_path is None:
        raise OptionError("--supervise learns from labels, and none are given; add --labels TSV")
    if supervise is not None and model_path is not None:
        raise OptionError("--supervise is for learning a map, and --model gives a learnt one")


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


def _covariates_possible(
    sample_id: np.ndarray, families: Sequence[str] | None, name: str, console: Console
) -> bool:
    """Whether the ids can stand in covariates.tsv; `name` is the input's, to say so if not."""
    unfit = unfit_id(map(str, sample_id)) or unfit_id(
        (family for family in families or () if family != "0"), "family"
    )
    if unfit:
        console.warn(f"covariates.tsv is left out: {name}: {unfit}")
    return unfit is None


@dataclass(frozen=True)
class _Embedded:
    """Samples on a map, learnt from them or before: all that scores and files need.

    Attributes
    ----------
    about
        The input; without its samples if the map is that of an earlier run.
    model, features, table
        The map, the samples' features, and their rows with all labels.
    n_variants
        Variants that places rest on.
    in_sample, held_out
        (n_samples,) bool: scored as what was learnt from, and as what was not.
    parameters
        Settings of this run that places follow from.
    taught
        (n_samples,) labels of the column that was learnt from, if it is there.
    fst
        Tells FST between the populations, if there are labels of them.
    relatives, history
        As in `FittedEmbedding`; None if the map is that of an earlier run.
    calls
        Ancestry calls, by the model of an earlier run.
    """

    about: GenotypeMatrix
    model: EmbeddingModel
    features: Features
    table: EmbeddingTable
    n_variants: int
    in_sample: np.ndarray
    held_out: np.ndarray
    parameters: Mapping[str, Any]
    taught: pd.Series | None
    fst: Callable[[], pd.DataFrame] | None
    relatives: Relatives | None = None
    history: History | None = None
    calls: AncestryCalls | None = None

    @property
    def called(self) -> np.ndarray:
        """(n_samples,) bool: those of which any genotype is known."""
        called: np.ndarray = np.isfinite(self.features.noise)
        return called

    @property
    def scored(self) -> np.ndarray:
        """(n_samples,) bool: those that metrics rest on."""
        scored: np.ndarray = self.called & (self.in_sample | self.held_out)
        return scored


def _fit(
    genotypes: GenotypeMatrix,
    labels: SampleLabels,
    supervise: str | None,
    config: EmbedConfig,
    keep_draws: bool,
    console: Console,
) -> _Embedded:
    """Learn a map from the samples, and with labels also what calls ancestry on it."""
    drawn = training_mask(genotypes.n_samples, config, genotypes.name)
    taught = labels.to_learn_from(supervise, drawn, config.model)
    fitted = fit_embedding(genotypes, config, labels=taught, console=console, keep_draws=keep_draws)
    model, fine = fitted.model, labels.population
    if labels.table is not None:
        with console.stage("learn ancestry calls"):
            try:
                model = with_calls(fitted, genotypes, fine, labels.superpopulation, config.seed)
            except NotEnoughDataError as error:  # the map is there, and must not be lost
                console.warn(f"the model calls no ancestry: {error}")
    return _Embedded(
        about=genotypes,
        model=model,
        features=fitted.features,
        table=labels.beside(fitted.table),
        n_variants=len(model.extractor.variants),
        in_sample=fitted.trained_on,
        held_out=fitted.held_out,
        parameters=asdict(config) | {"supervise": None if taught is None else taught.name},
        taught=taught,
        fst=None if fine is None else partial(hudson_fst_matrix, genotypes, fine),
        relatives=fitted.relatives,
        history=fitted.history,
    )


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


def _place(
    placer: Placer,
    batches: GenotypeBatches,
    labels: SampleLabels,
    config: EmbedConfig,
    keep_draws: bool,
) -> _Embedded:
    """Place the samples on the map of an earlier run, and call their ancestry if it can."""
    settings = {"n_draws": config.n_draws, "seed": config.seed}
    placed = placer.place(batches, **settings, keep_draws=keep_draws, population=labels.population)
    console, about, known = placer.console, placed.about, placed.known
    sites = None if placed.calls is None else placed.calls.matched
    n_variants = say_matched(console, about, placed.features.matched, sites, placer.absent_is_ref)
    _warn_overlap(console, batches.sample_id[known], all_known=bool(known.all()))
    _warn_variants_only(console, about.name, placed.features)
    return _Embedded(
        about=about,
        model=placer.model,
        features=placed.features,
        table=labels.beside(placed.table),
        n_variants=n_variants,
        # A few that the model knows must not stand for a file of new samples.
        in_sample=known & known.all(),
        held_out=~known,
        parameters=settings | {"absent_is_ref": placer.absent_is_ref},
        taught=labels.learnt_before(placer.model, console),
        fst=None if placed.alleles is None else placed.alleles.hudson_fst,
        calls=placed.calls,
    )


def _warn_overlap(console: Console, sample_id: np.ndarray, *, all_known: bool) -> None:
    if len(sample_id):
        scored = "scored as in-sample" if all_known else "left out of the metrics"
        console.warn(
            f"{counted(len(sample_id), 'sample shares an id', 'samples share an id')} with samples "
            f"the model was trained on ({first_few(sample_id)}): placed like new ones, so not just "
            f"where the training run has them, and {scored}; give other people other ids"
        )


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
            "over whole genomes, --absent-is-ref takes the others as homozygous for REF, with "
            "--region TARGETS.bed those of an exome's targets; if not, genotype all sites of the "
            "model (a gVCF, or `bcftools mpileup -R` and `bcftools call` without -v)"
        )


def _warn_of_samples(console: Console, embedded: _Embedded) -> None:
    """Samples that say little, or less than they seem to."""
    ids, haploid = embedded.table.sample_id, embedded.features.haploid
    uncalled = ids[~embedded.called]
    if len(uncalled):
        console.warn(
            f"{counted(len(uncalled), 'sample has', 'samples have')} no called genotype at the "
            f"{OF_MAP}: placed by the prior alone, and not scored ({first_few(uncalled)})"
        )
    if haploid is not None and haploid.any():
        console.warn(
            f"{counted(int(haploid.sum()), 'sample has', 'samples have')} hardly a heterozygous "
            f"genotype ({first_few(ids[haploid])}): read as one allele a site, haploid or "
            "pseudo-haploid, which says half as much"
        )


def _score(
    embedded: _Embedded, labels: SampleLabels, data: str, config: EmbedConfig
) -> dict[str, Any]:
    """Every metric, by its name in metrics.json; `data` names the input."""
    table, calls, scored = embedded.table, embedded.calls, embedded.scored
    fine, coarse = labels.population, labels.superpopulation
    held_out = scored & embedded.held_out
    samples = f"{data}: {counted(len(scored), 'sample', 'samples')}"
    metrics: dict[str, Any] = {}
    if scored.any():
        columns = f", {labels.words}" if labels.words else ""
        metrics = evaluate(
            table.select(scored),
            population=_rows(fine, scored),
            superpopulation=_rows(coarse, scored),
            fst=None if embedded.fst is None else embedded.fst(),
            seed=config.seed,
            data=f"{samples}, {embedded.n_variants:,} variants{columns}",
            held_out=embedded.held_out[scored],
        )
    if table.classes is not None:
        taught = embedded.taught
        metrics["supervision"] = {
            "meaning": "labels of training samples were learnt from; not unsupervised",
            **(embedded.model.provenance.get("supervision") or {}),
        }
        metrics |= class_scores(
            table,
            None if taught is None else taught.reset_index(drop=True),
            held_out,
            seed=config.seed,
            data=samples,
        )
    if calls is not None:
        metrics |= call_scores(
            calls.population, calls.group, fine, coarse, held_out, seed=config.seed, data=samples
        )
    metrics["model"] = _model_metrics(
        table.elbo, scored & embedded.in_sample, held_out, data, config
    )
    return metrics


def _rows(labels: pd.Series | None, samples: np.ndarray) -> pd.Series | None:
    return None if labels is None else labels[samples].reset_index(drop=True)


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


def _describe(
    embedded: _Embedded,
    labels: SampleLabels,
    reading: ReadOptions,
    calls: pd.DataFrame | None,
    command: str,
) -> dict[str, Any]:
    """The record of the run, without what is known only at its end."""
    relatives, called, scored = embedded.relatives, embedded.called, embedded.scored
    related = called & ~scored
    related &= False if relatives is None else relatives.left_out | relatives.near
    reason = "known to the model" if embedded.history is None else "low call rate"
    run = describe_run(
        embedded.about,
        len(scored),
        embedded.model,
        embedded.features.matched,
        None if embedded.calls is None else embedded.calls.matched,
        {
            "no called genotype": int((~called).sum()),
            "close relative": int(related.sum()),
            reason: int((called & ~scored & ~related).sum()),
        },
        None if calls is None else _not_called(calls),
        {**embedded.parameters, "reading": reading.describe()},
        embedded.history,
        labels.describe(),
        command,
    )
    return run | {"relatives": _describe_relatives(embedded.table.sample_id, relatives)}


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


def _not_called(frame: pd.DataFrame) -> dict[str, int]:
    """How many samples got no call for want of what, by the table of calls."""
    return {why: int((frame["population"] == why).sum()) for why in (KNOWN, NO_DATA, TOO_FEW)}


def _describe_calls(
    console: Console, calls: AncestryCalls, frame: pd.DataFrame, config: CallConfig
) -> dict[str, Any]:
    """How many samples got which call, for the record and, in short, for the console."""
    said = np.isfinite(calls.typicality)
    sites = calls.n_sites[said]
    by_sites = f", from {int(np.median(sites)):,} sites" if said.any() else ""
    count = {
        level: frame.loc[said, level].value_counts()
        for level in ("superpopulation", "population")
        if level in frame
    }
    for level, of in count.items():
        called = ", ".join(f"{n:,} {name}" for name, n in of.items())
        console.note(f"ancestry calls ({level}{by_sites}): {called or 'none'}")
    if not said.all():
        reasons = ", ".join(f"{n:,} {why}" for why, n in _not_called(frame).items() if n)
        without = counted(int((~said).sum()), "sample gets", "samples get")
        console.note(f"{without} no ancestry call: {reasons}")
    few = int((calls.effective_sites[said] < FEW_SITES).sum())
    if few:
        console.warn(
            f"{counted(few, 'sample has', 'samples have')} fewer than {FEW_SITES} of the "
            f"{calls.matched.total:,} {OF_CALLS}, or as few that are not linked (effective_sites "
            "in ancestry.csv); most calls of populations will be uncertain"
        )
    measured = np.isfinite(calls.power)
    weak = measured & (calls.power < LOW_POWER)
    nearest = (
        "a call then says what of the reference is nearest, and not that the sample is of it "
        "(typicality_power in ancestry.csv)"
    )
    if weak.any():
        console.warn(
            f"{counted(int(weak.sum()), 'sample has', 'samples have')} so few sites that of "
            "samples of an ancestry that the reference lacks typicality tells "
            f"{np.median(calls.power[weak]):.0%}: {nearest}"
        )
    linked = calls.effective_sites < MIN_SPREAD * np.where(calls.haploid, 0.5, 1) * calls.n_sites
    for unknown, why in (
        (said & ~measured & linked, "are called by sites that are linked, of a part of the genome"),
        (said & ~measured & ~linked, "have a reference of too few populations to leave some out"),
    ):
        if unknown.any():
            console.warn(
                f"{int(unknown.sum()):,} of the samples {why}: what typicality tells of ancestries "
                f"that the reference lacks is not known; {nearest}"
            )
    return {
        "threshold": config.threshold,
        "min_typicality": config.min_typicality,
        "called samples": int(said.sum()),
        "median typicality_power": float(np.median(calls.power[measured]))
        if measured.any()
        else None,
        "calls": {
            level: {str(name): int(n) for name, n in of.items()} for level, of in count.items()
        },
    }


def _card(model: EmbeddingModel, path: Path | None) -> dict[str, Any] | None:
    """What a model that was loaded, or that will call ancestry, says of itself."""
    if path is None:
        return None if model.caller is None else card_of(model, "of this run")
    return card_of(model, path.name if path.parent == MODELS else str(path))


def _write_record(
    run: Mapping[str, Any], report: Report, folder: Path, console: Console
) -> dict[str, Any]:
    """Write log and manifest, at last, and return the record with what the run took."""
    if report.covariates_note:
        console.note(report.covariates_note)
    files = sorted([*files_in(folder), MANIFEST, "run.log"])
    record = {**run, **measured(console), "files": files}
    _write_text(folder / "run.log", "\n".join(console.lines))
    text = json.dumps(json_ready(record), indent=2, allow_nan=False, ensure_ascii=False)
    _write_text(folder / MANIFEST, text)
    return record


def _write_text(path: Path, text: str) -> None:
    # A path in it need not be valid unicode; JSON reads the escape back.
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
