"""From genotype files to a file of another format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ancestry_ddvi.console import Console, Verbosity, say_genotypes
from ancestry_ddvi.errors import OutputError
from ancestry_ddvi.loaders import ReadOptions, read_genotypes
from ancestry_ddvi.reference_sites import unlike_build
from ancestry_ddvi.writers import check_output, write_genotypes

PLINK_SUFFIXES = {".bed", ".bim", ".fam", ".pgen", ".pvar", ".psam"}


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
    # Before the reading that a typo would cost.
    targets = check_output(output, format_name, force=force)
    _refuse_to_overwrite(paths, targets)
    with console.stage("read genotypes") as update:
        genotypes = read_genotypes(paths, options, update)
    say_genotypes(console, genotypes)
    if said := unlike_build(genotypes, options.region_builds if options else frozenset()):
        console.warn(said)
    with console.stage("write genotypes"):
        return write_genotypes(genotypes, output, format=format_name, force=force)


def _refuse_to_overwrite(inputs: Sequence[Path], targets: Sequence[Path]) -> None:
    """An input that --force would replace by a part of itself is more likely a slip."""
    given = {os.path.realpath(path) for path in inputs}
    # Any name of a PLINK set stands for all.
    stems = {os.path.splitext(path)[0] for path in given} | given
    for target in targets:
        real = os.path.realpath(target)
        stem, suffix = os.path.splitext(real)
        if real in given or (suffix in PLINK_SUFFIXES and stem in stems and target.exists()):
            raise OutputError(f"{target}: is part of the input itself; choose another name")
