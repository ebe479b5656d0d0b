"""The command line. Bodies of one call; heavy imports only once options are known to be right."""

from __future__ import annotations

import gc
import math
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ancestry_ddvi import __version__
from ancestry_ddvi.console import Console, Verbosity, hush
from ancestry_ddvi.errors import InputError, OptionError, OutputError

if TYPE_CHECKING:
    from ancestry_ddvi.fitting import EmbedConfig
    from ancestry_ddvi.loaders.options import ReadOptions

HUMAN_AUTOSOMES = 22

GENOTYPE_SUFFIXES = {
    *(".vcf", ".bcf", ".gz", ".bgz", ".bed", ".bim", ".fam", ".npz"),
    *(".pgen", ".pvar", ".psam", ".zst", ".vcz", ".zarr", ".zip"),
}

RANGES = {
    "seed": (0, 2**31 - 1),
    "n_latent": (1, math.inf),
    "holdout": (0, 0.99),
    "maf": (0, 0.5),
    "geno": (0, 1),
    "mind": (0, 1),
    "hwe": (0, 1),
    "hard_call_threshold": (0, 0.5),
    "ld_r2": (0, 1),
    "max_kinship": (0.01, 1),
    "n_pcs": (1, math.inf),
    "n_clusters": (1, math.inf),
    "map_steps": (1, math.inf),
    "posterior_steps": (1, math.inf),
    "draws": (2, math.inf),
    "threads": (1, math.inf),
    "call_threshold": (0, 1),
    "min_typicality": (0, 1),
    "seeds": (1, math.inf),
    "steps": (1, math.inf),
}
"""Least and most of every number."""

OF_TRAINING = (
    *("n_latent", "holdout", "maf", "geno", "mind", "hwe", "ld_r2", "max_kinship"),
    *("n_pcs", "n_clusters", "map_steps", "posterior_steps"),
    *("prior", "clustering", "supervise"),
)
"""Options that say how to learn a map; one that is loaded with --model has been learnt."""

EXAMPLES = """\b
Examples:
  ancestry-ddvi embed genotypes.vcf.gz
  ancestry-ddvi embed genotypes.vcf.gz --labels panel.tsv --out results --force
  ancestry-ddvi embed genotypes.vcf.gz --labels panel.tsv --holdout 0.2
  ancestry-ddvi embed genotypes.vcf.gz --labels some.tsv --supervise pop --holdout 0.2
  ancestry-ddvi embed new_samples.vcf.gz --model 1kg
  ancestry-ddvi embed new_samples.vcf.gz --model results/model
  ancestry-ddvi embed chr*.vcf.gz --exclude-region long-range-ld-GRCh37
  zcat genotypes.vcf.gz | ancestry-ddvi embed - --out results
"""

CONVERT_EXAMPLES = """\b
Examples:
  ancestry-ddvi convert genotypes.vcf.gz genotypes.pgen
  ancestry-ddvi convert chr*.bed all.vcf.gz --maf 0.01
  ancestry-ddvi convert genotypes.bcf genotypes.npz
"""

INSPECT_EXAMPLES = """\b
Examples:
  ancestry-ddvi inspect genotypes.vcf.gz
  ancestry-ddvi inspect chr*.vcf.gz --json > inspection.json
  ancestry-ddvi inspect array.bed --compare exomes.vcf.gz
"""

COMPARE_EXAMPLES = """\b
Examples:
  ancestry-ddvi compare genotypes.vcf.gz --labels panel.tsv --methods all --seeds 5
  ancestry-ddvi compare genotypes.vcf.gz --methods gaussian,iaf,ddvi --holdout 0
"""

Command = Callable[..., None]


def _together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator of several, in the order in which --help shall have them."""

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _file_option(name: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, type=click.Path(path_type=Path), metavar="FILE", help=text)


genotype_files = click.argument(
    "genotypes", type=click.Path(path_type=Path), nargs=-1, required=True
)

reading_options = _together(
    click.option(
        "--region",
        multiple=True,
        metavar="REGION",
        help="Read these variants only: 6, chr6:25000000-34000000, or a BED file. May be repeated.",
    ),
    click.option(
        "--exclude-region",
        multiple=True,
        metavar="REGION",
        help="Leave these out; also long-range-ld-GRCh37 or -GRCh38.",
    ),
    _file_option("--keep", "Read the samples of this list only: an IID, or FID and IID, a line."),
    _file_option("--remove", "Leave the samples of this list out."),
    _file_option(
        "--extract", "Read the variants of this list only: rs123, 1:752566 or 1:752566:G:A a line."
    ),
    _file_option("--exclude", "Leave the variants of this list out."),
    click.option(
        "--chr-set",
        default=str(HUMAN_AUTOSOMES),
        show_default=True,
        metavar="N|any",
        help="Number of autosomes; `any` reads every contig not named like a sex chromosome.",
    ),
    click.option(
        "--multiallelic",
        type=click.Choice(["skip", "split"]),
        help="Leave records with several ALT alleles out, or take each SNP allele by itself.  "
        "[default: skip; split with `embed --model`]",
    ),
    click.option(
        "--half-calls",
        type=click.Choice(["missing", "reference", "haploid", "error"]),
        default="missing",
        show_default=True,
        help="What ./1 means.",
    ),
    click.option(
        "--hard-call-threshold",
        default=0.1,
        show_default=True,
        help="Without GT: call a dosage (DS, GP) this near to a whole number; others are missing.",
    ),
)
"""What to read of genotype files, alike for all commands."""

console_options = _together(
    click.option("--force", is_flag=True, help="Replace earlier results."),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say more."),
)


def filter_options(learning: bool) -> Callable[[Command], Command]:
    """plink2's filters: off, or what a map is learnt from."""
    return _together(
        click.option(
            "--maf",
            default=0.01 if learning else 0.0,
            show_default=True,
            help="Leave out variants of a lower minor allele frequency.",
        ),
        click.option(
            "--geno",
            default=0.05 if learning else 1.0,
            show_default=True,
            help="Leave out variants with a larger share of missing genotypes.",
        ),
        click.option(
            "--mind",
            default=0.1 if learning else 1.0,
            show_default=True,
            help="Samples with a larger share of missing genotypes are "
            + ("placed on the map, not learnt from." if learning else "left out."),
        ),
        click.option(
            "--hwe",
            default=0.0,
            show_default=True,
            help="Leave out variants with a lower p of Hardy-Weinberg proportions (exact test).",
        ),
    )


label_options = _together(
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        metavar="TSV",
        help="Table of labels (csv or tsv with a header), joined by sample id; used to colour and "
        "to score, never to train but with `embed --supervise`.",
    ),
    click.option("--id-column", metavar="NAME", help="Column of the sample ids in --labels."),
    click.option(
        "--label-column",
        "--population-column",
        "population_column",
        metavar="NAME",
        help="Column of the populations in --labels.",
    ),
    click.option(
        "--superpopulation-column",
        metavar="NAME",
        help="Column of the superpopulations in --labels.",
    ),
)
"""The table of labels and its columns."""

learning_options = _together(
    filter_options(learning=True),
    click.option(
        "--ld-r2",
        default=0.2,
        show_default=True,
        help="Prune variants linked above this; 1 for none.",
    ),
    click.option(
        "--max-kinship",
        default=0.0884,
        show_default=True,
        help="Of samples more closely related (KING-robust) some are placed, not learnt from, so "
        "that no such pair is left; 1 learns from all.",
    ),
)
"""Which variants and samples a map is learnt from."""

prior_options = _together(
    click.option(
        "--prior",
        metavar="NAME",
        help="What the map should look like: mixture (learnt), fixed-mixture, gaussian, vamp, "
        "pinwheel, swiss-roll or square.  [default: mixture; gaussian with dirichlet]",
    ),
    click.option(
        "--clustering",
        type=click.Choice(["mixture", "dirichlet"]),
        default="mixture",
        show_default=True,
        help="Clusters are the parts of the prior, or Dirichlet weights beside the map.",
    ),
)
"""What the map is made of."""

model_options = _together(
    click.option(
        "--n-pcs", default=20, show_default=True, help="Principal components the model learns from."
    ),
    click.option(
        "--n-clusters",
        type=int,
        help="Components, arms, pieces or sectors of the prior, or Dirichlet weights.  [default: "
        "30 of a learnt mixture, 10 of a fixed one and of Dirichlet weights, 5 arms or pieces]",
    ),
    click.option(
        "--map-steps",
        default=8000,
        show_default=True,
        help="Optimiser steps that learn the map; fewer is faster and rougher.",
    ),
    click.option(
        "--posterior-steps",
        type=int,
        help="Optimiser steps that learn the uncertainty.  [default: 50; 3000 for a prior that "
        "cannot guide the diffusion]",
    ),
    click.option("--draws", default=200, show_default=True, help="Posterior draws a sample."),
)
"""Size and training of the model."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ancestry-ddvi")
def cli() -> None:
    """See and use the ancestry structure in genotypes, with honest uncertainty."""


@cli.command(epilog=EXAMPLES)
@genotype_files
@label_options
@click.option(
    "--supervise",
    is_flag=False,
    flag_value="",
    metavar="[COLUMN]",
    help="Learn from the labels in this column of --labels too, which may have gaps: each class is "
    "a part of the prior, and every sample gets a probability of every class. The map is then no "
    "longer unsupervised. Without COLUMN (as the last word, or before another option): the "
    "population's.",
)
@click.option(
    "--model",
    type=click.Path(),  # as it is written: a Path forgets the ./ that tells a folder from a name
    metavar="NAME|DIR",
    help="Place the samples on the map of this trained model instead of learning a new one: a "
    "name that `ancestry-ddvi models` lists, or a folder that an earlier run wrote (./NAME if it "
    "is called like one of these). A model of labelled samples calls ancestry too.",
)
@click.option(
    "--absent-is-ref",
    is_flag=True,
    help="With --model: take its variants that the file has nothing at as homozygous for REF, not "
    "as missing. Right of variants called over whole genomes, wherever they were sequenced well "
    "enough, of gVCFs, whose reference blocks are read, and of exomes with --region TARGETS.bed, "
    "which keeps it to these; wrong of arrays, panels and imputed files, which it would put where "
    "nobody is.",
)
@click.option(
    "--call-threshold",
    default=0.9,
    show_default=True,
    help="Least probability of an ancestry call; `uncertain` below.",
)
@click.option(
    "--min-typicality",
    default=0.01,
    show_default=True,
    help="Samples less like any of the reference than this share of its own are `outside "
    "reference`.",
)
@click.option("--save-draws", is_flag=True, help="Write the posterior draws too, draws.npz.")
@click.option(
    "--no-pictures",
    is_flag=True,
    help="Tables only, no map and no page: of a single sample's time they are the larger part.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Output folder.  [default: the input's name + .ddvi, in the current folder]",
)
@click.option("--seed", default=0, show_default=True, help="All randomness follows from it.")
@click.option("--n-latent", default=2, show_default=True, help="Axes of the map.")
@click.option(
    "--holdout",
    default=0.0,
    show_default=True,
    help="Share of samples to learn nothing from and to place like new ones; gives held-out "
    "metrics.",
)
@learning_options
@reading_options
@prior_options
@model_options
@click.option(
    "--threads",
    default=1,
    show_default=True,
    help="CPU threads; results are the same to the byte at the same count, not between counts.",
)
@console_options
@click.pass_context
def embed(
    context: click.Context,
    /,
    genotypes: tuple[Path, ...],
    labels: Path | None,
    id_column: str | None,
    population_column: str | None,
    superpopulation_column: str | None,
    supervise: str | None,
    model: str | None,
    absent_is_ref: bool,
    call_threshold: float,
    min_typicality: float,
    save_draws: bool,
    no_pictures: bool,
    out: Path | None,
    seed: int,
    n_latent: int,
    holdout: float,
    threads: int,
    force: bool,
    quiet: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Embed samples: a map, a table with uncertainty, GWAS covariates, metrics and a model.

    GENOTYPES is a VCF (plain, gzip or bgzip; `-` for standard input), a BCF, a PLINK 1 or 2 set
    (one of its three files, or the name that they share), a VCF Zarr, or an .npz of `ancestry-ddvi
    convert`; or several such of the same samples, as one per chromosome. Content tells the format.
    """
    console = _console(quiet, verbose)
    _check_ranges(context.params)
    if model is not None:
        _refuse_to_train(context)
    _limit_threads(threads)
    # Only now: these imports take seconds, and --help or a wrong option should not wait for them.
    with _nothing_to_collect():
        from ancestry_ddvi.ancestry import CallConfig
        from ancestry_ddvi.pipeline import embed_file
        from ancestry_ddvi.reference_models import find_model

    config = _embed_config(given, n_latent=n_latent, holdout=holdout, seed=seed)
    summary = embed_file(
        genotypes,
        out_dir=out or default_out(genotypes),
        reading=_reading(given, hwe=given["hwe"]),
        labels_path=labels,
        id_column=id_column,
        population_column=population_column,
        superpopulation_column=superpopulation_column,
        supervise=supervise,
        model_path=None if model is None else find_model(model),
        absent_is_ref=absent_is_ref,
        config=config,
        calling=CallConfig(call_threshold, min_typicality),
        save_draws=save_draws,
        pictures=not no_pictures,
        force=force,
        console=console,
        command=shlex.join(["ancestry-ddvi", *sys.argv[1:]]),
    )
    if not quiet:
        rows = list(summary.rows)
        rows += [(h.label, f"{h.value:.3f}") for h in summary.headlines]
        rows += [("written to", f"{summary.out_dir}/"), ("files", "  ".join(summary.files))]
        width = max(len(name) for name, _ in rows)
        _print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))


@cli.command(epilog=INSPECT_EXAMPLES)
@genotype_files
@reading_options
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="OTHER",
    help="Genotypes of the same samples: say how well they agree, and which ids are swapped.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but the result and errors.")
@click.pass_context
def inspect(
    context: click.Context,
    /,
    genotypes: tuple[Path, ...],
    compare: Path | None,
    as_json: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Say what genotype files are, and what embed would do with them; nothing is written.

    GENOTYPES is whatever `embed` takes.
    """
    _check_ranges(context.params)
    _limit_threads(1)
    from ancestry_ddvi.inspection import inspect_files

    inspection = inspect_files(
        genotypes,
        _reading(reading),
        other=compare,
        console=Console(Verbosity.QUIET if quiet else Verbosity.NORMAL),
    )
    text = inspection.as_json() if as_json else inspection.table(_columns())
    _print(text, "free space there, or pipe it elsewhere")


@cli.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that come with the program, and what they were trained on."""
    if context.invoked_subcommand is not None:
        return
    from ancestry_ddvi.preprocessing.alignment import OF_MAP
    from ancestry_ddvi.reference_models import card, shipped

    if not shipped():
        _print("no model comes with this version; embed --labels TSV makes one that calls ancestry")
    for name in shipped():
        about = card(name)
        trained = about["trained on"]
        called = len(about.get("ancestry calls", {}).get("populations", {}))
        _print(
            f"{name}  {trained['samples']:,} samples, {trained[OF_MAP]:,} {OF_MAP}, "
            f"{called} populations  ({trained['file']})"
        )
    _print("ancestry-ddvi models show NAME|DIR says more; embed --model NAME|DIR uses one")


@models.command()
@click.argument("name", metavar="NAME|DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def show(name: str, as_json: bool) -> None:
    """Show the card of a model: data, figures, limits, and what it must not be used for.

    NAME is one that `ancestry-ddvi models` lists; a folder that is called so is ./NAME.
    """
    import json

    from ancestry_ddvi.reference_models import card, card_text

    about = card(name)
    if as_json:
        _print(json.dumps(about, indent=2, ensure_ascii=False))
    else:
        _print(card_text(about, _columns()))


@cli.command(epilog=CONVERT_EXAMPLES)
@genotype_files
@click.argument("output", type=click.Path(path_type=Path))
@reading_options
@filter_options(learning=False)
@click.option(
    "--format",
    "format_name",
    metavar="NAME",
    help="vcf, vcf.gz, bcf, bed, pgen, vcz or npz.  [default: what OUTPUT's suffix says]",
)
@console_options
@click.pass_context
def convert(
    context: click.Context,
    /,
    genotypes: tuple[Path, ...],
    output: Path,
    format_name: str | None,
    maf: float,
    geno: float,
    mind: float,
    hwe: float,
    force: bool,
    quiet: bool,
    verbose: bool,
    **reading: Any,
) -> None:
    """Write genotypes in another format: biallelic SNPs, hard calls, no phase.

    GENOTYPES is whatever `embed` takes. OUTPUT ends in .vcf, .vcf.gz, .bcf, .bed, .pgen, .vcz or
    .zarr (VCF Zarr), or .npz (our own, quick to read again).
    """
    console = _console(quiet, verbose)
    _check_ranges(context.params)
    options = _reading(reading, maf=maf, geno=geno, mind=mind, hwe=hwe)
    from ancestry_ddvi.conversion import convert_files

    files = convert_files(
        genotypes, output, options, format_name=format_name, force=force, console=console
    )
    if not quiet:
        _print("\n".join(map(str, files)))


@cli.command(epilog=COMPARE_EXAMPLES)
@genotype_files
@label_options
@click.option(
    "--methods",
    default="all",
    show_default=True,
    metavar="NAMES",
    help="Which, joined by commas: gaussian, iaf, nsf, adversarial, hierarchical, pis, ddvi, "
    "ddvi-unregularised, ddvi-wake-sleep, ddvi-simplified, pca, tsne, umap; or all.",
)
@click.option("--seeds", default=5, show_default=True, help="Fits of each method: seeds 0, 1, ...")
@click.option(
    "--steps",
    default=2000,
    show_default=True,
    help="Gradient steps of every method but ddvi, which has --map-steps and --posterior-steps.",
)
@click.option(
    "--holdout",
    default=0.2,
    show_default=True,
    help="Share of samples to hold out in a second fit of each seed; 0 for none.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Output folder.  [default: the input's name + .comparison, in the current folder]",
)
@learning_options
@reading_options
@model_options
@console_options
@click.pass_context
def compare(
    context: click.Context,
    /,
    genotypes: tuple[Path, ...],
    labels: Path | None,
    id_column: str | None,
    population_column: str | None,
    superpopulation_column: str | None,
    methods: str,
    seeds: int,
    steps: int,
    holdout: float,
    out: Path | None,
    force: bool,
    quiet: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Compare DDVI with other posteriors and maps: one table, with intervals over seeds.

    GENOTYPES is whatever `embed` takes. Finished fits are kept in the output folder: the same
    command goes on where it was interrupted, and methods or seeds may be added; --force starts
    over. Without --labels there are bounds, widths and seconds only.
    """
    console = _console(quiet, verbose)
    _check_ranges(context.params)
    _limit_threads(1)  # seconds are compared
    from ancestry_ddvi.comparison import CompareConfig, choose, compare_files
    from ancestry_ddvi.labelling import LabelChoice

    names, left_out = choose(methods)
    for name in left_out:
        console.warn(f'{name} is left out: not installed (pip install "ancestry-ddvi[benchmark]")')
    summary = compare_files(
        genotypes,
        out_dir=out or default_out(genotypes, ".comparison"),
        config=CompareConfig(
            methods=names, n_seeds=seeds, n_steps=steps, holdout=holdout, embed=_embed_config(given)
        ),
        labels=LabelChoice(labels, id_column, population_column, superpopulation_column),
        reading=_reading(given, hwe=given["hwe"]),
        force=force,
        console=console,
        command=shlex.join(["ancestry-ddvi", *sys.argv[1:]]),
    )
    if not quiet:
        _print(f"{summary.table}\n\nwritten to {summary.out_dir}/: {'  '.join(summary.files)}")


def _columns() -> int:
    """Width of the terminal; 100 where there is none."""
    return max(60, shutil.get_terminal_size((100, 24)).columns)


def _console(quiet: bool, verbose: bool) -> Console:
    if quiet and verbose:
        raise OptionError("--quiet and --verbose exclude each other; give one of them")
    return Console(Verbosity.QUIET if quiet else Verbosity(1 + verbose))


def _reading(given: dict[str, Any], **filters: Any) -> ReadOptions:
    """What the reading options ask for; their files are read here."""
    from ancestry_ddvi.loaders.lists import read_samples, read_variants
    from ancestry_ddvi.loaders.options import ReadOptions
    from ancestry_ddvi.loaders.regions import RegionSet

    def maybe(read: Callable[[Any], Any], value: Any) -> Any:
        return read(value) if value else None

    chr_set = given["chr_set"]
    if chr_set != "any" and not (chr_set.isascii() and chr_set.isdigit() and int(chr_set) > 0):
        raise OptionError(f"--chr-set must be a number of autosomes or `any`, not {chr_set!r}")
    return ReadOptions(
        chr_set=None if chr_set == "any" else int(chr_set),
        regions=maybe(RegionSet.parse, given["region"]),
        exclude_regions=maybe(RegionSet.parse, given["exclude_region"]),
        keep=maybe(read_samples, given["keep"]),
        remove=maybe(read_samples, given["remove"]),
        extract=maybe(read_variants, given["extract"]),
        exclude=maybe(read_variants, given["exclude"]),
        multiallelic=given["multiallelic"],
        half_calls=given["half_calls"],
        hard_call_threshold=given["hard_call_threshold"],
        **filters,
    )


def _embed_config(given: dict[str, Any], n_latent: int = 2, **more: Any) -> EmbedConfig:
    """What `learning_options`, `prior_options` and `model_options` ask for."""
    from ancestry_ddvi.ddvi.model import ModelConfig
    from ancestry_ddvi.ddvi.training import TrainingConfig
    from ancestry_ddvi.fitting import EmbedConfig
    from ancestry_ddvi.preprocessing.features import FeatureConfig

    return EmbedConfig(
        features=FeatureConfig(
            n_pcs=given["n_pcs"],
            min_call_rate=1 - given["geno"],
            min_maf=given["maf"],
            min_sample_call_rate=1 - given["mind"],
            ld_max_r2=given["ld_r2"],
        ),
        model=ModelConfig(
            n_latent=n_latent,
            n_clusters=given["n_clusters"],
            **{name: given[name] for name in ("prior", "clustering") if name in given},
        ),
        training=TrainingConfig(
            map_steps=given["map_steps"], posterior_steps=given["posterior_steps"]
        ),
        n_draws=given["draws"],
        max_kinship=given["max_kinship"],
        **more,
    )


def default_out(genotypes: Sequence[Path], ending: str = ".ddvi") -> Path:
    """What the inputs' names share, without suffixes, plus ours, in the current folder."""
    names = []
    for path in genotypes:
        name = path.name
        while (suffix := Path(name).suffix) and suffix.lower() in GENOTYPE_SUFFIXES:
            name = name.removesuffix(suffix)
        names.append(name)
    name = names[0]
    if len(set(names)) > 1:
        shared = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
        name = "".join(letters[0] for letters in shared).rstrip("._-0123456789")
    return Path(f"{name if name.strip('-') else 'genotypes'}{ending}")


def _flag(name: str) -> str:
    """The option as it is typed."""
    return "--" + name.replace("_", "-")


def _check_ranges(values: dict[str, float | None]) -> None:
    for name in RANGES.keys() & values.keys():
        least, most = RANGES[name]
        value = values[name]
        if value is not None and not least <= value <= most:  # true of nan as well
            to = f"from {least} to {most}" if most < math.inf else f"at least {least}"
            raise OptionError(f"{_flag(name)} must be {to}, not {value}")


def _refuse_to_train(context: click.Context) -> None:
    given = [
        _flag(name)
        for name in OF_TRAINING
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    ]
    if given:
        raise OptionError(
            f"{', '.join(given)}: only for learning a map, and --model gives a learnt one; leave "
            "one of them out"
        )


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Spare imports the garbage collector, and the collector what they made.

    They make half a million objects that stay to the end. To look through these for garbage over
    and over, and once more at exit, takes a sixth of the time that one sample needs.
    """
    if "torch" in sys.modules or not gc.isenabled():  # imported by whoever calls us, who decides
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _limit_threads(threads: int) -> None:
    """Linear algebra libraries read these once, when they are loaded."""
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)


def _print(
    text: str, remedy: str = "the results are written, and run.json holds the same figures"
) -> None:
    try:
        click.echo(text)
    except OSError as error:
        hush(sys.stdout)
        if not isinstance(error, BrokenPipeError):  # a reader who left has seen enough
            raise OutputError(
                f"standard output: the summary cannot be written ({error.strerror}); {remedy}"
            ) from error


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _catch_signals() -> None:
    """Let a polite kill or a closed terminal clean up as Ctrl-C does."""
    last = -math.inf

    def interrupt(signum: int, frame: FrameType | None) -> None:
        # Impatient fingers press again; that must not interrupt the cleaning up.
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > 2:
            raise KeyboardInterrupt

    for signum in _SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:  # so that nohup keeps its meaning
            signal.signal(signum, interrupt)


def _ignore_signals() -> None:
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def main() -> NoReturn:
    """Run the command line: exit 0 done, 2 the input's fault, 1 ours, 130 interrupted."""
    _catch_signals()
    if sys.stderr is None:  # closed by `2>&-`
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - to the end of the process
    try:
        cli.main(sys.argv[1:] or ["--help"], prog_name="ancestry-ddvi", standalone_mode=False)
        _ignore_signals()  # all is written and said: what comes now is too late
        code = 0
    except InputError as error:
        code = _fail(str(error))
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "ancestry-ddvi"
        code = _fail(f"{error.format_message()} See `{path} --help`")
    except (KeyboardInterrupt, click.Abort):
        _ignore_signals()  # one more press would kill the process as it takes its leave
        print("interrupted: nothing half-written is left", file=sys.stderr, flush=True)
        # Not sys.exit: where the interrupt hit code that a library compiles as it is imported,
        # Python would end by a signal and not by this code.
        os._exit(130)
    sys.exit(code)


def _fail(message: str) -> int:
    # One line, whatever a path or an id in it holds.
    print("error: " + " ".join(message.splitlines()), file=sys.stderr)
    return 2
