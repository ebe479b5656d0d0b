"""A model's variants in files of another build, strand or order of alleles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.preprocessing import alignment
from ancestry_ddvi.preprocessing.alignment import MAX_FLIPPED, Alignment, Matched, in_builds
from ancestry_ddvi.reference_sites import BASES, GRCH37, GRCH38, reference_sites

COMPLEMENT = dict(zip(BASES, reversed(BASES), strict=True))


def table(rows: np.ndarray, build: str) -> pd.DataFrame:
    """Variants of the built-in sites."""
    sites = reference_sites()
    return pd.DataFrame(
        {
            "contig": sites.contig[rows],
            "position": sites.position[build][rows],
            "id": [f"rs{row}" for row in rows],
            "ref": [BASES[code] for code in sites.ref[rows]],
            "alt": [BASES[code] for code in sites.alt[rows]],
        }
    )


def on_other_strand(variants: pd.DataFrame, which: np.ndarray) -> pd.DataFrame:
    turned = {c: variants[c].map(COMPLEMENT).where(which, variants[c]) for c in ("ref", "alt")}
    return variants.assign(**turned)


def swapped(variants: pd.DataFrame, which: np.ndarray) -> pd.DataFrame:
    ref, alt = variants["ref"], variants["alt"]
    return variants.assign(ref=alt.where(which, ref), alt=ref.where(which, alt))


def genotypes_of(variants: pd.DataFrame, dosage: np.ndarray | None = None) -> GenotypeMatrix:
    """One sample without a copy of ALT, or the samples of a dosage."""
    if dosage is None:
        dosage = np.zeros((1, len(variants)), dtype=np.int8)
    ids = np.array([f"s{i}" for i in range(len(dosage))])
    return GenotypeMatrix(dosage.astype(np.int8), ids, variants.reset_index(drop=True))


def match(theirs: pd.DataFrame, ours: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, Matched]:
    found: Alignment = alignment.match(genotypes_of(theirs), ours)
    return found.column, found.turned, found.matched


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Sites that have a position in both builds, in an order that is nobody's."""
    sites = reference_sites()
    both = np.flatnonzero((sites.position[GRCH37] > 0) & (sites.position[GRCH38] > 0))
    return np.random.default_rng(0).permutation(both)[:400]


@pytest.fixture(scope="module")
def palindromic(rows: np.ndarray) -> np.ndarray:
    sites = reference_sites()
    found = (sites.ref + sites.alt == len(BASES) - 1)[rows]
    assert 20 < found.sum() < 100
    return found


@pytest.mark.parametrize("of_model", [GRCH37, GRCH38])
@pytest.mark.parametrize("of_file", [GRCH37, GRCH38])
def test_positions_are_translated_where_the_builds_differ(
    rows: np.ndarray, of_model: str, of_file: str
) -> None:
    theirs = table(np.sort(rows), of_file)
    column, turned, matched = match(theirs, table(rows, of_model))
    assert theirs["id"].iloc[column].tolist() == [f"rs{row}" for row in rows]
    assert not turned.any()
    assert matched == Matched(400, 0, 0, build=None if of_file == of_model else of_file)


def test_a_variant_that_is_no_site_is_absent_in_another_build(rows: np.ndarray) -> None:
    ours = table(rows, GRCH37)
    ours.loc[:9, "position"] += 1
    theirs = table(rows, GRCH38)
    # The file has something at the very position, which is another place on its build.
    theirs.loc[:4, "position"] = ours.loc[:4, "position"]
    column, _, matched = match(theirs, ours)
    assert (column[:10] == -1).all()
    assert matched == Matched(390, 0, 10, build=GRCH38)


def test_alleles_come_swapped_flipped_both_or_wrong(
    rows: np.ndarray, palindromic: np.ndarray
) -> None:
    ours = table(rows, GRCH37)
    kind = np.arange(len(rows)) % 5
    theirs = swapped(ours, np.isin(kind, (1, 3)))
    theirs = on_other_strand(theirs, np.isin(kind, (2, 3)))
    theirs["alt"] = theirs["alt"].where(kind != 4, "N")
    column, turned, matched = match(theirs, ours)
    plain = ~palindromic
    used = np.where(plain, kind < 4, False)
    np.testing.assert_array_equal(column >= 0, used)
    np.testing.assert_array_equal(turned, used & np.isin(kind, (1, 3)))
    by_kind = np.bincount(kind[plain], minlength=5)
    assert matched == Matched(
        same=by_kind[0],
        swapped=by_kind[1],
        flipped=by_kind[2] + by_kind[3],
        ambiguous=int((palindromic & (kind < 4)).sum()),
        other=int((kind == 4).sum()),
        absent=0,
    )
    assert matched.total == len(rows)
    assert matched.found == used.sum()
    assert sum(matched.by_words().values()) == len(rows)


@pytest.mark.parametrize("side", ["below", "above"])
def test_ambiguous_variants_are_taken_as_they_look_on_a_strand_that_is_known(
    rows: np.ndarray, palindromic: np.ndarray, side: str
) -> None:
    ours = table(rows, GRCH37)
    plain = np.flatnonzero(~palindromic)
    n_flipped = int(MAX_FLIPPED * len(plain)) + (side == "above")
    which = np.isin(np.arange(len(rows)), plain[:n_flipped])
    swap = palindromic & (np.arange(len(rows)) % 2 == 0)
    column, turned, matched = match(on_other_strand(swapped(ours, swap), which), ours)
    known = side == "below"
    assert ((column >= 0)[palindromic] == known).all()
    np.testing.assert_array_equal(turned, swap & known)
    assert matched.ambiguous == (0 if known else palindromic.sum())
    assert matched.flipped == n_flipped
    assert matched.swapped == (swap.sum() if known else 0)


def test_variants_of_an_unknown_build_are_looked_for_where_they_are() -> None:
    ours = pd.DataFrame({"contig": "7", "position": range(1, 41), "id": "", "ref": "A", "alt": "C"})
    assert list(in_builds(ours)) == ["unknown"]
    theirs = ours.iloc[::-1].assign(contig="chr7")
    column, _, matched = match(theirs, ours)
    np.testing.assert_array_equal(column, np.arange(40)[::-1])
    assert matched == Matched(40, 0, 0)
