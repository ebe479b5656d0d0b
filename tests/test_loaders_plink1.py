"""PLINK 1 sets: written by bed-reader, read back; beside plink2; damaged in every way."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bed_reader import open_bed, to_bed
from conftest import Cut
from helpers import make_variants
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ancestry_ddvi import read_genotypes
from ancestry_ddvi.errors import GenotypeFileError
from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.loaders.lists import VariantList
from ancestry_ddvi.loaders.options import ReadOptions
from ancestry_ddvi.loaders.plink1 import Plink1Source, plink1_prefix
from ancestry_ddvi.loaders.sites import SiteRule
from ancestry_ddvi.loaders.source import Selection


def write_set(prefix: Path, dosage: np.ndarray, variants: pd.DataFrame, **changes: object) -> None:
    """PREFIX.bed, .bim and .fam of (n, m) dosages of ALT."""
    n = len(dosage)
    properties = {
        "fid": [f"F{i}" for i in range(n)],
        "iid": [f"S{i}" for i in range(n)],
        "chromosome": variants["contig"].to_list(),
        "bp_position": variants["position"].to_list(),
        "sid": variants["id"].to_list(),
        "allele_1": variants["alt"].to_list(),
        "allele_2": variants["ref"].to_list(),
    }
    values = np.where(dosage == MISSING, np.int8(-127), dosage)
    to_bed(f"{prefix}.bed", values, properties=properties | changes, num_threads=1)


def by_sample(prefix: Path, dosage: np.ndarray) -> None:
    """Rewrite the .bed in the other order, by hand: two bits a genotype, from the low end."""
    codes = np.array([3, 2, 0, 1], dtype=np.uint8)[dosage]  # 0, 1, 2 copies of A1, missing
    n, m = codes.shape
    padded = np.zeros((n, -(-m // 4) * 4), dtype=np.uint8)
    padded[:, :m] = codes
    packed = (padded.reshape(n, -1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8)).sum(axis=2)
    Path(f"{prefix}.bed").write_bytes(b"\x6c\x1b\x00" + packed.astype(np.uint8).tobytes())


@given(
    dosage=st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda shape: arrays(np.int8, shape, elements=st.integers(-1, 2))
    )
)
def test_both_orders_come_back(dosage: np.ndarray) -> None:
    variants = make_variants(dosage.shape[1])
    with TemporaryDirectory() as folder:
        prefix = Path(folder) / "a.b"
        write_set(prefix, dosage, variants)
        for _ in range(2):
            read = read_genotypes(prefix)
            np.testing.assert_array_equal(read.dosage, dosage)
            assert read.sample_id.tolist() == [f"S{i}" for i in range(len(dosage))]
            assert read.family_id is not None
            assert read.family_id.tolist() == [f"F{i}" for i in range(len(dosage))]
            pd.testing.assert_frame_equal(read.variants, variants, check_dtype=False)
            by_sample(prefix, dosage)


def small(tmp_path: Path) -> Path:
    """Seven samples, five variants."""
    dosage = np.random.default_rng(0).integers(-1, 3, (7, 5)).astype(np.int8)
    write_set(tmp_path / "x", dosage, make_variants(5))
    return tmp_path / "x"


def test_any_of_its_names(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    expected = read_genotypes(prefix)
    for suffix in (".bed", ".bim", ".fam"):
        read = read_genotypes(f"{prefix}{suffix}")
        np.testing.assert_array_equal(read.dosage, expected.dosage)
        assert read.source == expected.source
    assert expected.source["format"] == "PLINK 1"
    assert len(expected.source["sha256"]) == 64


def test_its_content_decides(tmp_path: Path, cut: Cut) -> None:
    """A VCF that is called .bed is a VCF, and an interval list is nothing of ours."""
    vcf = tmp_path / "y.bed"
    shutil.copy(cut.few, vcf)
    assert plink1_prefix(vcf) is None
    assert read_genotypes(vcf).source["format"].startswith("VCF")
    intervals = tmp_path / "z.bed"
    intervals.write_text("chr1\t100\t200\n")
    with pytest.raises(GenotypeFileError, match="no genotype file"):
        read_genotypes(intervals)
    with pytest.raises(GenotypeFileError, match="no such file"):
        read_genotypes(tmp_path / "absent")


def test_what_is_left_out(tmp_path: Path) -> None:
    variants = pd.DataFrame(
        [
            ("1", 10, "good", "A", "C"),
            ("23", 10, "x", "A", "C"),
            ("1", 20, "indel", "AT", "A"),
            ("1", 30, "mono", "A", "0"),
            ("1", 40, "n", "A", "N"),
            ("1", -50, "off", "A", "C"),
            ("1", 10, "twice", "A", "C"),
            ("2", 10, "lower", "g", "t"),
        ],
        columns=["contig", "position", "id", "ref", "alt"],
    )
    dosage = np.tile(np.array([0, 1, 2, 0, 1, 2, 0, 1], dtype=np.int8), (3, 1))
    write_set(tmp_path / "x", dosage, variants)
    read = read_genotypes(tmp_path / "x")
    assert read.variants["id"].tolist() == ["good", "lower"]
    assert read.variants[["ref", "alt"]].to_numpy().tolist() == [["A", "C"], ["G", "T"]]
    np.testing.assert_array_equal(read.dosage, dosage[:, [0, 7]])
    assert read.left_out == {
        "not on an autosome": 1,
        "indel or multi-nucleotide": 1,
        "symbolic or missing ALT": 1,
        "allele other than A, C, G or T": 1,
        "no position": 1,
        "duplicated site": 1,
    }


def test_variants_without_a_second_allele_are_read_for_a_model(tmp_path: Path) -> None:
    variants = make_variants(3).assign(alt=["0", "C", "."])
    dosage = np.array([[0, 1, 0], [-1, 2, 0], [1, 0, 2]], dtype=np.int8)
    write_set(tmp_path / "x", dosage, variants)
    assert read_genotypes(tmp_path / "x").variants["alt"].tolist() == ["C"]
    places = frozenset(f"{v.contig}:{v.position}" for v in variants.itertuples())
    model = VariantList("the model", frozenset(), places, frozenset())
    read = read_genotypes(tmp_path / "x", ReadOptions(places=model))
    assert read.variants["alt"].tolist() == [".", "C", "."]
    # Copies of an allele without a name say nothing.
    assert read.dosage.tolist() == [[0, 1, 0], [-1, 2, 0], [-1, 0, -1]]


def change(suffix: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(prefix: Path) -> None:
        path = Path(f"{prefix}{suffix}")
        path.write_bytes(edit(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (change(".bed", lambda b: b[:-1]), r"x\.bed: has 12 bytes, but 7 samples .* make 13"),
        (change(".bed", lambda b: b + b"\0"), "has 14 bytes"),
        (change(".bed", lambda b: b"\x6c\x1b\x02" + b[3:]), "which no PLINK 1 .bed does"),
        (change(".bed", lambda b: b[:2]), "which no PLINK 1 .bed does"),
        (change(".fam", lambda b: b + b"\n".join(b.split(b"\n")[:2])), "9 samples in the .fam"),
        (change(".fam", lambda b: b.replace(b"S1", b"S2")), "sample id 'S2' occurs more than once"),
        (change(".fam", lambda b: b.replace(b"F3", b"")), r"x\.fam: line 4 has 5 fields, not 6"),
        (change(".fam", lambda b: b""), r"x\.fam: is empty"),
        (change(".fam", lambda b: b.replace(b"S1", b"\xe9")), "line 2 is not UTF-8"),
        (change(".bim", lambda b: b.replace(b"2000", b"2e3")), r"has position '2e3'"),
        (change(".bim", lambda b: b.replace(b"\tC\t", b"\t0\t")), "no biallelic autosomal SNP"),
        (lambda prefix: Path(f"{prefix}.bim").unlink(), r"x\.bim: no such file"),
        (lambda prefix: Path(f"{prefix}.fam").unlink(), r"x\.fam: no such file"),
    ],
)
def test_damaged(tmp_path: Path, damage: Callable[[Path], None], expected: str) -> None:
    prefix = small(tmp_path)
    damage(prefix)
    with pytest.raises(GenotypeFileError, match=expected) as caught:
        read_genotypes(prefix)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_plink2_sees_the_same(tmp_path: Path, cut: Cut) -> None:
    """The real cut as plink2 converts it, and cell by cell as plink2 exports it."""
    run = ["plink2", "--threads", "1", "--out", str(tmp_path / "x")]
    make = ["--vcf", str(cut.vcf), "--make-bed"]
    subprocess.run([*run, *make], check=True, capture_output=True)
    read, vcf = read_genotypes(tmp_path / "x"), read_genotypes(cut.vcf)
    np.testing.assert_array_equal(read.dosage, vcf.dosage)
    assert read.sample_id.tolist() == vcf.sample_id.tolist()
    pd.testing.assert_frame_equal(read.variants, vcf.variants)
    export = ["--bfile", str(tmp_path / "x"), "--export", "A"]
    subprocess.run([*run, *export], check=True, capture_output=True)
    theirs = pd.read_csv(tmp_path / "x.raw", sep=r"\s+", na_values="NA").iloc[:, 6:]
    assert len(theirs.columns) == read.n_variants
    counted = theirs.columns.str.split("_").str[-1].str.split("(").str[0].to_numpy()
    is_alt = counted == read.variants["alt"].to_numpy()
    cells = np.where(is_alt, theirs, 2 - theirs)
    np.testing.assert_array_equal(np.where(np.isnan(cells), MISSING, cells), read.dosage)


@dataclass
class Chosen(SiteRule):
    """Takes variants by the number in their names."""

    numbers: set[int] = field(default_factory=set)

    def take(self, *site: Any) -> tuple[int, ...]:
        return (1,) if int(site[2].removeprefix("rs")) in self.numbers else ()


def test_bed_reader_sees_the_same(tmp_path: Path) -> None:
    """Our table of bytes beside bed-reader, with gaps and chosen samples."""
    rng = np.random.default_rng(1)
    dosage = rng.integers(-1, 3, (301, 3000)).astype(np.int8)
    write_set(tmp_path / "x", dosage, make_variants(3000))
    write_set(tmp_path / "s", dosage, make_variants(3000))
    by_sample(tmp_path / "s", dosage)
    some = np.sort(rng.choice(3000, 700, replace=False))
    late = np.arange(2990, 3000)
    for index in (np.arange(3000), some, late):
        for samples in (slice(None), rng.permutation(301)[:50]):
            with open_bed(tmp_path / "x.bed", num_threads=1) as bed:
                theirs = np.maximum(bed.read(np.s_[samples, index], dtype="int8"), MISSING)
            for name in ("x", "s"):
                chosen = None if isinstance(samples, slice) else samples
                selection = Selection(Chosen(numbers=set(index.tolist())), samples=chosen)
                source = Plink1Source(tmp_path / name)
                blocks = list(source.blocks(selection, lambda fraction: None))
                ours = np.concatenate([block.dosage for block in blocks]).T
                np.testing.assert_array_equal(ours, theirs)
                np.testing.assert_array_equal(ours, dosage[samples][:, index])
    read = read_genotypes(tmp_path / "x")  # several blocks
    np.testing.assert_array_equal(read.dosage, dosage)
    assert read.variants["position"].to_list() == make_variants(3000)["position"].to_list()


def test_cut_off_while_it_is_read(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    source = Plink1Source(prefix)
    Path(f"{prefix}.bed").write_bytes(Path(f"{prefix}.bed").read_bytes()[:-1])
    with pytest.raises(GenotypeFileError, match="not what it was"):
        list(source.blocks(Selection(), lambda fraction: None))


def test_a_suffix_is_taken_off_once(tmp_path: Path) -> None:
    """`plink2 --make-bed --out study.bed` makes study.bed.bed; study.bed is another's."""
    mine, other = (np.full((2, 3), value, dtype=np.int8) for value in (1, 2))
    write_set(tmp_path / "study.bed", mine, make_variants(3))
    for _ in range(2):  # alone, and beside the other
        for suffix in (".bed", ".bim", ".fam"):
            read = read_genotypes(tmp_path / f"study.bed{suffix}")
            np.testing.assert_array_equal(read.dosage, mine)
        write_set(tmp_path / "study", other, make_variants(3))
    np.testing.assert_array_equal(read_genotypes(tmp_path / "study.bed").dosage, other)


def test_the_file_that_was_named_is_read(tmp_path: Path) -> None:
    """Where names differ in capitals only."""
    mine, other = (np.full((2, 3), value, dtype=np.int8) for value in (1, 2))
    write_set(tmp_path / "x", mine, make_variants(3))
    (tmp_path / "x.bed").rename(tmp_path / "x.BED")
    write_set(tmp_path / "x", other, make_variants(3))
    if len(list(tmp_path.glob("x.*"))) < 4:
        pytest.skip("the file system does not tell capitals")
    np.testing.assert_array_equal(read_genotypes(tmp_path / "x.BED").dosage, mine)
    np.testing.assert_array_equal(read_genotypes(tmp_path / "x.bed").dosage, other)


def test_changed_at_the_same_size(tmp_path: Path) -> None:
    """By variant, the checksum is of what was decoded; a second reading must find the same."""
    prefix = small(tmp_path)
    source = Plink1Source(prefix)
    bed = Path(f"{prefix}.bed")
    data = bytearray(bed.read_bytes())
    data[3] ^= 1
    bed.write_bytes(data)
    list(source.blocks(Selection(), lambda fraction: None))
    assert source.sha256() == read_genotypes(prefix).source["sha256"]
    data[3] ^= 1
    bed.write_bytes(data)
    with pytest.raises(GenotypeFileError, match="not what it was"):
        list(source.blocks(Selection(), lambda fraction: None))
