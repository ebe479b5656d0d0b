"""The genotype matrix that every reader returns and every later stage takes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ancestry_ddvi.errors import GenotypeFileError

if TYPE_CHECKING:
    import pandas as pd

MISSING = -1
"""Dosage code of a genotype that was not called."""

NO_ALT = "."
"""ALT of a variant of which the input has the reference allele alone."""

NO_REF = "N"
"""REF inside a reference block of a gVCF, which does not say it."""

VARIANT_COLUMNS = ("contig", "position", "id", "ref", "alt")


# RefSeq and GenBank accessions of the human chromosomes, of every build: NC_000001.11, CM000663.2.
_ACCESSION = re.compile(r"(NC_0000|CM000)(\d{2,3})(\.\d+)?", re.IGNORECASE)
_FIRST_ACCESSION = {"NC_0000": 1, "CM000": 663}
_MITOCHONDRION = re.compile(r"(NC_012920|J01415)(\.\d+)?", re.IGNORECASE)
_LETTERS = {23: "X", 24: "Y"}


@lru_cache(maxsize=4096)
def bare_contig(contig: str) -> str:
    """The plain name of a contig: `1` for `chr1`, `CHR01`, `NC_000001.11` and `CM000663.2`.

    Names that are none of these stay as they are.
    """
    if contig[:3].lower() == "chr":
        contig = contig[3:]
    if contig.isascii() and contig.isdigit():
        return contig.lstrip("0") or "0"
    if contig.upper() == "M":
        return "MT"
    if match := _ACCESSION.fullmatch(contig):
        number = int(match[2]) - _FIRST_ACCESSION[match[1].upper()] + 1
        if 1 <= number <= 24:
            return _LETTERS.get(number, str(number))
    return "MT" if _MITOCHONDRION.fullmatch(contig) else contig


@dataclass(frozen=True)
class Seen:
    """Where an input has records, those that were left out included.

    Attributes
    ----------
    contigs
        Plain names.
    places
        Contig (by its plain name) and position, of a model's places if it was read for one; else
        empty.
    within
        Whether a contig and position is in the regions that were asked for; None where all were.
    """

    contigs: set[str] = field(default_factory=set)
    places: set[tuple[str, int]] = field(default_factory=set)
    within: Callable[[str, int], bool] | None = None

    def update(self, other: Seen) -> None:
        """Add what another has seen."""
        self.contigs.update(other.contigs)
        self.places.update(other.places)


@dataclass(frozen=True)
class GenotypeMatrix:
    """Diploid allele counts of samples (rows) at variants (columns).

    Attributes
    ----------
    dosage
        (n_samples, n_variants) int8: 0, 1 or 2 copies of the counted (ALT) allele, -1 missing.
        Readers return it in Fortran order, a variant after the other as files have them.
    sample_id
        (n_samples,) str, unique, in the order of the input.
    variants
        One row a variant: `contig` (str), `position` (1-based int64), `id`, `ref`, `alt`, in the
        order of the input; `alt` is `.` where the input has no second allele, which is read for a
        model only.
    source
        Where it came from: `path`, `format`, `sha256`.
    left_out
        How many records of the input were left out, by reason.
    family_id
        (n_samples,) str family ids, where the input has such (the FID of a .fam); else None.
    by_rule
        How many genotypes a rule decided, by rule: half calls, haploid calls, dosages.
    notes
        What else to know of the reading: samples left out, or put in another order.
    seen
        Where the input has records at all.
    n_called
        (n_variants,) samples called at each variant among all that are wanted of the input, where
        these are a part of them; None where they are all.

    Raises
    ------
    GenotypeFileError
        If shapes disagree, a dosage is none of -1, 0, 1 and 2, or a sample id occurs twice.
    """

    dosage: np.ndarray
    sample_id: np.ndarray
    variants: pd.DataFrame
    source: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    family_id: np.ndarray | None = None
    by_rule: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seen: Seen = field(default_factory=Seen)
    n_called: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.dosage.shape != (len(self.sample_id), len(self.variants)):
            raise GenotypeFileError(
                f"{self.name}: dosage has shape {self.dosage.shape}, but there are "
                f"{len(self.sample_id)} sample ids and {len(self.variants)} variants"
            )
        if self.family_id is not None and len(self.family_id) != len(self.sample_id):
            raise GenotypeFileError(
                f"{self.name}: {len(self.family_id)} family ids for {len(self.sample_id)} samples"
            )
        if self.dosage.dtype != np.int8:
            raise GenotypeFileError(f"{self.name}: dosage must be int8, not {self.dosage.dtype}")
        if self.dosage.size and not MISSING <= self.dosage.min() <= self.dosage.max() <= 2:
            row, column = np.argwhere((self.dosage < MISSING) | (self.dosage > 2))[0]
            raise GenotypeFileError(
                f"{self.name}: sample {str(self.sample_id[row])!r} has dosage "
                f"{self.dosage[row, column]} at variant {column + 1}; it must be 0, 1 or 2 copies "
                f"of the counted allele, or {MISSING} for missing"
            )
        missing_columns = [c for c in VARIANT_COLUMNS if c not in self.variants.columns]
        if missing_columns:
            raise GenotypeFileError(
                f"{self.name}: the variant table has no column {', '.join(missing_columns)}"
            )
        import pandas as pd  # here, because a guarded reader has no other use for it

        ids = pd.Index(self.sample_id)
        if ids.has_duplicates:
            twice = ids[ids.duplicated()][0]
            raise GenotypeFileError(
                f"{self.name}: sample id {twice!r} occurs more than once; rename or drop the "
                "duplicate, since results could not be told apart"
            )

    @property
    def name(self) -> str:
        """The input's path, for messages."""
        return self.source.get("path", "<genotypes in memory>")

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return int(self.dosage.shape[0])

    @property
    def n_variants(self) -> int:
        """Number of columns."""
        return int(self.dosage.shape[1])

    def select(
        self, *, samples: np.ndarray | None = None, variants: np.ndarray | None = None
    ) -> GenotypeMatrix:
        """Keep some samples and/or variants (boolean masks or integer indices), in that order."""
        dosage, sample_id, table = self.dosage, self.sample_id, self.variants
        family_id, n_called = self.family_id, self.n_called
        if samples is not None:
            dosage, sample_id = dosage[samples], sample_id[samples]
            family_id = None if family_id is None else family_id[samples]
        if variants is not None:
            dosage, table = dosage[:, variants], table.iloc[variants].reset_index(drop=True)
            n_called = None if n_called is None else n_called[variants]
        return replace(
            self,
            dosage=dosage,
            sample_id=sample_id,
            variants=table,
            family_id=family_id,
            n_called=n_called,
        )

    def content_hash(self) -> str:
        """SHA-256 of sample ids, variants and dosages: equal for equal data, whatever the format.

        Contigs are taken by their plain names; family ids and the provenance do not enter.
        """
        digest = hashlib.sha256()
        contig = self.variants["contig"].map(bare_contig)
        table = [self.variants[name] for name in VARIANT_COLUMNS[1:]]
        columns: list[Any] = [self.sample_id, contig, *table]
        for column in columns:
            text = "\0".join(str(value) for value in column)
            digest.update(text.encode(errors="surrogateescape") + b"\n")
        for start in range(0, self.n_variants, 1024):
            digest.update(self.dosage[:, start : start + 1024].T.tobytes())
        return digest.hexdigest()


def id_hash(sample_id: np.ndarray) -> np.ndarray:
    """(n_samples,) uint64, the first 64 bits of the SHA-256 of each id.

    A model may be shared where a list of its samples may not. It is no secret for all that: whoever
    guesses an id can look it up.
    """
    # An id need not be valid unicode.
    digests = [
        hashlib.sha256(str(name).encode(errors="surrogatepass")).digest() for name in sample_id
    ]
    return np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.uint64)
