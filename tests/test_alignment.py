"""A model's variants in files of another build, strand or order of alleles."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ancestry_ddvi.genotypes import GenotypeMatrix, Seen
from ancestry_ddvi.preprocessing import alignment
from ancestry_ddvi.preprocessing.alignment import (
    MAX_FLIPPED,
    MIN_TOLD,
    Alignment,
    Matched,
    in_builds,
)
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
    assert matched == Matched(400, 0, 0, build=of_file, model_build=of_model)
    assert matched.is_translated == (of_file != of_model)


def test_a_variant_that_is_no_site_is_absent_in_another_build(rows: np.ndarray) -> None:
    ours = table(rows, GRCH37)
    ours.loc[:9, "position"] += 1
    theirs = table(rows, GRCH38)
    # The file has something at the very position, which is another place on its build.
    theirs.loc[:4, "position"] = ours.loc[:4, "position"]
    column, _, matched = match(theirs, ours)
    assert (column[:10] == -1).all()
    assert matched == Matched(390, 0, 10, build=GRCH38, model_build=GRCH37)


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
        flipped=by_kind[2],
        flipped_swapped=by_kind[3],
        ambiguous=int((palindromic & (kind < 4)).sum()),
        other=int((kind == 4).sum()),
        absent=0,
        build=GRCH37,
        model_build=GRCH37,
    )
    assert by_kind.min() > 40
    assert matched.turned == by_kind[1] + by_kind[3]
    words = matched.by_words()
    assert words["on the other strand"] == by_kind[2]
    assert words["on the other strand with swapped alleles"] == by_kind[3]
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


@pytest.mark.parametrize("n_told", [0, 1, MIN_TOLD - 1, MIN_TOLD])
def test_ambiguous_variants_are_left_out_where_few_others_tell_the_strand(
    rows: np.ndarray, palindromic: np.ndarray, n_told: int
) -> None:
    ours = table(rows, GRCH37)
    there = palindromic.copy()
    there[np.flatnonzero(~palindromic)[:n_told]] = True
    column, _, matched = match(ours[there], ours)
    known = n_told == MIN_TOLD
    n_ambiguous = int(palindromic.sum())
    assert ((column >= 0)[palindromic] == known).all()
    assert matched.ambiguous == (0 if known else n_ambiguous)
    assert matched.same == n_told + (n_ambiguous if known else 0)


def test_a_model_is_looked_up_in_both_builds_once(rows: np.ndarray) -> None:
    ours = table(rows, GRCH37)
    first = in_builds(ours)
    assert in_builds(ours.copy()) is first
    for column, value in (("position", 1), ("ref", "N"), ("alt", "N"), ("contig", "X")):
        changed = ours.copy()
        changed.loc[0, column] = value
        again = in_builds(changed)
        assert again is not first
        assert list(again) == [GRCH37, GRCH38]
        assert getattr(again[GRCH37], column)[0] != getattr(first[GRCH37], column)[0]


def test_variants_of_an_unknown_build_are_looked_for_where_they_are() -> None:
    ours = pd.DataFrame({"contig": "7", "position": range(1, 41), "id": "", "ref": "A", "alt": "C"})
    assert list(in_builds(ours)) == ["unknown"]
    theirs = ours.iloc[::-1].assign(contig="chr7")
    column, _, matched = match(theirs, ours)
    np.testing.assert_array_equal(column, np.arange(40)[::-1])
    assert matched == Matched(40, 0, 0)


# --- the same variant several times ---------------------------------------------------------------


@pytest.mark.parametrize("again", ["as it is", "swapped", "on the other strand"])
@pytest.mark.parametrize("better", [0, 1])
def test_of_repeated_variants_the_best_called_is_used(
    rows: np.ndarray, palindromic: np.ndarray, again: str, better: int
) -> None:
    ours = table(rows[~palindromic], GRCH37)
    m, all_of = len(ours), np.ones((~palindromic).sum(), dtype=bool)
    first = np.random.default_rng(0).integers(0, 3, (5, m))
    second = np.random.default_rng(1).integers(0, 3, (5, m))
    (second, first)[better][0] = -1
    other = {
        "as it is": ours,
        "swapped": swapped(ours, all_of),
        "on the other strand": on_other_strand(ours, all_of),
    }[again]
    written = np.where((again == "swapped") & (second >= 0), 2 - second, second)
    genotypes = genotypes_of(pd.concat([ours, other[:10]]), np.hstack([first, written[:, :10]]))
    found = alignment.match(genotypes, ours)
    expected = first.copy()
    if better:
        expected[:, :10] = second[:, :10]
    np.testing.assert_array_equal(found.dosage(slice(None)), expected)
    assert found.matched.repeated == 10
    assert found.matched.found == m
    assert [n for words, n in found.matched.by_words().items() if "more than once" in words] == [10]


def test_of_equally_called_variants_the_first_is_used() -> None:
    ours = pd.DataFrame({"contig": "7", "position": range(1, 41), "id": "", "ref": "A", "alt": "C"})
    dosage = np.repeat([[0, 1, 2]], 40, axis=1)
    found = alignment.match(genotypes_of(pd.concat([ours] * 3), dosage), ours)
    np.testing.assert_array_equal(found.column, np.arange(40))
    assert found.matched == Matched(40, 0, 0, repeated=40)


def test_another_allele_at_the_place_is_no_repeat() -> None:
    ours = pd.DataFrame({"contig": "7", "position": range(1, 41), "id": "", "ref": "A", "alt": "C"})
    found = alignment.match(genotypes_of(pd.concat([ours.assign(alt="T"), ours])), ours)
    np.testing.assert_array_equal(found.column, np.arange(40, 80))
    assert found.matched == Matched(40, 0, 0)


# --- records that have seen the reference allele alone --------------------------------------------


def test_of_a_record_without_alt_ref_tells_the_genotype(
    rows: np.ndarray, palindromic: np.ndarray
) -> None:
    """Homozygous for the model's REF, or for its ALT where that is what the file calls REF."""
    ours = table(rows, GRCH37)
    # The first 100 tell the build, which records without ALT must not.
    alone = np.arange(len(rows)) >= 100
    is_alt = alone & (np.arange(len(rows)) % 3 == 0)
    theirs = ours.assign(
        ref=ours["alt"].where(is_alt, ours["ref"]), alt=ours["alt"].where(~alone, ".")
    )
    odd = 105
    theirs.loc[odd, "ref"] = next(b for b in BASES if b not in (ours["ref"][odd], ours["alt"][odd]))
    dosage = np.zeros((2, len(rows)), dtype=int)
    dosage[1, ::7] = -1
    found = alignment.match(genotypes_of(theirs, dosage), ours)
    expected = np.where(is_alt, 2, np.zeros_like(dosage))
    expected[dosage < 0] = -1
    expected[:, odd] = -1
    np.testing.assert_array_equal(found.dosage(slice(None)), expected)
    assert found.matched.other == 1
    assert found.matched.swapped == is_alt.sum() - is_alt[odd]
    # With some on the other strand, what a palindromic record without ALT counts is in doubt.
    flipped = on_other_strand(theirs, ~alone & ~palindromic)
    found = alignment.match(genotypes_of(flipped, dosage), ours)
    used = ~palindromic & (np.arange(len(rows)) != odd)
    np.testing.assert_array_equal((found.column >= 0)[alone], used[alone])


def test_records_without_alt_do_not_match_at_positions_that_are_not_the_models(
    rows: np.ndarray,
) -> None:
    """By chance REF is one of two alleles at every other place: that is no match."""
    ours = table(rows, GRCH37)
    base = np.random.default_rng(0).choice(list(BASES), len(rows))
    found = alignment.match(genotypes_of(ours.assign(ref=base, alt=".")), ours)
    assert found.matched == Matched(0, 0, 0, other=400, model_build=GRCH37)
    assert not found.used.any()


# --- absent variants as homozygous ones -----------------------------------------------------------


def sparse(rows: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """A model of `rows`, and what of it a file has: every other variant, none of contig 2."""
    ours = table(rows, GRCH37)
    return ours, (np.arange(len(rows)) % 2 == 0) & (ours["contig"] != "2").to_numpy()


def test_absent_variants_are_missing_unless_they_are_asked_to_be_homozygous(
    rows: np.ndarray,
) -> None:
    ours, there = sparse(rows)
    theirs = swapped(ours, there & (np.arange(len(rows)) % 4 == 0))[there]
    dosage = np.ones((3, there.sum()), dtype=int)
    dosage[1] = -1
    genotypes = genotypes_of(theirs, dosage)
    plain = alignment.match(genotypes, ours)
    assert (plain.dosage(slice(None))[:, ~there] == -1).all()
    assert plain.matched.reference == 0
    found = alignment.match(genotypes, ours, absent_is_ref=True)
    of_contig_2 = (ours["contig"] == "2").to_numpy()
    assert of_contig_2.sum() > 10
    filled = found.dosage(slice(None))
    assert (filled[:, there] == plain.dosage(slice(None))[:, there]).all()
    # Dosage of the model's ALT, whichever allele the file calls so elsewhere.
    assert (filled[[0, 2]][:, ~there & ~of_contig_2] == 0).all()
    assert (filled[:, of_contig_2] == -1).all()
    assert (filled[1] == -1).all()  # nothing is known of a sample without a call
    np.testing.assert_array_equal(found.used, there | ~of_contig_2)
    assert found.matched.reference == (~there & ~of_contig_2).sum()
    assert found.matched.absent == of_contig_2.sum()
    assert found.matched.unseen == ("2",)
    assert found.matched.total == len(rows)
    some = np.array([3, 1, 250])
    np.testing.assert_array_equal(found.dosage(some), filled[:, some])


def test_a_contig_whose_records_were_all_left_out_is_seen(rows: np.ndarray) -> None:
    ours, there = sparse(rows)
    contig_2 = np.flatnonzero(ours["contig"] == "2")
    left_out = {("2", int(ours["position"][contig_2[0]]))}
    genotypes = replace(genotypes_of(ours[there]), seen=Seen({"2"}, left_out))
    found = alignment.match(genotypes, ours, absent_is_ref=True)
    assert found.matched.unseen == ()
    # But where a record was left out, the file has something.
    np.testing.assert_array_equal(np.flatnonzero(~found.used), contig_2[:1])


def test_what_was_not_read_is_not_taken_for_absent(rows: np.ndarray) -> None:
    ours, there = sparse(rows)
    contigs = set(ours["contig"])
    half = int(ours["position"].median())
    seen = Seen(contigs, within=lambda contig, position: position > half)
    found = alignment.match(replace(genotypes_of(ours[there]), seen=seen), ours, absent_is_ref=True)
    inside = (ours["position"] > half).to_numpy()
    np.testing.assert_array_equal(found.reference, ~there & inside)
    assert found.matched.absent == (~there & ~inside).sum() > 10
    everything = replace(genotypes_of(ours[there]), seen=Seen(contigs))
    assert alignment.match(everything, ours, absent_is_ref=True).matched.absent == 0


def test_what_is_there_and_not_used_is_not_taken_for_absent(
    rows: np.ndarray, palindromic: np.ndarray
) -> None:
    ours = table(rows, GRCH37)
    theirs = on_other_strand(ours, ~palindromic)
    theirs.loc[::9, "alt"] = "N"
    found = alignment.match(genotypes_of(theirs), ours, absent_is_ref=True)
    assert found.matched.ambiguous > 0
    assert found.matched.other == len(range(0, len(rows), 9))
    assert found.matched.reference == 0
    assert (
        found.dosage(slice(None))[0] == -1
    ).sum() == found.matched.ambiguous + found.matched.other


def test_a_variant_without_a_position_in_the_files_build_stays_missing(rows: np.ndarray) -> None:
    sites = reference_sites()
    lost = np.flatnonzero((sites.position[GRCH37] > 0) & (sites.position[GRCH38] == 0))[:20]
    ours = table(np.concatenate([rows, lost]), GRCH37)
    found = alignment.match(genotypes_of(table(rows[:300], GRCH38)), ours, absent_is_ref=True)
    assert found.matched == Matched(300, 0, 20, reference=100, build=GRCH38, model_build=GRCH37)
    assert not found.used[-20:].any()


# --- too few --------------------------------------------------------------------------------------


def test_why_a_file_has_too_few_of_the_variants(rows: np.ndarray, palindromic: np.ndarray) -> None:
    ours = table(rows, GRCH37)
    no_site = ours.assign(position=ours["position"] + 1)
    renamed = ours.assign(contig="A" + ours["contig"])
    cases = {
        "on the model's contigs .*, its own are A1, A10, A11, and 18 more; rename": renamed,
        "with other alleles, as in another genome build than GRCh37": ours.assign(
            alt=ours["ref"].map(lambda b: "ACGT"["CGTA".index(b)]), ref="N"
        ),
        "are A/T or C/G, and their strand is told by 30 others at least; give a file": pd.concat(
            [ours[palindromic], on_other_strand(ours, ~palindromic)[~palindromic][:20]]
        ),
        "are A/T or C/G, and their strand is in doubt; put all on the forward strand": pd.concat(
            [ours[palindromic], on_other_strand(ours, ~palindromic)[~palindromic][:60]]
        ),
        "positions do not tell its genome build, and the model's is GRCh37": no_site,
        "its genome build, GRCh37, is the model's, but it has few of these variants": ours[:30],
    }
    for words, theirs in cases.items():
        found = alignment.match(genotypes_of(theirs), ours)
        said = alignment.why_few(found, ours, 99)
        n_found = found.matched.found
        assert said.startswith(
            f"<genotypes in memory>: {n_found} of the 400 variants of the map were matched"
        )
        assert "and 99 are needed" in said
        assert re.search(words, said), said
        assert "\n" not in said
    # A model of variants that are no sites of 1kg cannot be translated.
    own = pd.concat([ours[:100], no_site], ignore_index=True)
    found = alignment.match(genotypes_of(table(rows, GRCH38)[:60]), own)
    assert re.search(
        "positions are those of GRCh38, the model's of GRCh37, and only sites of 1kg",
        alignment.why_few(found, own, 99),
    )
