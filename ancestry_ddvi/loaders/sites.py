"""Which variants are used, by one rule for every format, and the reasons for leaving others out."""

from __future__ import annotations

from collections.abc import Sequence

from ancestry_ddvi.genotypes import bare_contig

# Keys of `GenotypeMatrix.left_out`, in the order they are tried.
NOT_AUTOSOMAL = "not on an autosome"
MULTIALLELIC = "multiallelic"
SYMBOLIC = "symbolic or missing ALT"
INDEL = "indel or multi-nucleotide"
AMBIGUOUS_BASE = "allele other than A, C, G or T"
SAME_ALLELES = "REF and ALT are the same"
DUPLICATED = "duplicated site"

# PLINK numbers unplaced variants 0, and those of the sex chromosomes, pseudo-autosomal and
# mitochondrial 23 to 26; the last three are RefSeq's names of X, Y and the mitochondrion.
_NON_AUTOSOMES = frozenset(
    ("X", "Y", "XY", "M", "MT", "0", "23", "24", "25", "26", "NC_000023", "NC_000024", "NC_012920")
)


def reason_to_leave_out(contig: str, ref: str, alts: Sequence[str]) -> str | None:
    """Why a variant is no biallelic autosomal SNP, or None if it is one."""
    if not is_autosome(contig):
        return NOT_AUTOSOMAL
    if len(alts) > 1:
        return MULTIALLELIC
    ref, alt = ref.upper(), alts[0].upper() if alts else "."
    if not alt.isalpha():
        return SYMBOLIC
    if len(ref) != 1 or len(alt) != 1:
        return INDEL
    if ref not in "ACGT" or alt not in "ACGT":
        return AMBIGUOUS_BASE
    return SAME_ALLELES if ref == alt else None


def is_autosome(contig: str) -> bool:
    """Whether both sexes are diploid there; an unknown contig counts as one."""
    name = bare_contig(contig).upper().split(".")[0]
    return name not in _NON_AUTOSOMES
