"""The command line. Bodies of one call; heavy imports only once options are known to be right."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from ancestry_ddvi import __version__
from ancestry_ddvi.console import Console, Verbosity
from ancestry_ddvi.errors import InputError, OptionError

GENOTYPE_SUFFIXES = {".vcf", ".gz", ".bgz"}

EXAMPLES = """\b
Examples:
  ancestry-ddvi embed genotypes.vcf.gz
  ancestry-ddvi embed genotypes.vcf.gz --labels panel.tsv --out results --force
  ancestry-ddvi embed genotypes.vcf.gz --labels panel.tsv --holdout 0.2
  ancestry-ddvi embed new_samples.vcf.gz --model results/model
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
@click.option("--draws", default=200, show_default=True, help="Posterior draws a sample.")
@click.option(
    "--threads",
    default=1,
    show_default=True,
    help="CPU threads; results agree to rounding between counts, to the byte at the same count.",
)
@click.option("--force", is_flag=True, help="Replace earlier results in the output folder.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
def embed(
    genotypes: Path,
    labels: Path | None,
    id_column: str | None,
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
    draws: int,
    threads: int,
    force: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Embed the samples of a VCF: a map, a table with uncertainty, covariates, metrics, a model.

    GENOTYPES is a VCF, plain, gzip or bgzip.
    """
    if quiet and verbose:
        raise OptionError("--quiet and --verbose exclude each other; give one of them")
    if threads < 1:
        raise OptionError(f"--threads must be at least 1, not {threads}")
    for name, value in (
        ("--min-maf", min_maf),
        ("--min-call-rate", min_call_rate),
        ("--min-sample-call-rate", min_sample_call_rate),
        ("--ld-r2", ld_r2),
    ):
        if not 0 <= value <= 1:
            raise OptionError(f"{name} must be from 0 to 1, not {value:g}")
    if n_pcs < 1:
        raise OptionError(f"--n-pcs must be at least 1, not {n_pcs}")
    if model is not None and holdout:
        raise OptionError("--holdout needs a model to train; leave it out with --model")
    _limit_threads(threads)
    # Only now: these imports take seconds, and --help or a wrong option should not wait for them.
    from ancestry_ddvi.ddvi.model import ModelConfig
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
        n_draws=draws,
        holdout=holdout,
        seed=seed,
    )
    summary = embed_file(
        genotypes,
        out_dir=out or default_out(genotypes),
        labels_path=labels,
        id_column=id_column,
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
        click.echo("\n".join(f"{name:<{width}}  {value}" for name, value in rows))


def default_out(genotypes: Path) -> Path:
    """The input's name without suffixes, plus .ddvi, in the current folder."""
    name = genotypes.name
    while (suffix := Path(name).suffix) and suffix.lower() in GENOTYPE_SUFFIXES:
        name = name.removesuffix(suffix)
    return Path(f"{name or 'genotypes'}.ddvi")


def _limit_threads(threads: int) -> None:
    """Linear algebra libraries read these once, when they are loaded."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """A polite kill cleans up as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the command line: exit 0 done, 2 the input's fault, 1 ours, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        cli.main(standalone_mode=False)
        code = 0
    except InputError as error:
        # One line, whatever a path or an id in it holds.
        print("error: " + " ".join(str(error).splitlines()), file=sys.stderr)
        code = 2
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.Abort):
        print("interrupted: nothing was written", file=sys.stderr)
        code = 130
    sys.exit(code)
