"""Sources that behave badly, for a child process to import: little else may be imported here."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator

import numpy as np

from ancestry_ddvi.errors import GenotypeFileError, OptionError
from ancestry_ddvi.loaders.sites import INDEL
from ancestry_ddvi.loaders.source import HAPLOID, Block, Progress, Selection, Source


class Steady(Source):
    """Well-behaved: `n_blocks` blocks of `n_rows` variants of `n_samples` samples."""

    def __init__(self, path: str, n_blocks: int = 3, n_rows: int = 4, n_samples: int = 5) -> None:
        self.path = path
        self.format = "steady"
        self.shape = n_blocks, n_rows, n_samples
        self.sample_id = tuple(f"S{i}" for i in range(n_samples))
        self.family_id = ("F",) * n_samples

    def dosage(self, block: int) -> np.ndarray:
        _, n_rows, n_samples = self.shape
        rng = np.random.default_rng(block)
        return rng.integers(-1, 3, (n_rows, n_samples)).astype(np.int8)

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        n_blocks, n_rows, _ = self.shape
        for number in range(n_blocks):
            print("printed by Python")
            os.write(1, b"printed by a library\n")
            self.misbehave(number)
            rows = [("1", 1 + n_rows * number + i, ".", "A", "C") for i in range(n_rows)]
            selection.sites.left_out[INDEL] += 1
            selection.calls.by_rule[HAPLOID] += 2
            dosage = self.dosage(number)
            yield Block(rows, dosage if selection.samples is None else dosage[:, selection.samples])
            report((number + 1) / n_blocks)

    def misbehave(self, number: int) -> None:
        """Before block `number`."""

    def sha256(self) -> str:
        return "ab" * 32


class Segfault(Steady):
    def misbehave(self, number: int) -> None:
        if number == 1:
            sys.stderr.write("about to read address 0\n")
            sys.stderr.flush()
            ctypes.string_at(0)


class SegfaultOnOpening(Steady):
    def __init__(self, path: str) -> None:
        ctypes.string_at(0)


class Exit(Steady):
    def misbehave(self, number: int) -> None:
        if number == 1:
            os._exit(3)


class ExitZero(Steady):
    def misbehave(self, number: int) -> None:
        if number == 1:
            os._exit(0)


class Abort(Steady):
    def misbehave(self, number: int) -> None:
        if number == 1:
            os.abort()


class Killed(Steady):
    def misbehave(self, number: int) -> None:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class Refuse(Steady):
    def misbehave(self, number: int) -> None:
        if number == 1:
            raise GenotypeFileError(f"{self.path}: record 5 is bad; mend it")


class RefuseOnOpening(Steady):
    def __init__(self, path: str) -> None:
        raise OptionError(f"{path}: not so")


class Fail(Steady):
    def misbehave(self, number: int) -> None:
        if number == 1:
            raise ZeroDivisionError("our fault")


class Sleep(Steady):
    def misbehave(self, number: int) -> None:
        if number == 1:
            time.sleep(3600)


class Spin(Steady):
    """Lost in native code that holds the interpreter's lock."""

    def misbehave(self, number: int) -> None:
        if number == 1:
            ctypes.PyDLL(None).sleep(3600)


class Chatter(Steady):
    """Prints more than a pipe holds."""

    def misbehave(self, number: int) -> None:
        for _ in range(300):
            os.write(2, b"x" * 1000 + b"\n")
        if number == 1:
            os.write(2, b"the last line\n\n")
            os.abort()


class Wanted(Steady):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.format = " ".join(sorted({"pandas", "torch", "numpy", "scipy"} & set(sys.modules)))
