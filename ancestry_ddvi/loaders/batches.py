"""Genotypes of a part of the samples at a time, for whoever need not see all of them at once.

    batches = GenotypeBatches(paths, options, at_once)      # reads the first batch
    for genotypes in batches:                               # and one more at each step

Every batch is a pass over the files. What the samples of a batch are told by must not depend on who
else is in it, so all batches have the same variants, and `n_called` counts over all samples where
it chooses between variants at one position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from ancestry_ddvi.genotypes import GenotypeMatrix, bare_contig
from ancestry_ddvi.loaders.options import ReadOptions
from ancestry_ddvi.loaders.read import (
    NONE_CALLED,
    STANDARD_INPUT,
    Reading,
    match_samples,
    open_source,
    read_genotypes,
    rising,
    share,
)
from ancestry_ddvi.loaders.source import Progress


class UnequalBatchesError(Exception):
    """A record is left out for the sake of samples that are not in every batch."""


class GenotypeBatches:
    """Batches of samples, in the order of the input; to be gone through once.

    Attributes
    ----------
    sample_id, family_id
        (n_samples,) of all batches.
    about
        The input without its samples: variants, source, what was left out. `by_rule` and
        `NONE_CALLED` of the notes are known of each batch only, unless there is but one.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        options: ReadOptions,
        at_once: int | None,
        progress: Progress = lambda fraction: None,
    ) -> None:
        """Read the first batch.

        Parameters
        ----------
        paths, options
            As for `read_genotypes`.
        at_once
            Most samples of a batch; None for all. Standard input, which comes once, is read at
            once, and so is what has its variants filtered by genotypes, which all samples tell.
        progress
            Of the first batch.

        Raises
        ------
        InputError
            As `read_genotypes` raises it.
        """
        self._options = options
        self._reading: Reading | None = None
        self._n_called: np.ndarray | None = None
        filtered = options.maf > 0 or options.geno < 1 or options.hwe > 0
        if at_once is None or filtered or STANDARD_INPUT in map(str, paths):
            self._read_whole(paths, progress)
            return
        report = rising(progress)
        reading = match_samples([open_source(path) for path in paths], options)
        n_passes = 1 + (options.mind < 1)
        if options.mind < 1:
            reading.drop_badly_called(options, share(report, 0, n_passes))
        self.sample_id, self.family_id = reading.sample_id, reading.family_id
        n = len(self.sample_id)
        n_batches = -(-n // at_once)
        edges = [n * i // n_batches for i in range(n_batches + 1)]  # all of about the same size
        self._slices = [slice(*edge) for edge in pairwise(edges)]
        self._reading = reading
        first = self._read(self._slices[0], share(report, n_passes - 1, n_passes))
        if len(self) > 1 and _any_repeated(first):
            self._n_called = reading.count_called(options, lambda fraction: None)
        report(1.0)
        self._take(first)

    def _read_whole(self, paths: Sequence[Path], progress: Progress) -> None:
        genotypes = read_genotypes(paths, self._options, progress)
        self.sample_id, self.family_id = genotypes.sample_id, genotypes.family_id
        self._slices = [slice(None)]
        self._take(genotypes)

    def _take(self, first: GenotypeMatrix) -> None:
        self._first: GenotypeMatrix | None = first
        # By indices, which copy: a view would keep the genotypes of the batch.
        about = first.select(samples=np.zeros(0, dtype=int))
        if len(self) > 1:
            notes = tuple(note for note in about.notes if note != NONE_CALLED)
            about = replace(about, by_rule={}, notes=notes)
        self.about = about

    def __len__(self) -> int:
        return len(self._slices)

    def __iter__(self) -> Iterator[tuple[slice, GenotypeMatrix]]:
        """Yield each batch and which of the samples it is.

        Raises
        ------
        UnequalBatchesError
            If one has not the variants of the first.
        """
        for rows in self._slices:
            genotypes, self._first = self._first, None
            if genotypes is None:
                genotypes = self._read(rows)
            yield rows, self._checked(genotypes)
            del genotypes  # before the next is read

    def _read(self, rows: slice, progress: Progress = lambda fraction: None) -> GenotypeMatrix:
        assert self._reading is not None
        return self._reading.part(rows).read(self._options, None, progress)

    def _checked(self, genotypes: GenotypeMatrix) -> GenotypeMatrix:
        if not genotypes.variants.equals(self.about.variants):
            raise UnequalBatchesError
        if self._n_called is None:
            return genotypes
        if len(self._n_called) != genotypes.n_variants:
            raise UnequalBatchesError
        return replace(genotypes, n_called=self._n_called)


def _any_repeated(genotypes: GenotypeMatrix) -> bool:
    """Whether any two variants are at one position."""
    places = genotypes.variants[["position"]].assign(
        contig=genotypes.variants["contig"].map(bare_contig)
    )
    return bool(places.duplicated().any())
