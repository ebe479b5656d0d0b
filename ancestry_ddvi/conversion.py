"""From genotype files to a file of another format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ancestry_ddvi.console import Console, Verbosity, say_genotypes
from ancestry_ddvi.loaders import ReadOptions, read_genotypes
from ancestry_ddvi.writers import check_output, write_genotypes


def convert_files(
    paths: Sequence[Path],
    output: Path,
    options: ReadOptions | None = None,
    *,
    format_name: str | None = None,
    force: bool = False,
    console: Console | None = None,
) -> list[Path]:
    """Read genotypes and write them in another format.

    Parameters
    ----------
    paths
        Genotypes: a file, or several of the same samples.
    output
        The file to write; of a PLINK set any of its names.
    options
        What to read.
    format_name
        As `write_genotypes` takes it; told by the suffix of `output` if not given.
    force
        Replace what is there.
    console
        Where progress goes.

    Returns
    -------
    The files written.

    Raises
    ------
    InputError
        Whatever is wrong with the input or the output; nothing is half-written.
    """
    console = console or Console(Verbosity.QUIET)
    check_output(output, format_name, force=force)  # before the reading that a typo would cost
    with console.stage("read genotypes") as update:
        genotypes = read_genotypes(paths, options, update)
    say_genotypes(console, genotypes)
    with console.stage("write genotypes"):
        return write_genotypes(genotypes, output, format=format_name, force=force)
