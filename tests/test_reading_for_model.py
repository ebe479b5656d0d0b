"""What is read at the places of a model, which is more than what a map is learnt from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import vcf_header, write_text

from ancestry_ddvi.errors import GenotypeFileError
from ancestry_ddvi.genotypes import GenotypeMatrix, Seen
from ancestry_ddvi.loaders.calls import dosage_of
from ancestry_ddvi.loaders.htslib import HtslibSource
from ancestry_ddvi.loaders.lists import VariantList
from ancestry_ddvi.loaders.options import ReadOptions
from ancestry_ddvi.loaders.read import read_sources
from ancestry_ddvi.loaders.source import CallRule
from ancestry_ddvi.loaders.vcf import VcfSource
from ancestry_ddvi.preprocessing.alignment import Matched, match

PLACES = frozenset(f"1:{position}" for position in range(100, 1000, 100))
MODEL = VariantList("the model", frozenset(), PLACES, frozenset())
AT_MODEL = ReadOptions(places=MODEL)

RECORDS = [
    ("chr1", 100, "A", "G,T", ".", "0/1 1/2 2/2"),
    ("chr1", 200, "C", ".", ".", "0/0 ./. 0/0"),
    ("chr1", 300, "G", "<NON_REF>", "END=350", "0/0 0/1 ./."),
    ("chr1", 360, "G", "<NON_REF>", "END=420", "0/0 0/0 ./."),
    ("chr1", 400, "A", "G,<NON_REF>", ".", "0/1 1/1 0/2"),
    ("chr1", 500, "A", "G", ".", "0/0 0/1 1/1"),
    ("chr1", 500, "A", "G", ".", "./. 0/1 1/1"),
    ("chr1", 600, "A", "AT", ".", "0/0 0/1 1/1"),
    ("chr1", 700, "AT", ".", ".", "0/0 0/0 0/0"),
    ("chr1", 800, "A", "G,*", ".", "0/2 0/1 0/0"),
    ("chr2", 100, "A", "G", ".", "0/0 0/1 1/1"),
    ("chrX", 100, "A", "G", ".", "0/0 0/1 1/1"),
]


def write(path: Path, records: list[tuple[str, int, str, str, str, str]]) -> Path:
    header = vcf_header(["a", "b", "c"]).replace(
        "##FORMAT", '##INFO=<ID=END,Number=1,Type=Integer,Description="End">\n##FORMAT', 1
    )
    lines = [
        "\t".join([contig, str(at), ".", ref, alt, ".", "PASS", info, "GT", *calls.split()])
        for contig, at, ref, alt, info, calls in records
    ]
    return write_text(path, header + "\n".join(lines) + "\n")


def read(path: Path, way: str, options: ReadOptions = AT_MODEL) -> GenotypeMatrix:
    if way == "guarded":
        return read_sources([HtslibSource.guarded(path)], options)
    return read_sources([VcfSource(path, fast=way == "fast")], options)


def columns(genotypes: GenotypeMatrix) -> dict[tuple[int, str], list[list[int]]]:
    """The dosages of all variants of a position and ALT."""
    found: dict[tuple[int, str], list[list[int]]] = {}
    table = genotypes.variants
    for position, alt, dosage in zip(
        table["position"], table["alt"], genotypes.dosage.T.tolist(), strict=True
    ):
        found.setdefault((position, alt), []).append(dosage)
    return found


@pytest.mark.parametrize("way", ["fast", "htslib", "guarded"])
def test_what_is_read_for_a_model(tmp_path: Path, way: str) -> None:
    genotypes = read(write(tmp_path / "x.vcf", RECORDS), way)
    assert columns(genotypes) == {
        # A genotype with another ALT allele is none that the model knows.
        (100, "G"): [[1, -1, -1]],
        (100, "T"): [[-1, -1, 2]],
        # Without ALT a call says that there is nothing but REF.
        (200, "."): [[0, -1, 0]],
        (300, "."): [[0, -1, -1]],
        (400, "G"): [[1, 2, -1]],
        # Which of them to use is for whoever matches them.
        (500, "G"): [[0, 1, 2], [-1, 1, 2]],
        (800, "G"): [[-1, 1, 0]],
    }
    assert dict(genotypes.left_out) == {
        "not a variant of the model": 2,
        "symbolic or missing ALT": 2,
        "indel or multi-nucleotide": 2,
        "not on an autosome": 1,
    }
    at = (100, 200, 300, 400, 500, 600, 700, 800)
    assert genotypes.seen == Seen({"1", "2", "X"}, {("1", position) for position in at})


@pytest.mark.parametrize("way", ["fast", "htslib"])
def test_without_a_model_nothing_is_otherwise(tmp_path: Path, way: str) -> None:
    path = write(tmp_path / "x.vcf", RECORDS)
    assert columns(read(path, way, ReadOptions())) == {
        (500, "G"): [[0, 1, 2]],
        (100, "G"): [[0, 1, 2]],
    }
    split = columns(read(path, way, ReadOptions(multiallelic="split")))
    assert split[100, "G"] == [[1, 1, 0], [0, 1, 2]]
    assert split[100, "T"] == [[0, 1, 2]]


@pytest.mark.parametrize("way", ["fast", "htslib"])
def test_multiallelic_records_are_left_out_if_that_is_asked_for(tmp_path: Path, way: str) -> None:
    path = write(tmp_path / "x.vcf", RECORDS)
    options = ReadOptions(places=MODEL, multiallelic="skip")
    genotypes = read(path, way, options)
    assert genotypes.variants["position"].tolist() == [200, 300, 500, 500]
    assert genotypes.left_out["multiallelic"] == 3
    # They are not absent.
    assert ("1", 100) in genotypes.seen.places


@pytest.mark.parametrize("way", ["fast", "htslib"])
def test_a_call_of_an_alt_that_the_record_lacks_is_refused(tmp_path: Path, way: str) -> None:
    path = write(tmp_path / "x.vcf", [("1", 200, "C", ".", ".", "0/0 0/1 0/0")])
    with pytest.raises(GenotypeFileError, match="genotype '0/1', but the record has 0 ALT alleles"):
        read(path, way)


def test_a_file_without_a_variant_of_the_model_is_an_empty_matrix(tmp_path: Path) -> None:
    """Whoever matches it says why."""
    genotypes = read(write(tmp_path / "x.vcf", RECORDS[-2:]), "fast")
    assert genotypes.dosage.shape == (3, 0)
    assert genotypes.seen.contigs == {"2", "X"}


# Reference blocks of a gVCF.

GVCF = [
    ("1", 50, "T", "<NON_REF>", "DP=9;END=250", "0/0:9 0/1:9 ./.:0"),
    ("1", 300, "A", "G,<NON_REF>", ".", "0/1:9 0/0:9 ./.:0"),
    ("1", 301, "C", ".", "END=399", "0/0:9 0/0:9 0/0:9"),
    ("1", 400, "A", "<NON_REF>", "END=599", "0/0:9 ./.:0 0/0:9"),
    ("1", 600, "A", "AT,<NON_REF>", ".", "0/1:9 0/0:9 0/0:9"),
    ("1", 601, "A", "G", "END=750", "0/0:9 0/0:9 0/0:9"),
    ("1", 800, "A", "<NON_REF>", "BEND=950", "0/0:9 0/0:9 0/0:9"),
]
OF_SITES = pd.DataFrame(
    {"contig": "1", "position": range(100, 1000, 100), "id": ".", "ref": "A", "alt": "G"}
)


def write_gvcf(path: Path) -> Path:
    vcf = write(path, GVCF)
    return write_text(vcf, vcf.read_text().replace("\tGT\t", "\tGT:DP\t"))


@pytest.mark.parametrize("way", ["fast", "htslib", "guarded"])
def test_what_a_gvcf_has_inside_its_blocks(tmp_path: Path, way: str) -> None:
    path = write_gvcf(tmp_path / "x.vcf")
    genotypes = read(path, way, replace(AT_MODEL, blocks=True))
    assert columns(genotypes) == {
        (100, "."): [[0, -1, -1]],
        (200, "."): [[0, -1, -1]],
        (300, "G"): [[1, 0, -1]],
        (400, "."): [[0, -1, 0]],
        (500, "."): [[0, -1, 0]],
        (800, "."): [[0, 0, 0]],
    }
    assert genotypes.variants["ref"].tolist() == ["N", "N", "A", "A", "N", "A"]
    found = match(genotypes, OF_SITES, absent_is_ref=True)
    # 600 has a record that is none of the model; 700 and 900 are in no block of REF alone.
    missing = [-1, -1, -1]
    expected = [[0, -1, -1], [0, -1, -1], [1, 0, -1], [0, -1, 0], [0, -1, 0], missing, missing]
    assert found.dosage(slice(None)).T.tolist() == [*expected, [0, 0, 0], missing]
    assert found.matched == Matched(same=3, swapped=0, absent=3, reference=3)
    # Unless it is asked for, no block says anything of what is inside.
    found = match(genotypes, OF_SITES)
    assert found.matched == Matched(same=3, swapped=0, absent=6)
    assert (found.column >= 0).tolist() == [False, False, True, True, *[False] * 3, True, False]
    # Control: without blocks, whatever has no record is taken for REF.
    found = match(read(path, way), OF_SITES, absent_is_ref=True)
    assert found.matched == Matched(same=3, swapped=0, absent=1, reference=5)


def test_other_alleles_of_haploid_and_half_calls() -> None:
    first, second = np.array([[2, 1, 0, -1, -1], [-2, -2, -2, 2, 1]])
    missing = CallRule("reference", others_missing=True)
    assert dosage_of(first, second, 1, missing).tolist() == [-1, 2, 0, -1, 1]
    missing = CallRule("haploid", others_missing=True)
    assert dosage_of(first, second, 1, missing).tolist() == [-1, 2, 0, -1, 2]
    assert dosage_of(first, second, 1, CallRule("haploid")).tolist() == [0, 2, 0, 0, 2]
