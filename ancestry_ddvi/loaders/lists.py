"""Lists in text files: samples to keep or remove, variants to extract or exclude."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ancestry_ddvi.errors import OptionError
from ancestry_ddvi.genotypes import bare_contig
from ancestry_ddvi.loaders.containers import CheckedFile, iter_lines

Ids = Sequence[str] | np.ndarray

_NO_FAMILY = "0"  # PLINK's FID of a sample that has none


def numbered_lines(file: CheckedFile) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of the lines of a file that are not blank.

    A byte-order mark and the blanks around a line, carriage return included, are no part of it.

    Raises
    ------
    InputError
        Of the file's type: it is damaged, or a line is not UTF-8 or holds a carriage return.
    """
    for number, line in enumerate(iter_lines(file.text()), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as fault:
            raise file.fail(
                f"line {number}: {fault.object[fault.start : fault.end]!r} is not UTF-8; save the "
                "list as UTF-8 text"
            ) from fault
        if "\r" in text or "\0" in text:
            raise file.fail(
                f"line {number} holds a control character; save the list as text, one entry a line"
            )
        if text:
            yield number, text


@dataclass(frozen=True)
class SampleList:
    """Samples that a file names.

    Attributes
    ----------
    path
        The file.
    entries
        (family id or None, sample id) of each, without repeats, in the order of the file. PLINK's
        family id `0` stands for none, and matches samples that have none.
    """

    path: str
    entries: tuple[tuple[str | None, str], ...]

    def __len__(self) -> int:
        return len(self.entries)

    def select(self, sample_id: Ids, family_id: Ids | None = None) -> np.ndarray:
        """(n_samples,) bool: which samples are named.

        Where the list and the samples have family ids, both must match; else the sample id alone.
        """
        named = self._keys(family_id is not None)
        keys = self._keys_of(sample_id, family_id)
        return np.fromiter((key in named for key in keys), dtype=bool, count=len(sample_id))

    def absent(self, sample_id: Ids, family_id: Ids | None = None) -> tuple[str, ...]:
        """Those named that are not among the samples: `IID`, or `FID IID` where both must match."""
        present = set(self._keys_of(sample_id, family_id))
        return tuple(
            " ".join(key) for key in self._keys(family_id is not None) if key not in present
        )

    def _keys(self, with_family: bool) -> dict[tuple[str, ...], None]:
        """What is compared, in order; a dict is a set that keeps it."""
        if with_family:
            return {(iid,) if fid is None else (fid, iid): None for fid, iid in self.entries}
        return {(iid,): None for _, iid in self.entries}

    def _keys_of(self, sample_id: Ids, family_id: Ids | None) -> list[tuple[str, ...]]:
        if family_id is None or not self._has_families:
            return [(str(iid),) for iid in sample_id]
        pairs = zip(family_id, sample_id, strict=True)
        return [(str(fid) or _NO_FAMILY, str(iid)) for fid, iid in pairs]

    @property
    def _has_families(self) -> bool:
        return self.entries[0][0] is not None


def read_samples(path: str | os.PathLike[str]) -> SampleList:
    """Read a list of samples: an IID a line, or FID and IID, as plink2's --keep takes them.

    The first line tells which; columns after these are passed over, so a .fam and a .psam are such
    lists too. Of lines that start with `#`, `#IID` and `#FID IID` say what the columns are; the
    others are passed over.

    Raises
    ------
    OptionError
        If the file cannot be read, names nobody, or a line lacks a column.
    """
    file = CheckedFile(path, OptionError)
    with_family: bool | None = None
    from_header = False
    entries: dict[tuple[str | None, str], None] = {}
    for number, line in numbered_lines(file):
        fields = line.split()
        if line.startswith("#"):
            if fields[0].upper() in ("#FID", "#IID") and not entries:
                with_family, from_header = fields[0].upper() == "#FID", True
            continue
        if with_family is None:
            with_family = len(fields) > 1
        if with_family and len(fields) < 2:
            raise file.fail(
                f"line {number}: {fields[0]!r} stands alone, where the lines before have a family "
                "id and a sample id; give both in every line, or the sample id alone"
            )
        if not with_family and len(fields) > 1 and not from_header:
            raise file.fail(
                f"line {number}: {line[:60]!r} has {len(fields)} columns, where the lines before "
                "have one; give a family id and a sample id in every line, or the sample id alone"
            )
        entries[(fields[0], fields[1]) if with_family else (None, fields[0])] = None
    if not entries:
        raise file.fail("names no sample; give one sample id a line")
    return SampleList(file.path, tuple(entries))


@dataclass(frozen=True)
class VariantList:
    """Variants that a file names, by id, by place, or by place and alleles.

    Attributes
    ----------
    path
        The file.
    ids
        Every entry as it stands, since `1:752566:G:A` is an id in many files.
    places
        `contig:position` of those whose alleles do not matter, with the contig's plain name.
    alleles
        `contig:position:allele:allele`, the contig likewise and the alleles sorted.
    """

    path: str
    ids: frozenset[str]
    places: frozenset[str]
    alleles: frozenset[str]

    def __len__(self) -> int:
        return len(self.ids)

    def names(self, contig: str, position: int, name: str, ref: str, alts: Sequence[str]) -> bool:
        """Whether a variant is named: its id, its place, or its place and one of its ALT alleles.

        Contigs are compared by their plain names, alleles in either order and any case.
        """
        if name in self.ids:
            return True
        if not (self.places or self.alleles):
            return False
        place = f"{bare_contig(contig).upper()}:{position}"
        if place in self.places:
            return True
        return bool(self.alleles) and any(_key(place, ref, alt) in self.alleles for alt in alts)


def read_variants(path: str | os.PathLike[str]) -> VariantList:
    """Read a list of variants, one a line: `rs123`, `1:752566` or `1:752566:G:A`.

    Of several columns the first is taken, or the first two if they are a chromosome and a position;
    lines that start with `#` are passed over.

    Raises
    ------
    OptionError
        If the file cannot be read or names no variant, or an entry is `.`.
    """
    file = CheckedFile(path, OptionError)
    ids: set[str] = set()
    places: set[str] = set()
    alleles: set[str] = set()
    for number, line in numbered_lines(file):
        if line.startswith(("##fileformat", "#CHROM")):
            raise file.fail(
                f"line {number}: is a table of variants, not a list; give their ids, or "
                "contig:position, one a line"
            )
        if line.startswith("#"):
            continue
        entry, *rest = line.split(maxsplit=2)
        if rest and bare_contig(entry).isdigit():  # a table that starts with the chromosome
            if not is_number(rest[0]):
                raise file.fail(
                    f"line {number}: {entry!r} is a chromosome and no variant; give ids, or "
                    "contig:position, one a line"
                )
            entry = f"{entry}:{rest[0]}"
        if entry == ".":
            raise file.fail(
                f"line {number}: '.' is the id of every variant without one; give contig:position"
            )
        ids.add(entry)
        contig, *rest = entry.split(":")
        if contig and len(rest) in (1, 3) and is_number(rest[0]):
            place = f"{bare_contig(contig).upper()}:{int(rest[0])}"
            if len(rest) == 1:
                places.add(place)
            else:
                alleles.update(_key(place, rest[1], alt) for alt in rest[2].split(","))
    if not ids:
        raise file.fail("names no variant; give one id, or contig:position, a line")
    return VariantList(file.path, frozenset(ids), frozenset(places), frozenset(alleles))


def is_number(text: str) -> bool:
    """Whether a text is a whole number in ASCII digits, and not one that `int` refuses to read."""
    return text.isascii() and text.isdigit() and len(text) < 20


def _key(place: str, one: str, other: str) -> str:
    one, other = one.upper(), other.upper()
    return f"{place}:{one}:{other}" if one < other else f"{place}:{other}:{one}"
