"""What a run says: a bar per stage on a terminal, plain lines elsewhere, and a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, TextIO

from ancestry_ddvi.errors import counted

if TYPE_CHECKING:
    from rich.console import Console as Terminal

    from ancestry_ddvi.genotypes import GenotypeMatrix


class Verbosity(IntEnum):
    """How much is said."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


Update = Callable[[float], None]


def hush(stream: TextIO) -> None:
    """Send a stream that cannot be written any more nowhere, to the end of the process.

    Its reader has gone away (`| head -1`), say; what Python still holds of it would fail at exit.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@dataclass
class Console:
    """Stages, notes and warnings of one run.

    Attributes
    ----------
    verbosity
        Warnings are said always, but for `QUIET`; details in `VERBOSE` only. The log has all.
    stream
        Where progress goes; results go to standard output, so that they can be piped.
    seconds
        Wall seconds by stage, in order.
    cpu_seconds
        CPU seconds by stage.
    lines
        The log so far.
    warnings
        Every warning, for the report.
    """

    verbosity: Verbosity = Verbosity.NORMAL
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _bar_on: Terminal | None = field(default=None, repr=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[Update]:
        """Time a stage; yields a function that takes the fraction done."""
        wall, cpu = time.monotonic(), time.process_time()
        if self.verbosity > Verbosity.QUIET and self.stream.isatty():
            with self._bar(name) as update:
                yield update
        else:
            yield lambda fraction: None
        self.seconds[name] = time.monotonic() - wall
        self.cpu_seconds[name] = time.process_time() - cpu
        self._say(f"{name}: {self.seconds[name]:.1f} s", Verbosity.NORMAL)

    @contextmanager
    def _bar(self, name: str) -> Iterator[Update]:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
        terminal = Terminal(file=self.stream)
        with Progress(*columns, console=terminal, transient=True) as progress:
            task = progress.add_task(name, total=1.0)
            self._bar_on = terminal
            try:
                yield lambda fraction: progress.update(task, completed=fraction)
            finally:
                self._bar_on = None

    def note(self, text: str) -> None:
        """Say what was found."""
        self._say(text, Verbosity.NORMAL)

    def detail(self, text: str) -> None:
        """Say what only the curious want to know."""
        self._say(text, Verbosity.VERBOSE)

    def warn(self, text: str) -> None:
        """Say what the user should look at, and keep it for the report."""
        self.warnings.append(text)
        self._say(f"warning: {text}", Verbosity.NORMAL)

    def _say(self, text: str, level: Verbosity) -> None:
        line = f"[{time.monotonic() - self.started:6.1f} s] {text}"
        self.lines.append(line)
        if self.verbosity < level:
            return
        if self._bar_on:  # it prints above the bar, not into it
            self._bar_on.print(line, markup=False, highlight=False, soft_wrap=True)
            return
        try:
            print(line, file=self.stream, flush=True)
        except OSError:  # nobody listens any more; the results are still wanted
            hush(self.stream)


def say_genotypes(
    console: Console, genotypes: GenotypeMatrix, n_samples: int | None = None
) -> None:
    """What was read, what was left out, and which rules were needed; `n_samples` is how many there
    are in all, where these are a part of them."""
    n_samples = genotypes.n_samples if n_samples is None else n_samples
    samples = counted(n_samples, "sample", "samples")
    console.note(f"{samples}, {counted(genotypes.n_variants, 'biallelic SNP', 'biallelic SNPs')}")
    for reason, n in genotypes.left_out.items():
        if n:
            console.note(f"records left out, {reason}: {n:,}")
    for rule, n in genotypes.by_rule.items():
        console.note(f"{rule}: {n:,}")
    for note in genotypes.notes:
        console.warn(note)
