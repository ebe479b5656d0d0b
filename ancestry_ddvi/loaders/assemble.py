"""From blocks of variants to one matrix, in little more memory than the matrix itself.

Files hold a variant after the other, and the matrix is laid out the same way (Fortran order of
(n_samples, n_variants)): a block is copied to the end of one growing buffer and is gone. The buffer
grows in place, by `realloc`, which moves no large block of memory. A variant that a filter drops is
dropped with its block.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ancestry_ddvi.genotypes import MISSING, NO_ALT, bare_contig
from ancestry_ddvi.loaders.options import ReadOptions
from ancestry_ddvi.loaders.sites import DUPLICATED, UNCALLED
from ancestry_ddvi.loaders.source import Block
from ancestry_ddvi.preprocessing.filters import VariantCounts
from ancestry_ddvi.preprocessing.hardy_weinberg import hardy_weinberg_p

_MIN_GROWTH = 2**22  # bytes
_GROWTH = 8  # by an eighth of what is held


def known_dosage(block: Block, options: ReadOptions) -> np.ndarray:
    """(n_rows, n_samples) int8 dosages of a block, as they are held."""
    if options.places is not None:
        alone = np.array([row[-1] == NO_ALT for row in block.rows], dtype=bool)
        if alone.any():  # what is there but the reference allele is not known
            return np.where(alone[:, None] & (block.dosage > 0), np.int8(MISSING), block.dosage)
    return block.dosage


@dataclass
class Assembler:
    """Filters blocks and puts those variants together that pass.

    Attributes
    ----------
    options
        The variant filters `geno`, `hwe` and `maf`, in this order, as plink2 has them.
    counted
        (n_samples,) bool: samples whose genotypes the filters look at; None for all.
    left_out
        Gets the number of variants that each filter took.
    """

    n_samples: int
    options: ReadOptions
    counted: np.ndarray | None
    left_out: Counter[str]
    _n_variants: int = 0
    _buffer: np.ndarray = field(init=False)
    _contig: list[str] = field(default_factory=list)
    _position: array[int] = field(default_factory=lambda: array("q"))
    _text: tuple[list[str], list[str], list[str]] = field(default_factory=lambda: ([], [], []))

    def __post_init__(self) -> None:
        self._buffer = np.empty((0, self.n_samples), dtype=np.int8)

    def add(self, block: Block) -> None:
        """Take what passes the filters of a block."""
        rows, dosage = block.rows, known_dosage(block, self.options)
        if (keep := self._filter(dosage)) is not None:
            rows = [row for row, kept in zip(rows, keep, strict=True) if kept]
            dosage = dosage[keep]
        end = self._n_variants + len(dosage)
        if end > len(self._buffer):
            step = max(len(self._buffer) // _GROWTH, _MIN_GROWTH // max(1, self.n_samples), 1)
            # Nobody else holds the buffer, so no reference is left behind.
            self._buffer.resize(
                (max(end, len(self._buffer) + step), self.n_samples), refcheck=False
            )
        self._buffer[self._n_variants : end] = dosage
        self._n_variants = end
        if rows:
            contig, position, *text = zip(*rows, strict=True)
            self._contig += contig
            self._position.extend(position)
            for column, values in zip(self._text, text, strict=True):
                column += values

    def _filter(self, dosage: np.ndarray) -> np.ndarray | None:
        """(n_rows,) bool: the variants to keep; None for all."""
        options = self.options
        if options.geno >= 1 and options.hwe <= 0 and options.maf <= 0:
            return None
        samples = dosage.T if self.counted is None else dosage.T[self.counted]
        counts = VariantCounts.of(samples)
        keep = np.ones(len(dosage), dtype=bool)

        def leave_out(reason: str, fails: np.ndarray) -> None:
            nonlocal keep
            if n := int(np.count_nonzero(fails & keep)):
                self.left_out[reason] += n
            keep = keep & ~fails

        leave_out(UNCALLED, counts.n_called == 0)
        if options.geno < 1:
            reason = f"more than {options.geno:g} of the genotypes missing"
            leave_out(reason, counts.n_missing > options.geno * counts.n_samples)
        if options.hwe > 0:
            n_het = np.count_nonzero(samples == 1, axis=0)
            n_alt = np.count_nonzero(samples == 2, axis=0)
            p = hardy_weinberg_p(counts.n_called - n_het - n_alt, n_het, n_alt)
            leave_out(f"Hardy-Weinberg p below {options.hwe:g}", p < options.hwe)
        if options.maf > 0:
            maf = np.nan_to_num(counts.maf, nan=0.0)
            leave_out(f"MAF below {options.maf:g}", maf < options.maf)
        return keep

    def finish(self) -> tuple[np.ndarray, pd.DataFrame]:
        """(n_samples, n_variants) dosage and the table of variants; a repeated site counts once.

        Those of a model are all kept: which to use is for whoever matches them.
        """
        names, refs, alts = self._text
        variants = pd.DataFrame(
            {
                "contig": pd.Series(self._contig, dtype="str"),
                "position": np.array(self._position, dtype=np.int64),
                "id": pd.Series(names, dtype="str"),
                "ref": pd.Series(refs, dtype="str"),
                "alt": pd.Series(alts, dtype="str"),
            }
        )
        # `1` and `chr1`, of two files, are one contig.
        sites = variants[["position", "ref", "alt"]].assign(
            contig=variants["contig"].map(bare_contig)
        )
        duplicated = sites.duplicated().to_numpy() & (self.options.places is None)
        n_kept = self._n_variants
        if n_duplicated := int(duplicated.sum()):
            self.left_out[DUPLICATED] += n_duplicated
            n_kept -= n_duplicated
            for to, at in enumerate(np.flatnonzero(~duplicated)):  # in place: no second buffer
                self._buffer[to] = self._buffer[at]
            variants = variants[~duplicated].reset_index(drop=True)
        self._buffer.resize((n_kept, self.n_samples), refcheck=False)
        return self._buffer.T, variants
