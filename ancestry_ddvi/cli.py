"""The command line. Bodies of one call; heavy imports only once options are known to be right."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from ancestry_ddvi import __version__
from ancestry_ddvi.console import Console, Verbosity, hush
from ancestry_ddvi.errors import InputError, OptionError, OutputError

GENOTYPE_SUFFIXES = {".vcf", ".gz", ".bgz", ".bed", ".bim", ".fam"}

RANGES = {
    "seed": (0, 2**31 - 1),
    "n_latent": (1, math.inf),
    "holdout": (0, 0.99),
    "min_maf": (0, 0.5),
    "min_call_rate": (0, 1),
    "min_sample_call_rate": (0, 1),
    "ld_r2": (0, 1),
    "n_pcs": (1, math.inf),
    "n_clusters": (1, math.inf),
    "map_steps": (1, math.inf),
    "posterior_steps": (1, math.inf),
    "draws": (2, math.inf),
    "threads": (1, math.inf),
}
"""Least and most of every number."""

OF_TRAINING = (
    *("n_latent", "holdout", "min_maf", "min_call_rate", "min_sample_call_rate", "ld_r2"),
    *("n_pcs", "n_clusters", "map_steps", "posterior_steps"),
)
"""Options that say how to learn a map; one that is loaded with --model has been learnt."""

EXAMPLES = """\b
Examples:
  ancestry-ddvi embed genotypes.vcf.gz
  ancestry-ddvi embed genotypes.vcf.gz --labels panel.tsv --out results --force
  ancestry-ddvi embed genotypes.vcf.gz --labels panel.tsv --holdout 0.2
  ancestry-ddvi embed new_samples.vcf.gz --model results/model
"""

INSPECT_EXAMPLES = """\b
Examples:
  ancestry-ddvi inspect genotypes.vcf.gz
  ancestry-ddvi inspect chr*.vcf.gz --json > inspection.json
  ancestry-ddvi inspect array.bed --compare exomes.vcf.gz
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ancestry-ddvi")
def cli() -> None:
    """See and use the ancestry structure in genotypes, with honest uncertainty."""


@cli.command(epilog=EXAMPLES)
@click.argument("genotypes", type=click.Path(path_type=Path))
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="TSV",
    help="Table of labels (csv or tsv with a header), joined by sample id; used to colour and to "
    "score, never to train.",
)
@click.option("--id-column", metavar="NAME", help="Column of the sample ids in --labels.")
@click.option("--population-column", metavar="NAME", help="Column of the populations in --labels.")
@click.option(
    "--superpopulation-column", metavar="NAME", help="Column of the superpopulations in --labels."
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Place the samples on the map of this trained model instead of learning a new one.",
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
@click.option("--min-maf", default=0.01, show_default=True, help="Minor allele frequency filter.")
@click.option("--min-call-rate", default=0.95, show_default=True, help="Variant call rate filter.")
@click.option(
    "--min-sample-call-rate",
    default=0.9,
    show_default=True,
    help="Samples called at fewer variants are placed on the map but not learnt from.",
)
@click.option(
    "--ld-r2", default=0.2, show_default=True, help="Prune variants linked above this; 1 for none."
)
@click.option(
    "--n-pcs", default=20, show_default=True, help="Principal components the model learns from."
)
@click.option("--n-clusters", default=30, show_default=True, help="Components of the prior.")
@click.option(
    "--map-steps",
    default=8000,
    show_default=True,
    help="Optimiser steps that learn the map; fewer is faster and rougher.",
)
@click.option(
    "--posterior-steps",
    default=3000,
    show_default=True,
    help="Optimiser steps that learn the uncertainty; fewer is faster and rougher.",
)
@click.option("--draws", default=200, show_default=True, help="Posterior draws a sample.")
@click.option(
    "--threads",
    default=1,
    show_default=True,
    help="CPU threads; results are the same to the byte at the same count, not between counts.",
)
@click.option("--force", is_flag=True, help="Replace earlier results in the output folder.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.pass_context
def embed(
    context: click.Context,
    genotypes: Path,
    labels: Path | None,
    id_column: str | None,
    population_column: str | None,
    superpopulation_column: str | None,
    model: Path | None,
    out: Path | None,
    seed: int,
    n_latent: int,
    holdout: float,
    min_maf: float,
    min_call_rate: float,
    min_sample_call_rate: float,
    ld_r2: float,
    n_pcs: int,
    n_clusters: int,
    map_steps: int,
    posterior_steps: int,
    draws: int,
    threads: int,
    force: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Embed samples: a map, a table with uncertainty, GWAS covariates, metrics and a model.

    GENOTYPES is a VCF (plain, gzip or bgzip), or a PLINK 1 set: its .bed, .bim or .fam, or the name
    that they share.
    """
    if quiet and verbose:
        raise OptionError("--quiet and --verbose exclude each other; give one of them")
    _check_ranges(context.params)
    if model is not None:
        _refuse_to_train(context)
    _limit_threads(threads)
    # Only now: these imports take seconds, and --help or a wrong option should not wait for them.
    from ancestry_ddvi.ddvi.model import ModelConfig
    from ancestry_ddvi.ddvi.training import TrainingConfig
    from ancestry_ddvi.pipeline import EmbedConfig, embed_file
    from ancestry_ddvi.preprocessing.features import FeatureConfig

    console = Console(Verbosity.QUIET if quiet else Verbosity(1 + verbose))
    config = EmbedConfig(
        features=FeatureConfig(
            n_components=n_pcs,
            min_call_rate=min_call_rate,
            min_maf=min_maf,
            min_sample_call_rate=min_sample_call_rate,
            ld_max_r2=ld_r2,
        ),
        model=ModelConfig(n_latent=n_latent, n_components=n_clusters),
        training=TrainingConfig(map_steps=map_steps, posterior_steps=posterior_steps),
        n_draws=draws,
        holdout=holdout,
        seed=seed,
    )
    summary = embed_file(
        genotypes,
        out_dir=out or default_out(genotypes),
        labels_path=labels,
        id_column=id_column,
        population_column=population_column,
        superpopulation_column=superpopulation_column,
        model_path=model,
        config=config,
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
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="OTHER",
    help="Genotypes of the same samples: say how well they agree, and which ids are swapped.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but the result and errors.")
def inspect(files: tuple[Path, ...], compare: Path | None, as_json: bool, quiet: bool) -> None:
    """Say what genotype files are, and what embed would do with them; nothing is written.

    FILES are one file, or several of the same samples, such as one per chromosome.
    """
    _limit_threads(1)
    from ancestry_ddvi.inspection import inspect_files
    from ancestry_ddvi.loaders import ReadOptions

    inspection = inspect_files(
        files,
        ReadOptions(),
        other=compare,
        console=Console(Verbosity.QUIET if quiet else Verbosity.NORMAL),
    )
    text = inspection.as_json() if as_json else inspection.table(_columns())
    _print(text, "free space there, or pipe it elsewhere")


def _columns() -> int:
    """Width of the terminal; 100 where there is none."""
    return max(60, shutil.get_terminal_size((100, 24)).columns)


def default_out(genotypes: Path) -> Path:
    """The input's name without suffixes, plus .ddvi, in the current folder."""
    name = genotypes.name
    while (suffix := Path(name).suffix) and suffix.lower() in GENOTYPE_SUFFIXES:
        name = name.removesuffix(suffix)
    return Path(f"{name or 'genotypes'}.ddvi")


def _flag(name: str) -> str:
    """The option as it is typed."""
    return "--" + name.replace("_", "-")


def _check_ranges(values: dict[str, float]) -> None:
    for name, (least, most) in RANGES.items():
        if not least <= values[name] <= most:  # true of nan as well
            to = f"from {least} to {most}" if most < math.inf else f"at least {least}"
            raise OptionError(f"{_flag(name)} must be {to}, not {values[name]}")


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


def _limit_threads(threads: int) -> None:
    """Linear algebra libraries read these once, when they are loaded."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


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
        code = _fail(f"{error.format_message()} See `ancestry-ddvi embed --help`")
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
