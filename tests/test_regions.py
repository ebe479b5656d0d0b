"""Regions: every way to name them, against a brute force, and the long-range LD of both builds."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ancestry_ddvi.errors import OptionError
from ancestry_ddvi.loaders.regions import BUILT_IN, RegionSet


def covered(regions: RegionSet, contig: str, last: int) -> list[int]:
    return [position for position in range(last + 1) if regions.covers(contig, position)]


def message_of(text: str) -> str:
    with pytest.raises(OptionError) as caught:
        RegionSet.parse([text])
    message = str(caught.value)
    assert "\n" not in message
    return message


# Forms.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6:5", [5]),
        ("chr6:5-7", [5, 6, 7]),
        (" 6:8- ", [8, 9, 10]),
        ("6", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("NC_000006.12:9-9", [9]),
        ("7:5", []),
    ],
)
def test_forms(text: str, expected: list[int]) -> None:
    assert covered(RegionSet.parse([text]), "6", 10) == expected


def test_thousands_commas() -> None:
    with_commas = RegionSet.parse(["chr6:25,000,000-35,000,000"])
    assert with_commas == RegionSet.parse(["6:25000000-35000000"])
    assert with_commas.covers("6", 25_000_000)
    assert not with_commas.covers("6", 24_999_999)
    assert with_commas.covers("CHR6", 35_000_000)
    assert not with_commas.covers("6", 35_000_001)


@pytest.mark.parametrize("contig", ["X", "x", "chrX", "CHRX", "NC_000023.11", "CM000685.2"])
def test_contigs_go_by_their_plain_names(contig: str) -> None:
    assert RegionSet.parse(["chrx:5"]).covers(contig, 5)
    assert RegionSet.parse([f"{contig}:5"]).covers("X", 5)


def test_contigs_of_other_species_and_with_colons() -> None:
    assert RegionSet.parse(["scaffold_12.1"]).covers("Scaffold_12.1", 10**9)
    assert RegionSet.parse(["HLA-A*01:01:5-6"]).covers("HLA-A*01:01", 6)


def test_overlapping_and_touching_regions_are_one() -> None:
    regions = RegionSet.parse(["1:5-7", "chr1:1-5", "1:8", "1:10-20", "1:12-15", "2:3"])
    assert len(regions) == 3
    assert covered(regions, "1", 25) == [1, 2, 3, 4, 5, 6, 7, 8, *range(10, 21)]


def test_no_texts_cover_nothing() -> None:
    assert len(RegionSet.parse([])) == 0
    assert not RegionSet.parse([]).covers("1", 1)


def test_pickle() -> None:
    regions = RegionSet.parse(["long-range-ld-GRCh38", "X:5-"])
    again = pickle.loads(pickle.dumps(regions))
    assert again == regions
    assert again.covers("X", 10**10)


region = st.tuples(st.sampled_from(["1", "2", "X"]), st.integers(1, 30), st.integers(0, 12))


@given(st.lists(region, max_size=12))
def test_as_brute_force(regions: list[tuple[str, int, int]]) -> None:
    texts = [f"chr{contig}:{start}-{start + length}" for contig, start, length in regions]
    parsed = RegionSet.parse(texts)
    for contig in ("1", "2", "X", "3"):
        expected = [
            position
            for position in range(50)
            if any(c == contig and s <= position <= s + length for c, s, length in regions)
        ]
        assert covered(parsed, contig, 49) == expected


# BED files.

BED = "track name=x\nbrowser hide all\n# mine\nchr1\t4\t7\tname\t0\t+\n\nchr2\t0\t1\n1\t9\t9\n"


@pytest.mark.parametrize(
    "text", [BED, BED.replace("\n", "\r\n"), "\ufeff" + BED.replace("\t", " ")]
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["x.bed", "regions"])
def test_bed(tmp_path: Path, text: str, compress: type[bytes], name: str) -> None:
    path = tmp_path / name
    path.write_bytes(compress(text.encode()))
    regions = RegionSet.parse([str(path), "3:1"])
    assert covered(regions, "1", 10) == [5, 6, 7]
    assert covered(regions, "2", 10) == [1]
    assert covered(regions, "3", 10) == [1]
    assert len(regions) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("# nothing\n", "has no region; give one a line"),
        ("1\t5\t5\n", "has no region; give one a line"),
        ("1\t1\t2\nchrom\tstart\tend\n", "line 2: 'chrom\\tstart\\tend' is no BED line"),
        ("1\t1\t2\n1\t5\n", "line 2: '1\\t5' is no BED line"),
        ("1\t-1\t2\n", "line 1: '1\\t-1\\t2' is no BED line"),
        ("1\t1.5\t2\n", "line 1:"),
        ("1\t1\t" + "9" * 5000, "line 1:"),
        ("1\t9\t2\n", "line 1: the end 2 is before the start 9; swap them"),
        ("1\t1\t2\r2\t1\t2\r", "line 1 holds a control character"),
    ],
)
def test_bad_bed(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "x.bed"
    path.write_text(text, newline="")
    message = message_of(str(path))
    assert message.startswith(f"{path}: ")
    assert expected in message


def test_bed_that_is_no_text_or_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "x.bed"
    path.write_bytes(b"1\t1\t2\n\xff\xfe\n")
    assert "line 2: b'\\xff' is not UTF-8" in message_of(str(path))
    path.write_bytes(gzip.compress(BED.encode())[:-9])
    assert "cut off" in message_of(str(path))


def test_a_file_named_like_a_chromosome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`22` is chromosome 22 whatever lies in the folder; `./22` is the file."""
    monkeypatch.chdir(tmp_path)
    for name in ("22", "chrX", "mine"):
        Path(name).write_text("5\t0\t9\n")
    Path("7").mkdir()
    for name in ("22", "chrX", "7"):
        assert RegionSet.parse([name]).covers(name, 5)
        assert not RegionSet.parse([name]).covers("5", 5)
    for name in ("./22", "./chrX", "mine"):
        assert RegionSet.parse([name]).covers("5", 5)


# Bad texts.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "'' is no region; a region is contig, contig:position, contig:start-end"),
        ("   ", "'' is no region"),
        ("chr6:", "'chr6:' is no region"),
        (":5-6", "':5-6' is no region"),
        ("chr6:a-b", "'chr6:a-b' is no region"),
        ("chr6:25Mb-35Mb", "is no region"),
        ("6:2.5e7-3e7", "is no region"),
        ("6:-5", "is no region"),
        ("6:5-6-7", "is no region"),
        ("6:25,00-30", "is no region"),
        ("6:1,000000", "is no region"),
        ("6:٥", "is no region"),
        ("6:" + "9" * 5000, "is no region"),
        ("chr6-25000000", "is no region"),
        ("6-7", "is no region"),
        ("6 7", "is no region"),
        ("6,7", "is no region"),
        ("1:5-6,2:7-8", "is no region; a region is"),
        ("6:0-5", "positions count from 1"),
        ("6:7-5", "the end must not be before the start"),
        ("no/such.bed", "'no/such.bed' is neither a file here nor a region; a region is contig"),
        ("absent.bed", "'absent.bed' is neither a file here nor a region"),
        ("absent.BED.gz", "is neither a file here nor a region"),
        ("a\0b.bed", "is neither a file here nor a region"),
        ("x" * 5000 + ".bed", "is neither a file here nor a region"),
        ("long-range-ld-GRCh36", "'long-range-ld-GRCh36' is no table that is built in"),
        ("Long-Range-LD-", "is no table that is built in"),
    ],
)
def test_bad_text(text: str, expected: str) -> None:
    message = message_of(text)
    assert expected in message
    assert all(name in message for name in BUILT_IN)


# Long-range LD.

# The places that the regions are known for (GRCh37, GRCh38), from dbSNP and NCBI Gene.
INSIDE = {
    "LCT, rs4988235": ("2", 136_608_646, 135_851_076),
    "HLA-B": ("6", 31_324_000, 31_356_000),
    "8p23, BLK": ("8", 11_400_000, 11_540_000),
    "17q21.31, MAPT": ("17", 44_020_000, 45_940_000),
}
OUTSIDE = {
    "rs3094315": ("1", 752_566, 817_186),
    "SLC24A5, rs1426654": ("15", 48_426_484, 48_134_287),
    "EDAR, rs3827760": ("2", 109_513_601, 108_897_145),
    "DARC, rs2814778": ("1", 159_174_683, 159_204_893),
}


@pytest.mark.parametrize("build", [0, 1], ids=["GRCh37", "GRCh38"])
def test_long_range_ld(build: int) -> None:
    regions = RegionSet.parse([BUILT_IN[build]])
    assert len(regions) == 25
    for contig, *position in INSIDE.values():
        assert regions.covers(contig, position[build])
    for contig, *position in OUTSIDE.values():
        assert not regions.covers(contig, position[build])
    assert set(regions.spans) <= {str(number) for number in range(1, 23)}


def test_long_range_ld_of_both_builds_are_of_one_size() -> None:
    """Lifted ends move, and the gaps over centromeres were filled in GRCh38: by 1.5 Mb at most."""
    both = [RegionSet.parse([name]).spans for name in BUILT_IN]
    assert both[0].keys() == both[1].keys()
    for contig in both[0]:
        lengths = [[e - s for s, e in zip(*spans[contig], strict=True)] for spans in both]
        assert lengths[0] == pytest.approx(lengths[1], abs=1_500_000)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("LONG-RANGE-LD-hg19", 0), ("long-range-ld-GRCH37", 0), (" long-range-ld-HG38 ", 1)],
)
def test_long_range_ld_under_other_names(alias: str, name: int) -> None:
    assert RegionSet.parse([alias]) == RegionSet.parse([BUILT_IN[name]])


def test_hla_as_published() -> None:
    regions = RegionSet.parse(["long-range-ld-GRCh37"])
    assert regions.covers("chr6", 25_000_000)
    assert regions.covers("6", 35_000_000)
    assert not regions.covers("6", 24_999_999)
    assert not regions.covers("6", 35_000_001)
