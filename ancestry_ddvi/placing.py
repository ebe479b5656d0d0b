"""New samples on the map of a model: read, matched, placed and called, some of them at a time.

What is held of a batch once it is placed are its features, its rows of the tables and the alleles
counted in each population, so that memory grows with these and not with the genotypes. Places do
not depend on the batches: to the last digit, where products of matrices round a row alike whatever
the number of rows, which they may not for a few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ancestry_ddvi.ancestry import AncestryCalls
from ancestry_ddvi.checkpoint import EmbeddingModel
from ancestry_ddvi.console import Console, say_genotypes
from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.errors import counted, first_few
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.loaders import ReadOptions
from ancestry_ddvi.loaders.batches import GenotypeBatches, UnequalBatchesError
from ancestry_ddvi.loaders.lists import VariantList
from ancestry_ddvi.loaders.read import NONE_CALLED
from ancestry_ddvi.preprocessing.alignment import OF_CALLS, OF_MAP, Matched, in_builds
from ancestry_ddvi.preprocessing.features import Features
from ancestry_ddvi.preprocessing.fst import PopulationAlleles
from ancestry_ddvi.reference_sites import UNKNOWN, unlike_build

AT_ONCE = 10_000
"""Samples read at a time: 250 MB of genotypes at the sites of the 1kg model."""

MIN_MATCHED = 0.5
"""A file with less of the model's variants is warned of."""

MIN_SEEN = 0.1
"""Of the genotypes that a whole genome gives with `absent_is_ref` at least such a share rests on
records: a sample is not homozygous for REF at about a third of common variants."""

MAX_SWAPPED = 0.05
"""A larger share of swapped alleles shows a file whose REF is not the model's."""


@dataclass(frozen=True)
class Placed:
    """Samples on the map of a model.

    Attributes
    ----------
    about
        The input, without its samples.
    features, table
        Of all samples, in the order of the input.
    known
        (n_samples,) bool: samples whose id is that of one the model was trained on.
    calls
        Ancestry calls, where the model has a labelled reference.
    alleles
        Counted in each population, where these are given.
    """

    about: GenotypeMatrix
    features: Features
    table: EmbeddingTable
    known: np.ndarray
    calls: AncestryCalls | None
    alleles: PopulationAlleles | None


@dataclass(frozen=True)
class Placer:
    """Reads a file for a model and places its samples.

    Attributes
    ----------
    model
        The model.
    paths, options
        The input, and what to read of it.
    absent_is_ref
        As in `alignment.match`.
    console
        Where progress goes.
    """

    model: EmbeddingModel
    paths: Sequence[Path]
    options: ReadOptions
    absent_is_ref: bool
    console: Console

    def read(self, at_once: int | None = None) -> GenotypeBatches:
        """Open the input and read its first batch, of `AT_ONCE` samples if not said otherwise."""
        with self.console.stage("read genotypes") as update:
            batches = GenotypeBatches(self.paths, self._options, at_once or AT_ONCE, update)
        say_genotypes(self.console, batches.about, len(batches.sample_id))
        if said := unlike_build(batches.about, self.options.region_builds):
            self.console.warn(said)
        return batches

    @property
    def _options(self) -> ReadOptions:
        # The model has chosen its chromosomes already.
        places = _places(self.model.tables)
        return replace(self.options, places=places, blocks=self.absent_is_ref, chr_set=None)

    def place(
        self,
        batches: GenotypeBatches,
        *,
        n_draws: int,
        seed: int,
        keep_draws: bool,
        population: pd.Series | None = None,
    ) -> Placed:
        """Place all samples.

        Parameters
        ----------
        batches
            From `read`.
        n_draws, seed, keep_draws
            As in `EmbeddingModel.embed_features`.
        population
            (n_samples,) labels, missing where unknown.

        Raises
        ------
        NotEnoughDataError
            If too few of the model's variants are in the input.
        """
        embed = partial(
            self.model.embed_features, n_draws=n_draws, seed=seed, keep_draws=keep_draws
        )
        try:
            return self._place(batches, embed, population)
        except UnequalBatchesError:
            self.console.warn(
                f"{batches.about.name}: a record is left out for some samples' genotypes, neither "
                "diploid nor haploid; all samples are read at once, so that it is for all"
            )
        return self._place(self.read(len(batches.sample_id)), embed, population)

    def _place(
        self,
        batches: GenotypeBatches,
        embed: Callable[[Features, np.ndarray], EmbeddingTable],
        population: pd.Series | None,
    ) -> Placed:
        model, caller, n = self.model, self.model.caller, len(batches.sample_id)
        alleles = None if population is None else PopulationAlleles(population)
        known = model.was_trained_on(batches.sample_id)
        features: list[Features] = []
        tables: list[EmbeddingTable] = []
        calls: list[AncestryCalls] = []
        by_rule: Counter[str] = Counter()
        n_uncalled = 0
        with self.console.stage("place the samples") as update:
            for rows, genotypes in batches:
                part = model.features(genotypes, absent_is_ref=self.absent_is_ref, n_all=n)
                features.append(part)
                tables.append(embed(part, genotypes.sample_id))
                if caller is not None:
                    calls.append(caller.call(genotypes, absent_is_ref=self.absent_is_ref))
                if alleles is not None:
                    alleles.add(genotypes, rows)
                if len(batches) > 1:
                    by_rule.update(genotypes.by_rule)
                    n_uncalled += NONE_CALLED in genotypes.notes
                    self.console.note(f"placed {rows.stop:,} of {counted(n, 'sample', 'samples')}")
                    update(rows.stop / n)
                del genotypes  # before the next batch is read
        for rule, count in by_rule.items():
            self.console.note(f"{rule}: {count:,}")
        if n_uncalled == len(batches):
            self.console.warn(NONE_CALLED)
        return Placed(
            batches.about,
            Features.concat(features),
            EmbeddingTable.concat(tables),
            known,
            AncestryCalls.concat(calls) if calls else None,
            alleles,
        )


def _places(tables: Iterable[pd.DataFrame]) -> VariantList:
    """Where a model's variants are, in either build; their alleles are matched later."""
    places = frozenset(
        f"{contig.upper()}:{position}"
        for variants in tables
        for sites in in_builds(variants).values()
        for contig, position in zip(sites.contig, sites.position, strict=True)
        if position > 0
    )
    return VariantList("the model", frozenset(), places, frozenset())


def say_matched(
    console: Console,
    about: GenotypeMatrix,
    matched: Matched | None,
    sites: Matched | None,
    absent_is_ref: bool,
) -> int:
    """Say what the file has of the map's variants and of the calls' sites; how many of the former
    are used."""
    assert matched is not None  # `transform` counts them
    console.note(f"{about.name}: {_of_build(matched)}")
    for name, found in ((OF_MAP, matched), (OF_CALLS, sites)):
        if found is not None:
            counts = [f"{n:,} {words}" for words, n in found.by_words().items() if n]
            console.note(f"{found.total:,} {name}: {', '.join(counts)}")
    if absent_is_ref:
        _say_reference(console, about, matched)
    if matched.used < MIN_MATCHED * matched.total:
        console.warn(
            f"{about.name}: only {matched.used:,} of the {matched.total:,} {OF_MAP} "
            f"({matched.used / matched.total:.0%}) are in the file; places are less certain, "
            "which z_sd says; impute the others if that is not enough"
        )
    return matched.used


def _of_build(matched: Matched) -> str:
    """Which genome build the file has, and what that means beside the model's."""
    own, build = matched.model_build, matched.build
    if matched.is_translated:
        return (
            f"positions are those of {build}, and the model's of {own}; variants that are sites "
            "of 1kg were looked for at their positions there"
        )
    if UNKNOWN not in (own, build):
        return f"positions are those of {build}, as the model's"
    theirs, ours = (
        "of a genome build that is not known" if name == UNKNOWN else f"those of {name}"
        for name in (build, own)
    )
    return f"positions are {theirs}, and the model's {ours}; they are taken as the model's"


def _say_reference(console: Console, about: GenotypeMatrix, matched: Matched) -> None:
    """What speaks against having taken absent variants for homozygous ones."""
    if matched.unseen:
        console.warn(
            f"{about.name}: no record on contig {first_few(matched.unseen, 3)} of the model; its "
            "variants there stay missing, and are not taken as homozygous for REF"
        )
    if matched.found < MIN_SEEN * matched.used:
        console.warn(
            f"{about.name}: --absent-is-ref takes {matched.reference:,} variants as homozygous "
            f"for REF, and the file has {matched.found:,}; calls over whole genomes have more, so "
            "if this is an array, a panel or an exome, leave the option out"
        )
    if matched.turned > MAX_SWAPPED * matched.found:
        console.warn(
            f"{about.name}: REF and ALT are swapped at {matched.turned:,} of "
            f"{matched.found:,} variants, so REF of model and file are not the same genome's, and "
            "--absent-is-ref may count the wrong allele; leave the option out"
        )
