"""The packed sites are those of the table; alleles and builds are told as they are made."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import DATA
from helpers import make_variants

from ancestry_ddvi.reference_sites import (
    BASES,
    BUILDS,
    CONTIG_LENGTHS,
    GRCH37,
    GRCH38,
    RELATIONS,
    UNKNOWN,
    Sites,
    align,
    detect_build,
    reference_sites,
)

COMPLEMENT = dict(zip("ACGT", "TGCA", strict=True))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(
        DATA / "1kg_phase3_24k.sites.tsv", sep="\t", dtype={"contig": str}, keep_default_na=True
    )


def variants_at(table: pd.DataFrame, build: str) -> pd.DataFrame:
    """A variant table of all reference sites that a build has."""
    column = f"pos_{build.lower()}"
    there = table[table[column].notna()]
    return pd.DataFrame(
        {
            "contig": there["contig"].to_numpy(),
            "position": there[column].to_numpy().astype(np.int64),
            "id": ".",
            "ref": there["ref"].to_numpy(),
            "alt": there["alt"].to_numpy(),
        }
    )


def strand_flipped(variants: pd.DataFrame) -> pd.DataFrame:
    return variants.assign(ref=variants["ref"].map(COMPLEMENT), alt=variants["alt"].map(COMPLEMENT))


def swapped(variants: pd.DataFrame) -> pd.DataFrame:
    return variants.assign(ref=variants["alt"], alt=variants["ref"])


def one(contig: str, position: int, ref: str, alt: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"contig": [contig], "position": [position], "id": ".", "ref": [ref], "alt": [alt]}
    )


# The packed table.


def test_packed_sites_are_those_of_the_table(table: pd.DataFrame) -> None:
    sites = reference_sites()
    assert len(sites) == len(table) == 23_770
    assert sites.contig.tolist() == table["contig"].tolist()
    np.testing.assert_array_equal(sites.position[GRCH37], table["pos_grch37"])
    np.testing.assert_array_equal(sites.position[GRCH38], table["pos_grch38"].fillna(0))
    assert [BASES[i] for i in sites.ref] == table["ref"].tolist()
    assert [BASES[i] for i in sites.alt] == table["alt"].tolist()


def test_packing_gives_the_committed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DATA.parent / "scripts"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import pack_reference_sites

    pack_reference_sites.pack(pack_reference_sites.TABLE, tmp_path / "sites.npz")
    assert pack_reference_sites.PACKED.stat().st_size < 300_000
    with (
        np.load(tmp_path / "sites.npz") as fresh,
        np.load(pack_reference_sites.PACKED) as committed,
    ):
        assert set(fresh) == set(committed)
        for name in fresh:
            np.testing.assert_array_equal(fresh[name], committed[name])


# Alignment.


@pytest.mark.parametrize(
    ("ref", "alt", "relation", "turned"),
    [
        ("A", "C", "same", False),
        ("C", "A", "swapped", True),
        ("T", "G", "flipped", False),
        ("G", "T", "flipped", True),
        ("A", "G", "other", False),
        ("A", "T", "other", False),
        ("A", "AC", "other", False),
        ("N", "C", "other", False),
    ],
)
def test_relation_of_a_site(ref: str, alt: str, relation: str, turned: bool) -> None:
    aligned = align(one("chr7", 500, ref, alt), Sites.of(one("7", 500, "A", "C")))
    assert RELATIONS[aligned.relation[0]] == relation
    assert bool(aligned.turned[0]) is turned
    assert aligned.column[0] == (-1 if relation == "other" else 0)


@pytest.mark.parametrize(("ref", "alt"), [("A", "T"), ("T", "A"), ("C", "G"), ("G", "C")])
def test_palindromes_are_ambiguous(ref: str, alt: str) -> None:
    sites = Sites.of(one("7", 500, ref, alt))
    for theirs, turned in ((one("7", 500, ref, alt), False), (one("7", 500, alt, ref), True)):
        aligned = align(theirs, sites)
        assert RELATIONS[aligned.relation[0]] == "ambiguous"
        assert bool(aligned.turned[0]) is turned
        assert aligned.column[0] == 0


@pytest.mark.parametrize(("contig", "position"), [("8", 500), ("7", 501), ("X", 500)])
def test_a_site_elsewhere_is_absent(contig: str, position: int) -> None:
    aligned = align(one(contig, position, "A", "C"), Sites.of(one("7", 500, "A", "C")))
    assert aligned.counts()["absent"] == 1
    assert aligned.column[0] == -1


def test_no_position_matches_no_position() -> None:
    unplaced = one("7", 0, "A", "C")
    assert align(unplaced, Sites.of(unplaced)).counts()["absent"] == 1


def test_no_base_matches_no_base() -> None:
    # Codes -1, whose complement is 4, must not run into those of bases.
    odd = pd.concat([one("7", p, r, a) for p, r, a in ((1, "N", "C"), (2, "C", "N"))])
    bases = pd.concat([one("7", p, r, a) for p in (1, 2) for r in BASES for a in BASES if r != a])
    assert set(align(bases, Sites.of(odd)).relation) == {RELATIONS.index("other")}
    assert (align(odd, Sites.of(bases)).column < 0).all()


def test_the_best_of_several_alleles_at_a_position_is_taken() -> None:
    several = pd.concat([one("7", 500, *alleles) for alleles in ("AG", "TG", "CA", "AC", "AC")])
    aligned = align(several, Sites.of(one("7", 500, "A", "C")))
    assert (aligned.column[0], RELATIONS[aligned.relation[0]]) == (3, "same")


def test_a_file_without_variants_has_no_site() -> None:
    assert align(one("1", 1, "A", "C").iloc[:0], reference_sites().at(GRCH37)).counts()[
        "absent"
    ] == len(reference_sites())


def test_whole_reference_swapped_and_flipped(table: pd.DataFrame) -> None:
    variants = variants_at(table, GRCH37)
    palindromic = int((variants["ref"].map(COMPLEMENT) == variants["alt"]).sum())
    sites = reference_sites().at(GRCH37)
    for change, name in (
        (lambda v: v, "same"),
        (swapped, "swapped"),
        (strand_flipped, "flipped"),
        (lambda v: swapped(strand_flipped(v)), "flipped"),
    ):
        counts = align(change(variants), sites).counts()
        assert counts["ambiguous"] == palindromic
        assert counts[name] == len(table) - palindromic
        assert sum(counts.values()) == len(table)


# The build.


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("prefix", ["", "chr"])
def test_build_of_the_reference_itself(table: pd.DataFrame, build: str, prefix: str) -> None:
    variants = variants_at(table, build)
    found = detect_build(variants.assign(contig=prefix + variants["contig"]))
    assert found.name == build
    assert found.n_matched[build] > 23_000
    assert f"{found.n_matched[build]:,}" in found.evidence
    assert detect_build(strand_flipped(swapped(variants))).name == build


def test_twenty_sites_tell_a_build_and_nineteen_do_not(table: pd.DataFrame) -> None:
    variants = variants_at(table, GRCH38).iloc[5000:]
    assert detect_build(variants.iloc[:20]).name == GRCH38
    assert detect_build(variants.iloc[:19]).name == UNKNOWN


def test_a_mixture_of_builds_is_unknown(table: pd.DataFrame) -> None:
    mixed = pd.concat([variants_at(table, b).iloc[5000:6000] for b in BUILDS])
    found = detect_build(mixed)
    assert found.name == UNKNOWN
    assert min(found.n_matched.values()) > 900


def test_another_species_has_no_build() -> None:
    found = detect_build(make_variants(500))
    assert found.name == UNKNOWN
    assert sum(found.n_matched.values()) == 0


def test_contig_lengths_tell_a_build_that_positions_do_not() -> None:
    for build in BUILDS:
        lengths = {f"chr{name}": n for name, n in CONTIG_LENGTHS[build].items()}
        found = detect_build(make_variants(5), lengths)
        assert found.name == build
        assert "22" in found.evidence
    assert detect_build(make_variants(5), {"1": 12345}).name == UNKNOWN


def test_positions_go_before_contig_lengths(table: pd.DataFrame) -> None:
    assert detect_build(variants_at(table, GRCH38), CONTIG_LENGTHS[GRCH37]).name == GRCH38
