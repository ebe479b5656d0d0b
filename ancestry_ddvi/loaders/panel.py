"""Label tables ("panel files"): who belongs to which population, joined by sample id."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ancestry_ddvi.errors import LabelFileError
from ancestry_ddvi.loaders.containers import COPY_AGAIN, CheckedFile

ID_COLUMNS = ("sample", "sample_id", "iid", "id", "sample name", "individual", "individual id", "s")
"""Header names taken for the sample id, in any case and punctuation; the first that occurs wins."""

# Names of the two usual levels, as `_plain` leaves them.
_FINE_NAMES = (
    "pop",
    "population",
    "populationcode",
    "populationname",
    "populationid",
    "subpop",
    "subpopulation",
)
_COARSE_NAMES = (
    "superpop",
    "superpopulation",
    "superpopulationcode",
    "superpopulationname",
    "region",
    "continent",
    "continentalgroup",
)

# Columns of pedigrees, PLINK files and sample sheets whose values repeat and are no population:
# families, parents, relations, phenotypes.
_NO_LEVELS = frozenset(
    (
        *("fid", "family", "familyid", "pat", "father", "fatherid", "paternalid"),
        *("mat", "mother", "motherid", "maternalid", "relationship", "siblings"),
        *("secondorder", "thirdorder", "children", "othercomments", "sid"),
        *("phenotype", "pheno", "affectionstatus", "status"),
    )
)

_DELIMITERS = ("\t", ",", ";")


@dataclass(frozen=True)
class LabelTable:
    """Labels of the samples of a genotype file.

    Attributes
    ----------
    frame
        (n_samples, n_labels), indexed by sample id in the order of the genotypes: str columns,
        missing where the field is empty or the sample has no row.
    missing
        Sample ids of the genotypes that have no row.
    extra
        Sample ids of the table that are not in the genotypes.
    path, sha256
        The file and the checksum of its bytes.
    """

    frame: pd.DataFrame
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    path: str
    sha256: str


def read_labels(
    path: str | os.PathLike[str],
    sample_id: Sequence[str] | np.ndarray,
    id_column: str | None = None,
) -> LabelTable:
    """Read a table of labels and join it to samples.

    The header tells what separates columns: tabs if it has any, else commas, else semicolons (as
    spreadsheets write in much of Europe), else blanks. Every field stays the text that it is
    (`001`, `NA` and `1e5` too), less the blanks around it; only an empty one is missing.

    Parameters
    ----------
    path
        The table, with a header line; UTF-8, may be gzip-compressed. Lines before the header that
        start with `##` are passed over.
    sample_id
        (n_samples,) ids of the genotypes, whose order the result takes.
    id_column
        The column of sample ids; by default the first of `ID_COLUMNS` that occurs.

    Raises
    ------
    LabelFileError
        If the file cannot be read as such a table, a sample has two rows, there is no label
        column, or no id is in common.
    """
    file = CheckedFile(path, LabelFileError)
    header, rows = _parse(file, _decode(file))
    at = _find_id_column(file, header, id_column)
    if len(header) == 1:
        raise file.fail(
            f"has no label column beside the id column {header[at]!r}; add one, such as 'pop'"
        )
    by_id = _by_id(file, rows, at)
    wanted = [str(sample) for sample in sample_id]
    genotyped = set(wanted)
    if genotyped.isdisjoint(by_id):
        raise file.fail(
            f"no sample id in common with the genotypes: column {header[at]!r} has ids like "
            f"{next(iter(by_id))!r}, the genotypes like {wanted[0]!r}; use the same ids in both, "
            "or name the right id column"
        )
    return LabelTable(
        frame=_frame(header, at, by_id, wanted),
        missing=tuple(sample for sample in wanted if sample not in by_id),
        extra=tuple(sample for sample in by_id if sample not in genotyped),
        path=file.path,
        sha256=file.sha256,
    )


def label_levels(
    labels: LabelTable, population: str | None = None, superpopulation: str | None = None
) -> tuple[str | None, str | None]:
    """Find the columns of the population (fine) and the superpopulation (coarse).

    Columns that are named here are taken as they are. For the others known names decide. A column
    of another name is taken only if it nests with a known one (each fine value lies in one coarse
    value, which are fewer), or if no name is known; then it must have 2 to n/2 distinct values that
    are not all numbers. Columns of sex, families, parents and phenotypes, or without a value that
    repeats, are no levels.

    Of several columns of known names the one that misses fewest labels is taken. A name may stand
    behind a prefix, as gnomAD's `hgdp_tgp_meta.Population`; of several such the finest, or the
    coarsest, is.

    Returns
    -------
    fine, coarse
        Column names; None where there is no such column. A single level is the fine one.

    Raises
    ------
    LabelFileError
        If a column named here does not exist.
    """
    frame = labels.frame
    for name in (population, superpopulation):
        if name is not None and name not in frame.columns:
            found = ", ".join(repr(c[:40]) for c in frame.columns[:10])
            more = ", ..." if len(frame.columns) > 10 else ""
            raise LabelFileError(
                f"{labels.path}: line 1: no label column {name!r}, only {found}{more}; "
                "name one of them"
            )
    # A known name counts even where no value repeats: a few samples, each of its own population.
    levels = frame[[c for c in frame.columns if not _is_no_level(c) and frame[c].nunique() > 1]]
    named_fine = _named(levels, _FINE_NAMES, finest=True)
    named_coarse = _named(levels, _COARSE_NAMES, finest=False)
    usable = [c for c in levels.columns if _repeats(frame[c])]
    suitable = [c for c in usable if c not in named_coarse and _is_categorical(frame[c])]
    by_count = sorted(suitable, key=lambda c: frame[c].nunique(), reverse=True)
    if superpopulation is not None:
        named_coarse = [superpopulation]
    finer = [c for c in by_count if any(_is_coarsening(frame[c], frame[d]) for d in named_coarse)]
    fine = population or next(
        iter(named_fine + finer + named_coarse + by_count * (not named_coarse)), None
    )
    if fine is None:
        return None, None
    if superpopulation is not None:
        return fine, superpopulation if superpopulation != fine else None
    # Among columns without a known name the one with the fewest values is the coarsest.
    candidates = named_coarse + by_count[::-1]
    return fine, next((c for c in candidates if _is_coarsening(frame[fine], frame[c])), None)


# Reading.


def _decode(file: CheckedFile) -> str:
    pieces = file.text()
    data = next(pieces, b"")
    if data.startswith((b"##fileformat", b"BCF\x02")):
        raise file.fail("is a genotype file, not a table of labels; give the labels' own file")
    data += b"".join(pieces)
    if (at := data.find(b"\0")) >= 0 and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        number = data.count(b"\n", 0, at) + 1
        raise file.fail(f"line {number} holds a NUL byte, so it is damaged; {COPY_AGAIN}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise file.fail(
            f"byte {fault.start} of its text, {data[fault.start : fault.end]!r}, is not UTF-8; "
            "save the table as UTF-8 text"
        ) from fault


def _parse(file: CheckedFile, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Split into the header's names and (line number, fields) of every row."""
    stream = io.StringIO(text, newline="")
    first_line, n_above = stream.readline(), 0
    while first_line.startswith("##"):
        first_line, n_above = stream.readline(), n_above + 1
    if not first_line.strip():
        raise file.fail(f"line {n_above + 1} is empty; it must name the columns")
    delimiter = next((d for d in _DELIMITERS if d in first_line), " ")
    reader = csv.reader(
        itertools.chain([first_line], stream),
        delimiter=delimiter,
        skipinitialspace=delimiter == " ",  # so that several blanks separate as one does
        strict=True,
    )
    rows: list[tuple[int, list[str]]] = []
    header: list[str] = []
    try:
        header = _header(file, n_above + 1, next(reader))
        for fields in reader:
            if fields:  # a blank line is none
                number = n_above + reader.line_num
                rows.append((number, _fit(file, number, fields, header)))
    except csv.Error as fault:
        raise file.fail(f"line {n_above + reader.line_num}: {fault}; correct the quotes") from fault
    if not rows:
        raise file.fail("has a header but no rows; add a row for each sample")
    return header, rows


def _header(file: CheckedFile, number: int, fields: list[str]) -> list[str]:
    names = [name.strip() for name in fields]
    while names and not names[-1]:  # the 1000 Genomes panel's header ends with two tabs
        names.pop()
    for column, name in enumerate(names, start=1):
        if not name:
            raise file.fail(f"line {number}: column {column} has no name; name it")
        if name in names[: column - 1]:
            raise file.fail(f"line {number}: two columns are named {name!r}; rename one")
    return names


def _fit(file: CheckedFile, number: int, fields: list[str], header: list[str]) -> list[str]:
    """A row without the empty fields that trail the header's columns."""
    n_columns = len(header)
    if len(fields) < n_columns or any(field.strip() for field in fields[n_columns:]):
        raise file.fail(
            f"line {number} has {len(fields)} fields, not {n_columns} as the header; correct it"
        )
    return [field.strip() for field in fields[:n_columns]]


def _find_id_column(file: CheckedFile, header: list[str], id_column: str | None) -> int:
    if id_column in header:
        return header.index(id_column)
    if id_column is not None:
        lowered, accepted = [name.lower() for name in header], [id_column.strip().lower()]
    else:
        lowered, accepted = [_plain(name) for name in header], [_plain(c) for c in ID_COLUMNS]
    for name in accepted:
        if name in lowered:
            return lowered.index(name)
    wanted = f"column {id_column!r}" if id_column else "column of sample ids"
    found = ", ".join(repr(name[:40]) for name in header[:10])
    more = ", ..." if len(header) > 10 else ""
    remedy = "name one of them" if id_column else "call it 'sample', or name the id column"
    raise file.fail(
        f"has no {wanted}, only {found}{more} (columns are separated by tabs, else commas, else "
        f"semicolons, else blanks); {remedy}"
    )


def _by_id(file: CheckedFile, rows: list[tuple[int, list[str]]], at: int) -> dict[str, list[str]]:
    line_of: dict[str, int] = {}
    by_id: dict[str, list[str]] = {}
    for number, fields in rows:
        sample = fields[at]
        if not sample:
            raise file.fail(f"line {number} has an empty sample id; fill it in or remove the line")
        if sample in by_id:
            differ = "identical" if fields == by_id[sample] else "different"
            raise file.fail(
                f"lines {line_of[sample]} and {number} are both of sample {sample!r}, with "
                f"{differ} labels; remove one"
            )
        line_of[sample], by_id[sample] = number, fields
    return by_id


def _frame(
    header: list[str], at: int, by_id: dict[str, list[str]], wanted: list[str]
) -> pd.DataFrame:
    no_row = [""] * len(header)
    rows = [by_id.get(sample, no_row) for sample in wanted]
    columns = {
        name: pd.Series([row[column] or None for row in rows], dtype="str")
        for column, name in enumerate(header)
        if column != at
    }
    return pd.DataFrame(columns).set_axis(pd.Index(wanted, name="sample_id"))


# Levels.


def _plain(column: str) -> str:
    """A column's name without case, spaces and punctuation."""
    return "".join(character for character in column.lower() if character.isalnum())


def _is_no_level(column: str) -> bool:
    plain = _plain(column)
    return plain in _NO_LEVELS or plain.endswith(("sex", "gender"))


def _named(frame: pd.DataFrame, names: tuple[str, ...], *, finest: bool) -> list[str]:
    """The columns of these names, the best first; those whose name has a prefix at the end."""
    known = (*_FINE_NAMES, *_COARSE_NAMES)
    whole = [c for c in frame.columns if _plain(c) in names]
    behind_prefix = [
        c
        for c in frame.columns
        if _plain(c) not in known and "." in c and _plain(c.rpartition(".")[2]) in names
    ]
    whole.sort(key=lambda c: frame[c].isna().sum())
    sign = -1 if finest else 1
    behind_prefix.sort(key=lambda c: (frame[c].isna().sum(), sign * frame[c].nunique()))
    return whole + behind_prefix


def _repeats(values: pd.Series) -> bool:
    return 2 <= values.nunique() < values.count()


def _is_categorical(values: pd.Series) -> bool:
    present = values.dropna()
    if not 2 <= present.nunique() <= len(present) / 2:
        return False
    return bool(pd.to_numeric(present, errors="coerce").isna().any())


def _is_coarsening(fine: pd.Series, coarse: pd.Series) -> bool:
    pairs = pd.DataFrame({"fine": fine, "coarse": coarse}).dropna()
    one_each = pairs.groupby("fine")["coarse"].nunique() == 1
    return bool(one_each.all()) and 2 <= pairs["coarse"].nunique() < pairs["fine"].nunique()
