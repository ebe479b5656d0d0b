"""Writers: read back by other programs, cell by cell; refused clearly; whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pgenlib
import pysam
import pytest
import zarr
from bed_reader import open_bed
from cyvcf2 import VCF
from helpers import make_variants
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ancestry_ddvi.errors import InputError, NotEnoughDataError, OptionError, OutputError
from ancestry_ddvi.genotypes import VARIANT_COLUMNS, GenotypeMatrix
from ancestry_ddvi.loaders import read_genotypes
from ancestry_ddvi.writers import FORMATS, write_genotypes
from ancestry_ddvi.writers.cache import content_digest

needs_plink2 = pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
needs_bcftools = pytest.mark.skipif(
    shutil.which("bcftools") is None, reason="bcftools is not installed"
)
SETS = {"bed": (".bed", ".bim", ".fam"), "pgen": (".pgen", ".pvar", ".psam")}
ALLELES = [("A", "C"), ("G", "T"), ("AT", "A"), ("C", "CTT"), ("T", "*")]


def make(
    dosage: Any, family: bool = False, order: str = "C", source: str = "memory"
) -> GenotypeMatrix:
    """A matrix with two contigs, indels, ids of several kinds."""
    dosage = np.array(dosage, dtype=np.int8, order=order)  # type: ignore[call-overload]
    n_samples, n_variants = dosage.shape
    index = np.arange(n_variants)
    variants = pd.DataFrame(
        {
            "contig": np.where(index < (n_variants + 1) // 2, "1", "chr2"),
            "position": 10 + index,
            "id": [f"rs{i}" if i % 3 else "." for i in index],
            "ref": [ALLELES[i % len(ALLELES)][0] for i in index],
            "alt": [ALLELES[i % len(ALLELES)][1] for i in index],
        }
    )
    return GenotypeMatrix(
        dosage,
        np.array([f"S{i}é" for i in range(n_samples)]),
        variants,
        {"path": "here", "format": source},
        {"not a SNP": 3},
        np.array([f"F{i % 2}" for i in range(n_samples)]) if family else None,
    )


@st.composite
def matrices(draw: st.DrawFn) -> GenotypeMatrix:
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 7)))
    dosage = draw(arrays(np.int8, shape, elements=st.integers(-1, 2)))
    return make(dosage, draw(st.booleans()), draw(st.sampled_from("CF")))


def round_trip(
    read: Callable[[Path], tuple[np.ndarray, list[str], pd.DataFrame]], format_name: str
) -> None:
    """Write what hypothesis generates, read it by `read`, compare every cell and name."""

    @settings(max_examples=30, deadline=None)
    @given(matrices())
    @example(make(np.full((5, 3), -1)))
    @example(make(np.full((1, 1), -1)))
    @example(make([[0, 1, 2, -1]] * 4, family=True))
    def check(genotypes: GenotypeMatrix) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"out.{format_name}"
            written = write_genotypes(genotypes, path)
            assert sorted(Path(folder).iterdir()) == sorted(written)
            dosage, sample_id, variants = read(path)
            np.testing.assert_array_equal(dosage, genotypes.dosage)
            assert sample_id == genotypes.sample_id.tolist()
            expected = genotypes.variants[list(VARIANT_COLUMNS)].astype(str)
            assert variants.astype(str).values.tolist() == expected.values.tolist()

    check()


# The other programs. Each returns dosages (n_samples, n_variants), sample ids, variants.


def table(rows: Any) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(VARIANT_COLUMNS))


def by_pysam(path: Path) -> tuple[np.ndarray, list[str], pd.DataFrame]:
    with pysam.VariantFile(str(path)) as file:
        records = list(file)
        calls = [[s["GT"] for s in r.samples.values()] for r in records]
        assert not any(s.phased for r in records for s in r.samples.values() if None not in s["GT"])
        dosage = [[-1 if None in c else sum(c) for c in row] for row in calls]
        rows = [(r.chrom, r.pos, r.id or ".", r.ref, ",".join(r.alts or ())) for r in records]
        return np.array(dosage).T, list(file.header.samples), table(rows)


def by_cyvcf2(path: Path) -> tuple[np.ndarray, list[str], pd.DataFrame]:
    reader = VCF(str(path), gts012=True)  # 3 is missing
    columns, rows = [], []
    for v in reader:
        columns.append(np.where(v.gt_types == 3, -1, v.gt_types))
        rows.append((v.CHROM, v.POS, v.ID or ".", v.REF, ",".join(v.ALT)))
    return np.array(columns).T, list(reader.samples), table(rows)


def by_bcftools(path: Path) -> tuple[np.ndarray, list[str], pd.DataFrame]:
    form = "%CHROM\t%POS\t%ID\t%REF\t%ALT[\t%GT]\n"
    lines = [line.split("\t") for line in run("bcftools", "query", "-f", form, path).splitlines()]
    code = {"0/0": 0, "0/1": 1, "1/1": 2, "./.": -1}
    dosage = [[code[call] for call in fields[5:]] for fields in lines]
    samples = run("bcftools", "query", "-l", path).split("\n")[:-1]
    return np.array(dosage).T, samples, table(fields[:5] for fields in lines)


def by_bed_reader(path: Path) -> tuple[np.ndarray, list[str], pd.DataFrame]:
    with open_bed(path, num_threads=1) as bed:
        dosage = bed.read(dtype="int8", num_threads=1)
        rows = zip(
            bed.chromosome, bed.bp_position, bed.sid, bed.allele_2, bed.allele_1, strict=True
        )
        return np.where(dosage == -127, -1, dosage), bed.iid.tolist(), table(rows)


def by_pgenlib(path: Path) -> tuple[np.ndarray, list[str], pd.DataFrame]:
    with pgenlib.PgenReader(str(path).encode()) as reader:
        dosage = np.empty((reader.get_variant_ct(), reader.get_raw_sample_ct()), np.int8)
        reader.read_range(0, len(dosage), dosage)
    samples = pd.read_csv(path.with_suffix(".psam"), sep="\t", dtype=str)
    samples = samples.rename(columns={"#IID": "IID"})["IID"]
    variants = pd.read_csv(path.with_suffix(".pvar"), sep="\t", dtype=str)
    rows = variants[["#CHROM", "POS", "ID", "REF", "ALT"]].itertuples(index=False)
    return np.where(dosage == -9, -1, dosage).T, samples.tolist(), table(rows)


def by_plink2(flag: str, path: Path) -> tuple[np.ndarray, list[str], pd.DataFrame]:
    prefix = path.with_suffix("")
    with TemporaryDirectory() as folder:
        out = Path(folder) / "p"
        command = ["plink2", flag, prefix, "--allow-extra-chr", "--threads", "1", "--memory", "640"]
        run(*command, "--export", "A", "--out", out)
        raw = pd.read_csv(f"{out}.raw", sep="\t", dtype={"IID": str, "FID": str})
        # plink2's own reading of the variants, contigs as they are.
        run(*command, "--output-chr", "chrM", "--make-just-pvar", "--out", out)
        text = [x for x in Path(f"{out}.pvar").read_text().splitlines() if not x.startswith("##")]
    counted = raw.iloc[:, 6:].fillna(9).to_numpy().astype(int)
    dosage = np.where(counted == 9, -1, 2 - counted)  # plink2 counts REF, unless told otherwise
    fields = [line.split("\t") for line in text[1:]]
    names = ["1" if f[0] == "chr1" else f[0] for f in fields]
    rows = [(name, *f[1:5]) for name, f in zip(names, fields, strict=True)]
    return dosage, raw["IID"].tolist(), table(rows)


def by_zarr(path: Path) -> tuple[np.ndarray, list[str], pd.DataFrame]:
    group: Any = zarr.open_group(str(path), mode="r")
    assert group.metadata.zarr_format == 2
    assert group.attrs["vcf_zarr_version"] == "0.4"
    sizes: dict[str, int] = {}
    for _, array in group.arrays():
        names = array.attrs["_ARRAY_DIMENSIONS"]
        for name, size in zip(names, array.shape, strict=True):
            assert sizes.setdefault(name, size) == size
    calls = group["call_genotype"][:]
    assert calls.dtype == np.int8
    missing = (calls == -1).any(axis=2)
    assert (calls[missing] == -1).all()
    alleles = group["variant_allele"][:]
    contig = group["contig_id"][:][group["variant_contig"][:]]
    rows = zip(
        contig, group["variant_position"][:], group["variant_id"][:], *alleles.T, strict=True
    )
    return np.where(missing, -1, calls.sum(axis=2)).T, list(group["sample_id"][:]), table(rows)


def read_cache(path: Path) -> GenotypeMatrix:
    """The cache as its module describes it."""
    with np.load(path, allow_pickle=False) as file:
        content = {name: file[name] for name in file.files}
    version, n_samples = content["format"]
    assert version == 1
    if content["sha256"].tobytes() != content_digest(content):
        raise ValueError("damaged")
    text = json.loads(content["text"].tobytes())
    codes = (content["dosage"][:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    codes = codes.reshape(len(codes), -1)[:, :n_samples].T.astype(np.int8)
    variants = pd.DataFrame(
        {
            "contig": [text["contigs"][i] for i in content["contig"]],
            "position": content["position"],
            **{name: text[name] for name in ("id", "ref", "alt")},
        }
    )
    family = text["family_id"]
    return GenotypeMatrix(
        np.where(codes == 3, -1, codes).astype(np.int8),
        np.array(text["sample_id"]),
        variants,
        text["source"],
        text["left_out"],
        None if family is None else np.array(family),
    )


def by_cache(path: Path) -> tuple[np.ndarray, list[str], pd.DataFrame]:
    genotypes = read_cache(path)
    return genotypes.dosage, genotypes.sample_id.tolist(), genotypes.variants


def run(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


# Round trips.


@pytest.mark.parametrize("format_name", ["vcf", "vcf.gz", "vcf.bgz", "bcf"])
@pytest.mark.parametrize("read", [by_pysam, by_cyvcf2])
def test_vcf_and_bcf_as_htslib_reads_them(read: Any, format_name: str) -> None:
    round_trip(read, format_name)


@needs_bcftools
@pytest.mark.parametrize("format_name", ["vcf", "vcf.gz", "bcf"])
def test_vcf_and_bcf_as_bcftools_reads_them(format_name: str) -> None:
    round_trip(by_bcftools, format_name)


def test_bed_as_bed_reader_reads_it() -> None:
    round_trip(by_bed_reader, "bed")


def test_pgen_as_pgenlib_reads_it() -> None:
    round_trip(by_pgenlib, "pgen")


@needs_plink2
@pytest.mark.parametrize(("flag", "format_name"), [("--bfile", "bed"), ("--pfile", "pgen")])
def test_sets_as_plink2_reads_them(flag: str, format_name: str) -> None:
    round_trip(lambda path: by_plink2(flag, path), format_name)


@pytest.mark.parametrize("format_name", ["vcz", "zarr"])
def test_vcf_zarr_as_zarr_reads_it(format_name: str) -> None:
    round_trip(by_zarr, format_name)


def test_cache_as_numpy_reads_it() -> None:
    round_trip(by_cache, "npz")


# More than a block.


@pytest.fixture(scope="module")
def large() -> GenotypeMatrix:
    """Two blocks of variants, and more than one chunk of Zarr; not compressible."""
    rng = np.random.default_rng(1)
    dosage = rng.integers(-1, 3, (601, 3001)).astype(np.int8)
    return GenotypeMatrix(
        dosage, np.array([f"S{i}" for i in range(601)]), make_variants(3001), {"path": "large"}
    )


READERS = {
    "vcf": by_cyvcf2,
    "vcf.gz": by_cyvcf2,
    "bcf": by_cyvcf2,
    "bed": by_bed_reader,
    "pgen": by_pgenlib,
    "vcz": by_zarr,
    "npz": by_cache,
}


@pytest.mark.parametrize("format_name", READERS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_many_blocks(format_name: str, order: Any, large: GenotypeMatrix, tmp_path: Path) -> None:
    genotypes = dataclasses.replace(large, dosage=np.asarray(large.dosage, order=order))
    write_genotypes(genotypes, tmp_path / f"out.{format_name}")
    dosage, sample_id, variants = READERS[format_name](tmp_path / f"out.{format_name}")
    np.testing.assert_array_equal(dosage, large.dosage)
    assert sample_id == large.sample_id.tolist()
    assert variants.astype(str).equals(large.variants.astype(str))


def test_many_samples_make_many_chunks_of_zarr(tmp_path: Path) -> None:
    dosage = np.random.default_rng(2).integers(-1, 3, (10_001, 3)).astype(np.int8)
    write_genotypes(make(dosage), tmp_path / "out.vcz")
    np.testing.assert_array_equal(by_zarr(tmp_path / "out.vcz")[0], dosage)


@pytest.mark.parametrize("format_name", ["vcf", "vcf.gz", "bed"])
def test_our_own_readers_give_the_same_matrix(
    format_name: str, large: GenotypeMatrix, tmp_path: Path
) -> None:
    back = read_genotypes(write_genotypes(large, tmp_path / f"out.{format_name}")[0])
    np.testing.assert_array_equal(back.dosage, large.dosage)
    assert back.sample_id.tolist() == large.sample_id.tolist()
    assert back.variants.astype(str).equals(large.variants.astype(str))


@pytest.mark.parametrize("format_name", READERS)
def test_same_genotypes_same_bytes(format_name: str, tmp_path: Path) -> None:
    genotypes = make([[0, 1, 2], [2, -1, 0]])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_genotypes(genotypes, tmp_path / name / f"out.{format_name}")
    assert content(tmp_path / "one") == content(tmp_path / "two")


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# What stands in the files.


def test_vcf_word_for_word(tmp_path: Path) -> None:
    [path] = write_genotypes(make([[0, 1], [2, -1]]), tmp_path / "out.vcf")
    lines = path.read_text("utf-8").splitlines()
    assert lines[0] == "##fileformat=VCFv4.3"
    assert lines[1].startswith("##source=ancestry-ddvi-")
    assert lines[2:] == [
        "##contig=<ID=1>",
        "##contig=<ID=chr2>",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS0é\tS1é",
        "1\t10\t.\tA\tC\t.\t.\t.\tGT\t0/0\t1/1",
        "chr2\t11\trs1\tG\tT\t.\t.\t.\tGT\t0/1\t./.",
    ]


def test_bgzip_ends_with_its_own_block(tmp_path: Path) -> None:
    [path] = write_genotypes(make([[0, 1]]), tmp_path / "out.vcf.gz")
    empty = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
    assert path.read_bytes().endswith(empty)
    assert path.read_bytes()[12:14] == b"BC"


@pytest.mark.parametrize(
    ("family", "fam", "psam"),
    [
        (False, "0\tS0é\t0\t0\t0\t-9\n", "#IID\tSEX\nS0é\tNA\n"),
        (True, "F0\tS0é\t0\t0\t0\t-9\n", "#FID\tIID\tSEX\nF0\tS0é\tNA\n"),
    ],
)
def test_plink_tables_word_for_word(family: bool, fam: str, psam: str, tmp_path: Path) -> None:
    genotypes = make([[2]], family=family)
    bed = write_genotypes(genotypes, tmp_path / "x.bed")
    pgen = write_genotypes(genotypes, tmp_path / "x.pgen")
    assert [p.name for p in bed + pgen] == [
        "x.bed", "x.bim", "x.fam", "x.pgen", "x.pvar", "x.psam",
    ]  # fmt: skip
    assert bed[0].read_bytes() == b"\x6c\x1b\x01\x00"
    assert bed[1].read_text("utf-8") == "1\t.\t0\t10\tC\tA\n"
    assert bed[2].read_text("utf-8") == fam
    assert pgen[1].read_text("utf-8") == "#CHROM\tPOS\tID\tREF\tALT\n1\t10\t.\tA\tC\n"
    assert pgen[2].read_text("utf-8") == psam


@needs_plink2
@pytest.mark.parametrize(("source", "provisional"), [("PLINK 1", True), ("VCF (bgzip)", False)])
def test_ref_of_plink1_stays_provisional(source: str, provisional: bool, tmp_path: Path) -> None:
    write_genotypes(make([[0, 1]], source=source), tmp_path / "x.pgen")
    run("plink2", "--pfile", tmp_path / "x", "--export", "vcf", "--out", tmp_path / "y")
    assert ("\tPR\t" in (tmp_path / "y.vcf").read_text()) is provisional


def test_cache_keeps_everything_and_tells_damage(tmp_path: Path) -> None:
    genotypes = make([[0, 1, -1], [2, 2, 0]], family=True)
    odd = dataclasses.replace(genotypes, sample_id=np.array(["a\tb\n", "\udc80 c"]))
    [path] = write_genotypes(odd, tmp_path / "out.npz")
    back = read_cache(path)
    assert back.family_id is not None
    assert back.family_id.tolist() == ["F0", "F1"]
    assert back.sample_id.tolist() == odd.sample_id.tolist()
    assert (back.source, back.left_out) == (odd.source, odd.left_out)
    with np.load(path) as file:
        changed = {name: file[name].copy() for name in file.files}
    changed["dosage"][1, 0] ^= 1
    np.savez(path, **changed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="damaged"):
        read_cache(path)


# Which format, which files.


@pytest.mark.parametrize(
    ("name", "format_name", "expected"),
    [
        ("OUT.VCF.GZ", None, ["OUT.VCF.GZ"]),
        ("a.b.bed", None, ["a.b.bed", "a.b.bim", "a.b.fam"]),
        ("a.b", "bed", ["a.b.bed", "a.b.bim", "a.b.fam"]),
        ("a.vcf", "pgen", ["a.vcf.pgen", "a.vcf.pvar", "a.vcf.psam"]),
        ("a", "VCF.GZ", ["a"]),
        ("a.txt", ".npz", ["a.txt"]),
        ("-", "vcf", ["-"]),
    ],
)
def test_names(name: str, format_name: str | None, expected: list[str], tmp_path: Path) -> None:
    written = write_genotypes(make([[0, 1]]), tmp_path / name, format=format_name)
    assert [path.name for path in written] == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(expected)


@pytest.mark.parametrize(("name", "given"), [("out", None), ("out.txt", None), ("out.vcf", "vcfs")])
def test_no_format(name: str, given: str | None, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"vcf, vcf\.gz, .*npz"):
        write_genotypes(make([[0]]), tmp_path / name, format=given)
    assert not list(tmp_path.iterdir())


# Refused before anything is written.


PLINK, VCFS = ("bed", "pgen"), ("vcf", "vcf.gz", "bcf")


def with_name(kind: str, name: str) -> GenotypeMatrix:
    genotypes = make([[0, 1], [1, 2]], family=True)
    if kind == "sample id":
        return dataclasses.replace(genotypes, sample_id=np.array(["S0", name]))
    if kind == "family id":
        return dataclasses.replace(genotypes, family_id=np.array(["F0", name]))
    variants = genotypes.variants.copy()
    variants.loc[1, kind] = name
    return dataclasses.replace(genotypes, variants=variants)


REFUSED = [
    *((f, "sample id", n) for f in PLINK for n in ("a b", "a\tb", "a\n", "0", "#a", "", "\udc80")),
    *((f, "family id", n) for f in PLINK for n in ("a b", "#a", "")),
    *((f, k, n) for f in PLINK for k in ("contig", "id") for n in ("a b", "")),
    *((f, "contig", "#1") for f in (*PLINK, *VCFS)),
    *((f, "sample id", n) for f in VCFS for n in ("a\tb", "a\n", "a\r", "a\0b", "", "\udc80")),
    *((f, "contig", n) for f in VCFS for n in ("a b", "<1>", "a,b", "")),
    *((f, "id", n) for f in VCFS for n in ("a b", "")),
    *((f, k, n) for f in (*PLINK, *VCFS) for k in ("ref", "alt") for n in ("A,C", "A C", "")),
    ("vcz", "sample id", "\udc80"),
]


@pytest.mark.parametrize(("format_name", "kind", "name"), REFUSED)
def test_names_that_a_format_cannot_hold(
    format_name: str, kind: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(OutputError) as caught:
        write_genotypes(with_name(kind, name), tmp_path / f"out.{format_name}")
    message = str(caught.value)
    said = {"id": "variant id", "ref": "REF", "alt": "ALT"}.get(kind, kind)
    assert message.startswith(f"{tmp_path / f'out.{format_name}'}: {said} {name!a} cannot stand in")
    assert "rename it" in message
    assert message.isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format_name", [*VCFS, "vcz"])
def test_names_that_only_plink_cannot_hold(format_name: str, tmp_path: Path) -> None:
    for number, name in enumerate(("a b", "0", "#a", "a,b", "'\"")):
        path = tmp_path / f"{number}.{format_name}"
        write_genotypes(with_name("sample id", name), path)
        assert READERS[format_name](path)[1] == ["S0", name]


@pytest.mark.parametrize("position", [0, -5, 2**31 - 1])
@pytest.mark.parametrize("format_name", ["vcf", "bcf", "bed", "pgen", "vcz"])
def test_positions_that_a_format_cannot_hold(
    position: int, format_name: str, tmp_path: Path
) -> None:
    genotypes = make([[0, 1]])
    genotypes.variants["position"] = [1, position]
    with pytest.raises(OutputError, match=f"variant 2 has position {position}"):
        write_genotypes(genotypes, tmp_path / f"out.{format_name}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
@pytest.mark.parametrize("format_name", FORMATS)
def test_nothing_to_write(shape: tuple[int, int], format_name: str, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughDataError, match="loosen the filters"):
        write_genotypes(make(np.empty(shape)), tmp_path / f"out.{format_name}")
    assert not list(tmp_path.iterdir())


def test_without_zarr_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(OptionError, match=r'pip install "ancestry-ddvi\[zarr\]"'):
        write_genotypes(make([[0]]), tmp_path / "out.vcz")
    assert not list(tmp_path.iterdir())


# Whole or not at all.


@pytest.mark.parametrize("format_name", READERS)
def test_replaces_only_by_force(format_name: str, tmp_path: Path) -> None:
    old, new = make([[0, 1]]), make([[2, -1], [1, 1]])
    path = tmp_path / f"out.{format_name}"
    write_genotypes(old, path)
    before = content(tmp_path)
    with pytest.raises(OutputError, match="already exists; add --force"):
        write_genotypes(new, path)
    assert content(tmp_path) == before
    written = write_genotypes(new, path, force=True)
    np.testing.assert_array_equal(READERS[format_name](path)[0], new.dosage)
    assert sorted(tmp_path.iterdir()) == sorted(written)


@pytest.mark.parametrize("member", [".bed", ".bim", ".fam"])
def test_one_file_of_a_set_is_enough_to_refuse(member: str, tmp_path: Path) -> None:
    (tmp_path / f"out{member}").write_text("mine")
    with pytest.raises(OutputError, match=f"out{member}: already exists"):
        write_genotypes(make([[0]]), tmp_path / "out.bed")
    assert content(tmp_path) == {f"out{member}": b"mine"}


@pytest.mark.parametrize("name", ["out.vcf", "out.vcz", "out.bed"])
def test_a_folder_of_other_things_is_never_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="is a folder"):
        write_genotypes(make([[0]]), tmp_path / name, force=True)
    assert content(tmp_path) == {f"{name}/thesis.tex": b"mine"}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="make that folder"):
        write_genotypes(make([[0]]), tmp_path / "no" / "out.vcf")
    assert not list(tmp_path.iterdir())


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(OutputError, match="not a file"):
        write_genotypes(make([[0]]), "/dev/null", format="vcf", force=True)


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "input.vcf").write_text("mine")
    (tmp_path / "out.vcf").symlink_to("input.vcf")
    with pytest.raises(OutputError, match="already exists"):
        write_genotypes(make([[0]]), tmp_path / "out.vcf")
    write_genotypes(make([[0]]), tmp_path / "out.vcf", force=True)
    assert (tmp_path / "input.vcf").read_text() == "mine"
    assert not (tmp_path / "out.vcf").is_symlink()


class Breaking(np.ndarray):
    """A matrix that ends the program when a block other than the first is asked for."""

    error: BaseException

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and isinstance(key[1], slice) and key[1].start:
            raise self.error
        return super().__getitem__(key)


@pytest.mark.parametrize("format_name", READERS)
@pytest.mark.parametrize("error", [KeyboardInterrupt("^C"), MemoryError("full")])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupt_leaves_things_as_they_were(
    format_name: str, error: BaseException, existing: bool, large: GenotypeMatrix, tmp_path: Path
) -> None:
    path = tmp_path / f"out.{format_name}"
    if existing:
        write_genotypes(make([[0, 1]]), path)
    before = content(tmp_path)
    dosage = large.dosage.view(Breaking)
    dosage.error = error
    # What stopped it comes through, not a library's complaint that variants are missing.
    with pytest.raises(type(error), match=str(error).replace("^", r"\^")):
        write_genotypes(dataclasses.replace(large, dosage=dosage), path, force=existing)
    assert content(tmp_path) == before
    assert not existing or len(before)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@contextmanager
def no_file_above(n_bytes: int) -> Iterator[None]:
    """As on a full disk: a write beyond that size fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("format_name", READERS)
def test_a_full_disk(format_name: str, large: GenotypeMatrix, tmp_path: Path) -> None:
    with no_file_above(2**16), pytest.raises(OutputError, match="writing failed") as caught:
        write_genotypes(large, tmp_path / f"out.{format_name}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_while_bcftools_writes(
    large: GenotypeMatrix, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pysam.bcftools

    view = pysam.bcftools.view

    def limited(*words: str, **options: Any) -> Any:
        with no_file_above(2**16):
            return view(*words, **options)

    monkeypatch.setattr(pysam.bcftools, "view", limited)
    with pytest.raises(OutputError, match="writing failed"):
        write_genotypes(large, tmp_path / "out.bcf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["out.bed", "out.bim", "out.fam"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_set_appears_together(
    failing: str, existing: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if existing:
        write_genotypes(make([[0, 1]]), tmp_path / "out.bed")
    before = content(tmp_path)
    rename = Path.rename

    def fails(self: Path, goal: Path) -> Path:
        if self.name.startswith("new-") and goal.name == failing:
            raise OSError(5, "Input/output error")
        return rename(self, goal)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(InputError, match="Input/output error"):
        write_genotypes(make([[2, 2]]), tmp_path / "out.bed", force=True)
    assert content(tmp_path) == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_the_files_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    for format_name in ("vcf", "vcf.gz", "bcf", "bed", "pgen", "npz"):
        for path in write_genotypes(make([[0]]), tmp_path / f"out.{format_name}"):
            assert path.stat().st_mode == usual.stat().st_mode
