"""Labels of samples: which file and columns, and what of them is learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.checkpoint import EmbeddingModel
from ancestry_ddvi.console import Console
from ancestry_ddvi.ddvi.model import ModelConfig
from ancestry_ddvi.ddvi.supervision import UNLABELLED, check_enough
from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.errors import LabelFileError, OptionError, first_few
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.loaders import LabelTable, label_levels, read_labels
from ancestry_ddvi.loaders.containers import CheckedFile

NOT_A_LABEL = {"NA", "N/A", "n/a", "na", "NaN", "nan", "None", "none", "NULL", "null", ".", "-9"}
"""What other programs write where a label is not known; as a class to learn it is a mistake."""


@dataclass(frozen=True)
class LabelChoice:
    """Which file of labels is wanted, if any, and its columns, found by name if not given."""

    path: Path | None
    id_column: str | None = None
    population: str | None = None
    superpopulation: str | None = None

    def __post_init__(self) -> None:
        if self.path is None and (self.id_column or self.population or self.superpopulation):
            raise OptionError("a label column is named but no file of labels; give --labels TSV")

    def check(self) -> None:
        """Raise LabelFileError if there is no such file."""
        if self.path is not None:
            CheckedFile(self.path, LabelFileError)

    def read(self, sample_id: np.ndarray, console: Console) -> SampleLabels:
        """The labels of these samples; which file and columns they come from is said."""
        if self.path is None:
            return SampleLabels()
        table = read_labels(self.path, sample_id, self.id_column)
        if table.missing:
            console.warn(
                f"{self.path}: no row for {len(table.missing):,} of {len(sample_id):,} samples "
                f"({first_few(table.missing)}); they are embedded and left out of label metrics"
            )
        if table.extra:
            console.note(
                f"{self.path}: {len(table.extra):,} rows have no genotypes "
                f"({first_few(table.extra)})"
            )
        labels = SampleLabels(table, label_levels(table, self.population, self.superpopulation))
        if any(labels.levels):
            console.note(f"labels: {labels.words}")
        else:
            console.warn(
                f"{table.path}: no column looks like a population, so nothing is scored against "
                "labels; name one with --population-column"
            )
        return labels


@dataclass(frozen=True)
class SampleLabels:
    """Labels of the samples of a run, if there are any.

    Attributes
    ----------
    table
        All columns, in the samples' order.
    levels
        Names of the columns of populations and of superpopulations.
    """

    table: LabelTable | None = None
    levels: tuple[str | None, str | None] = (None, None)

    @property
    def population(self) -> pd.Series | None:
        """(n_samples,) the fine level, missing where unknown."""
        return self._values(self.levels[0])

    @property
    def superpopulation(self) -> pd.Series | None:
        """(n_samples,) the coarse level, missing where unknown."""
        return self._values(self.levels[1])

    def _values(self, column: str | None) -> pd.Series | None:
        if self.table is None or column is None:
            return None
        return self.table.frame[column].reset_index(drop=True)

    @property
    def words(self) -> str:
        """Which columns the levels are."""
        named = ((level, name) for level, name in self._columns.items() if name is not None)
        return ", ".join(f"{level} = column {name!r}" for level, name in named)

    @property
    def _columns(self) -> dict[str, str | None]:
        return dict(zip(("population", "superpopulation"), self.levels, strict=True))

    def describe(self) -> dict[str, Any] | None:
        """File and columns, for the record."""
        if self.table is None:
            return None
        return {
            "path": self.table.path,
            "sha256": self.table.sha256,
            "columns": self._columns,
            "samples without a row": len(self.table.missing),
            "rows without genotypes": len(self.table.extra),
        }

    def beside(self, table: EmbeddingTable) -> EmbeddingTable:
        """The table of the same samples, with all columns of labels."""
        if self.table is None:
            return table
        return table.with_labels(_without_clashes(self.table.frame, table))

    def to_learn_from(
        self, supervise: str | None, drawn: np.ndarray, shape: ModelConfig
    ) -> pd.Series | None:
        """The column of labels that a model of this shape is to learn from, if any.

        Parameters
        ----------
        supervise
            Its name, "" for that of the population; None if no labels are learnt from.
        drawn
            (n_samples,) bool: samples that may be learnt from.

        Raises
        ------
        InputError
            If there is no such column, or no model learns from its labels of the samples drawn.
        """
        if self.table is None or supervise is None:
            return None
        column = supervise or self.levels[0]
        if column is None:
            raise OptionError(
                f"{self.table.path}: no column looks like a population; name the one to learn "
                "from, --supervise COLUMN"
            )
        label_levels(self.table, column)  # which says so if there is no such column
        taught = self.table.frame[column]
        if unknown := sorted(NOT_A_LABEL & set(taught.dropna().astype(str))):
            raise OptionError(
                f"{self.table.path}: column {column!r} has the label {unknown[0]!r}, which would "
                "be a class of its own; leave the field empty where a label is not known, or "
                "write it out"
            )
        check_taught(taught, drawn, shape, f"{self.table.path}: column {column!r}")
        return taught

    def learnt_before(self, model: EmbeddingModel, console: Console) -> pd.Series | None:
        """Say that a loaded model learnt from labels; the same column here, if there is one."""
        supervision, classes = model.provenance.get("supervision"), model.model.config.classes
        if not classes or not isinstance(supervision, dict):
            return None
        console.warn(supervised_words(supervision, len(classes)))
        return None if self.table is None else self.table.frame.get(supervision.get("column"))


def _without_clashes(frame: pd.DataFrame, table: EmbeddingTable) -> pd.DataFrame:
    """A label column named like one of ours would make two columns of one name."""
    taken = {*table.frame.columns, *frame.columns}
    names = {}
    for column in frame.columns:
        if column in table.frame.columns:
            name = f"label_{column}"
            while name in taken:
                name = f"label_{name}"
            names[column] = name
            taken.add(name)
    return frame.rename(columns=names)


def check_order(labels: pd.Series, genotypes: GenotypeMatrix) -> None:
    """Raise OptionError unless there is a label a sample, in the samples' order."""
    if not isinstance(labels, pd.Series) or len(labels) != genotypes.n_samples:
        n = len(labels) if hasattr(labels, "__len__") else 0
        raise OptionError(
            f"labels: {n} of type {type(labels).__name__}; give a pandas Series of one for each of "
            f"{genotypes.n_samples} samples"
        )
    if isinstance(labels.index, pd.RangeIndex):
        return
    if list(map(str, labels.index)) != list(map(str, genotypes.sample_id)):
        raise OptionError(
            "labels: their index is not the sample ids in the samples' order; reindex them by "
            "genotypes.sample_id, or reset_index if they are in that order"
        )


def check_taught(labels: pd.Series, drawn: np.ndarray, shape: ModelConfig, where: str) -> None:
    """Refuse before anything is learnt the labels of the samples drawn (n_samples,) bool that no
    model learns from, and say where they are."""
    try:
        classes, _ = classes_of(labels.to_numpy()[drawn])
        check_enough(replace(shape, classes=classes).n_prior_clusters, len(classes))
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from error


def classes_of(labels: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the classes, and the number of each sample's, -1 where it has no label."""
    known = pd.notna(labels)
    classes, number = np.unique(labels[known].astype(str), return_inverse=True)
    if not len(classes):
        raise OptionError(
            "no sample to learn from has a label; fill some in, or learn without labels (leave "
            "--supervise out)"
        )
    label = np.full(len(labels), UNLABELLED)
    label[known] = number
    return tuple(classes.tolist()), label


def supervised_words(supervision: Mapping[str, Any], n_classes: int) -> str:
    """What a reader of map and metrics must know first."""
    return (
        f"supervised: the labels of {supervision['n_labelled']:,} training samples (column "
        f"{supervision['column']!r}, {n_classes} classes) were learnt from; map and in-sample "
        "metrics are not unsupervised"
    )
