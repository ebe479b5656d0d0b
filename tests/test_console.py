"""What a run says: plain lines in a pipe, a bar on a terminal, everything in the log."""

from __future__ import annotations

import io
import os
import pty
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import make_variants

from ancestry_ddvi.console import Console, Verbosity, say_genotypes
from ancestry_ddvi.genotypes import GenotypeMatrix

END = "<end>"


@dataclass
class PseudoTerminal:
    """A stream that is a terminal, and what was written to it."""

    leader: int
    stream: io.TextIOWrapper

    def shown(self) -> str:
        # One read may return a part of what was written: read up to a mark.
        self.stream.write(END)
        self.stream.flush()
        seen = b""
        while not seen.endswith(END.encode()):
            seen += os.read(self.leader, 2**16)
        return seen.decode().removesuffix(END)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[PseudoTerminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    leader, follower = pty.openpty()
    stream = os.fdopen(follower, "w")
    yield PseudoTerminal(leader, stream)
    stream.close()
    os.close(leader)


def speak(console: Console) -> None:
    with console.stage("train") as update:
        update(0.5)
        console.detail("a detail")
    console.note("a note [bold]as it is[/bold]")
    console.warn("a warning")


EVERYTHING = ["a detail", "train: 0.0 s", "a note [bold]as it is[/bold]", "warning: a warning"]


def said(lines: list[str]) -> list[str]:
    """Lines without their time stamp."""
    return [line.split("s] ", 1)[1] for line in lines]


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [
        (Verbosity.QUIET, []),
        (Verbosity.NORMAL, EVERYTHING[1:]),
        (Verbosity.VERBOSE, EVERYTHING),
    ],
)
def test_verbosity(verbosity: Verbosity, expected: list[str]) -> None:
    stream = io.StringIO()
    console = Console(verbosity, stream)
    speak(console)
    assert said(stream.getvalue().splitlines()) == expected
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()
    # The log and the report have all, whatever was said aloud.
    assert said(console.lines) == EVERYTHING
    assert console.warnings == ["a warning"]


@pytest.mark.parametrize(("n", "words"), [(1, "1 sample, 1 biallelic SNP"), (2, "2 samples, 2 b")])
def test_one_is_not_some(n: int, words: str) -> None:
    console = Console(Verbosity.QUIET)
    ids = np.array([f"s{i}" for i in range(n)])
    say_genotypes(console, GenotypeMatrix(np.zeros((n, n), np.int8), ids, make_variants(n)))
    (line,) = said(console.lines)
    assert line.startswith(words)
    assert line.endswith("SNPs") == (n > 1)


def test_seconds_by_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 12.5, 13.0, 20.0, 21.0, 22.0])
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))
    cpu = iter([1.0, 3.0, 4.0, 4.5])
    monkeypatch.setattr("time.process_time", lambda: next(cpu))
    console = Console(Verbosity.QUIET)
    with console.stage("a"):
        pass
    with console.stage("b"):
        pass
    assert console.seconds == {"a": 2.5, "b": 1.0}
    assert console.cpu_seconds == {"a": 2.0, "b": 0.5}


def test_a_stage_that_fails_is_not_reported_as_done() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError), Console(stream=stream).stage("train"):
        raise ValueError
    assert not stream.getvalue()


def test_a_bar_on_a_terminal(terminal: PseudoTerminal) -> None:
    speak(Console(Verbosity.NORMAL, terminal.stream))
    shown = terminal.shown()
    assert "━" in shown
    assert "\x1b[?25h" in shown.rpartition("━")[2], "the cursor must come back"
    assert "train: 0.0 s" in shown


def test_details_stand_above_the_bar_and_not_in_it(terminal: PseudoTerminal) -> None:
    speak(Console(Verbosity.VERBOSE, terminal.stream))
    lines = [line.rpartition("\x1b[2K")[2] for line in terminal.shown().splitlines()]
    assert [line for line in lines if "a detail" in line and "━" not in line]
    assert not [line for line in lines if "a detail" in line and "━" in line]


def test_no_bar_for_the_quiet(terminal: PseudoTerminal) -> None:
    speak(Console(Verbosity.QUIET, terminal.stream))
    terminal.stream.write("end")
    assert terminal.shown() == "end"


def test_a_reader_who_left_does_not_end_the_run() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        console = Console(Verbosity.NORMAL, stream)
        speak(console)
    assert said(console.lines) == EVERYTHING
