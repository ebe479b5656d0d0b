"""The same genotypes in every format are the same matrix, and that of plink2 and bcftools."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from bed_reader import to_bed
from conftest import Cut
from helpers import make_variants, vcf_header, write_text
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.loaders import read_genotypes
from ancestry_ddvi.loaders.htslib import HtslibSource
from ancestry_ddvi.loaders.options import ReadOptions
from ancestry_ddvi.loaders.read import read_sources
from ancestry_ddvi.writers import write_genotypes

pytest.importorskip("zarr")

FORMATS = ("vcf", "vcf.gz", "bcf", "bed", "pgen", "vcz", "npz")
SPLIT = ReadOptions(multiallelic="split")
needs_programs = pytest.mark.skipif(
    shutil.which("plink2") is None or shutil.which("bcftools") is None,
    reason="plink2 or bcftools is not installed",
)


def run(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def plink2(*words: object) -> None:
    run("plink2", *words, "--allow-extra-chr", "--threads", "1", "--memory", "640")


def matrix(dosage: np.ndarray) -> GenotypeMatrix:
    n_samples, n_variants = dosage.shape
    return GenotypeMatrix(
        dosage.astype(np.int8),
        np.array([f"S{i}" for i in range(n_samples)]),
        make_variants(n_variants),
        {"path": "memory", "format": "memory"},
    )


def write_by_sample(genotypes: GenotypeMatrix, path: Path) -> Path:
    """A .bed whose rows are samples, by bed-reader."""
    table = genotypes.variants
    to_bed(
        path,
        np.where(genotypes.dosage < 0, -127, genotypes.dosage).astype(np.int8),
        properties={
            "iid": genotypes.sample_id,
            "chromosome": table["contig"],
            "sid": table["id"],
            "bp_position": table["position"],
            "allele_1": table["alt"],
            "allele_2": table["ref"],
        },
        major="individual",
        num_threads=1,
    )
    assert path.read_bytes()[2] == 0
    return path


def by_ours(genotypes: GenotypeMatrix, folder: Path) -> list[Path]:
    """In every format that we write, and as a .bed by sample."""
    paths = [write_genotypes(genotypes, folder / f"ours.{name}")[0] for name in FORMATS]
    return [*paths, write_by_sample(genotypes, folder / "by_sample.bed")]


def by_theirs(vcf: Path, folder: Path) -> list[Path]:
    """Converted by the programs themselves."""
    run("bcftools", "view", "-O", "b", "-o", folder / "theirs.bcf", vcf)
    run("bcftools", "view", "-O", "z", "-o", folder / "theirs.vcf.gz", vcf)
    plink2("--vcf", vcf, "--make-bed", "--out", folder / "bed")
    plink2("--vcf", vcf, "--make-pgen", "--out", folder / "pgen")
    plink2("--vcf", vcf, "--make-pgen", "vzs", "--out", folder / "vzs")
    return [
        *(folder / "theirs.bcf", folder / "theirs.vcf.gz", folder / "bed.bed"),
        *(folder / "pgen.pgen", folder / "vzs.pgen"),
    ]


def exported(flag: str, given: Path) -> np.ndarray:
    """(n_samples, n_variants) copies of ALT by `plink2 --export A`."""
    out = given.parent / "exported"
    plink2(flag, given, "--export", "A", "--out", out)
    raw = pd.read_csv(f"{out}.raw", sep="\t").iloc[:, 6:]
    counted = raw.fillna(9).to_numpy().astype(int)
    return np.where(counted == 9, -1, 2 - counted)  # it counts REF, unless told otherwise


def queried(path: Path) -> np.ndarray:
    """(n_samples, n_variants) copies of the one ALT by `bcftools query`."""
    code = {"0/0": 0, "0/1": 1, "1/0": 1, "1/1": 2, "./.": -1}
    code |= {"0|0": 0, "0|1": 1, "1|0": 1, "1|1": 2, ".": -1}
    lines = run("bcftools", "query", "-f", "[%GT\\t]\\n", path).splitlines()
    return np.array([[code[call] for call in line.split("\t")[:-1]] for line in lines]).T


def read_all(paths: Sequence[Path], options: ReadOptions | None = None) -> list[GenotypeMatrix]:
    """Each of them; of a VCF also by htslib alone."""
    slow = [read_sources([HtslibSource(p)], options) for p in paths if ".vcf" in p.name]
    return [*(read_genotypes(path, options) for path in paths), *slow]


dosages = st.tuples(st.integers(1, 9), st.integers(1, 7)).flatmap(
    lambda shape: arrays(np.int8, shape, elements=st.integers(-1, 2))
)


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(dosages)
@example(np.full((1, 1), -1))
@example(np.zeros((4, 3), dtype=np.int8))
@example(np.full((5, 3), 2))
@example(np.array([[0, 1, 2, -1]] * 4))
def test_every_format_is_the_same_matrix(dosage: np.ndarray) -> None:
    expected = matrix(dosage)
    with TemporaryDirectory() as name:
        for read in read_all(by_ours(expected, Path(name))):
            np.testing.assert_array_equal(read.dosage, dosage)
            assert read.content_hash() == expected.content_hash(), read.source


@needs_programs
@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(dosages)
@example(np.array([[0, 1, 2, -1]] * 5))
def test_the_programs_agree(dosage: np.ndarray) -> None:
    expected = matrix(dosage)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (vcf,) = write_genotypes(expected, folder / "x.vcf")
        for read in read_all(by_theirs(vcf, folder)):
            assert read.content_hash() == expected.content_hash(), read.source
        for written in ("vcf.gz", "bcf"):
            (path,) = write_genotypes(expected, folder / f"y.{written}")
            np.testing.assert_array_equal(queried(path), dosage)
        for flag, written in (("--bfile", "bed"), ("--pfile", "pgen")):
            path = write_genotypes(expected, folder / f"y.{written}")[0]
            np.testing.assert_array_equal(exported(flag, path.with_suffix("")), dosage)


@needs_programs
def test_real_data(cut: Cut, tmp_path: Path) -> None:
    """150 samples of the bundled data, phased, from the programs and from us."""
    whole = read_genotypes(cut.vcf)
    assert whole.n_variants > 2000
    np.testing.assert_array_equal(exported("--vcf", cut.vcf), whole.dosage)
    np.testing.assert_array_equal(queried(cut.vcf), whole.dosage)
    for read in read_all([cut.vcf, *by_theirs(cut.vcf, tmp_path), *by_ours(whole, tmp_path)]):
        assert read.content_hash() == whole.content_hash(), read.source


# Multiallelic records.


@st.composite
def multiallelic(draw: st.DrawFn) -> list[tuple[str, list[str], np.ndarray]]:
    """(REF, ALTs, (n_samples, 2) allele indices) of each record; missing calls are whole."""
    n_samples = draw(st.integers(1, 7))
    records = []
    for _ in range(draw(st.integers(1, 5))):
        ref, *others = draw(st.permutations("ACGT"))
        alts = others[: draw(st.integers(1, 3))]
        if draw(st.booleans()):
            alts.insert(draw(st.integers(0, len(alts))), ref + "AA")
        calls = draw(arrays(np.int8, (n_samples, 2), elements=st.integers(0, len(alts))))
        calls[draw(arrays(bool, n_samples))] = -1
        records.append((ref, alts, calls))
    return records


@needs_programs
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(multiallelic(), st.sampled_from("/|"))
def test_multiallelic_records(
    records: list[tuple[str, list[str], np.ndarray]], separator: str
) -> None:
    """Split by us as counted here; from VCF, BCF and PLINK 2; and as `bcftools norm -m-` has it."""
    n_samples = len(records[0][2])
    lines, expected = [], []
    for number, (ref, alts, calls) in enumerate(records):
        words = [separator.join("." if a < 0 else str(a) for a in call) for call in calls]
        site = ("1", str(10 + number), f"rs{number}", ref, ",".join(alts), ".", ".", ".", "GT")
        lines.append("\t".join((*site, *words)) + "\n")
        for at, alt in enumerate(alts, start=1):
            if len(alt) == 1:
                copies = (calls == at).sum(axis=1)
                expected.append(np.where(calls[:, 0] < 0, -1, copies))
    meta = vcf_header([f"S{i}" for i in range(n_samples)])
    text = meta.replace("#CHROM", "##contig=<ID=1>\n#CHROM") + "".join(lines)
    with TemporaryDirectory() as name:
        folder = Path(name)
        vcf = write_text(folder / "x.vcf", text)
        run("bcftools", "view", "-O", "b", "-o", folder / "x.bcf", vcf)
        plink2("--vcf", vcf, "--make-pgen", "--out", folder / "x")
        paths = [vcf, write_text(folder / "x.vcf.gz", text, "bgzip"), folder / "x.bcf"]
        reads = read_all([*paths, folder / "x.pgen"], SPLIT)
        for read in reads:
            np.testing.assert_array_equal(read.dosage.T, expected)
            assert read.content_hash() == reads[0].content_hash(), read.source
        run("bcftools", "norm", "-m-", "-O", "v", "-o", folder / "split.vcf", vcf)
        split = read_genotypes(folder / "split.vcf")
        np.testing.assert_array_equal(split.dosage.T, expected)
        assert split.content_hash() == reads[0].content_hash()
        skipped = {len(alts) > 1 for _, alts, _ in records}
        if skipped == {False}:
            assert read_genotypes(vcf).content_hash() == reads[0].content_hash()
