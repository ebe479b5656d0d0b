"""VCF: a golden file cell by cell, round trips, an independent reader, and every bad input."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import allel
import numpy as np
import pandas as pd
import pysam
import pytest
from helpers import vcf_header, write_text, write_vcf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ancestry_ddvi.errors import GenotypeFileError, NotEnoughDataError
from ancestry_ddvi.genotypes import VARIANT_COLUMNS, GenotypeMatrix
from ancestry_ddvi.loaders import ReadOptions, read_genotypes
from ancestry_ddvi.loaders.htslib import HtslibSource
from ancestry_ddvi.loaders.lists import read_variants
from ancestry_ddvi.loaders.read import read_sources
from ancestry_ddvi.loaders.regions import RegionSet
from ancestry_ddvi.loaders.sites import is_autosome

GOLDEN = Path(__file__).parent / "data" / "golden.vcf"
REAL = Path(__file__).parent.parent / "data" / "1kg_phase3_24k.vcf.gz"

SAMPLES = ["S1", "S2", "S3"]


def record(*genotypes: str, **fields: str) -> str:
    """One line of a VCF; without changes a plain A>C SNP at 1:10."""
    line = {"contig": "1", "position": "10", "id": ".", "ref": "A", "alt": "C"}
    line |= {"qual": ".", "filter": ".", "info": ".", "format": "GT"} | fields
    return "\t".join([*line.values(), *(genotypes or ("0/0", "0/1", "1/1"))]) + "\n"


def read_both(path: Path) -> GenotypeMatrix:
    """By the fast reader, which htslib alone agrees with."""
    fast, slow = read_genotypes(path), read_sources([HtslibSource(path)])
    assert_same(fast, slow)
    assert fast.content_hash() == slow.content_hash()
    assert fast.by_rule == slow.by_rule
    assert fast.source == slow.source
    return fast


def read_text(tmp_path: Path, text: str, compress: str = "none") -> GenotypeMatrix:
    return read_both(write_text(tmp_path / "file.vcf", text, compress))


def read_records(tmp_path: Path, *records: str) -> GenotypeMatrix:
    return read_text(tmp_path, vcf_header(SAMPLES) + "".join(records))


def message_of(path: Path) -> str:
    """The error of reading `path`: one line that begins with the path."""
    with pytest.raises(GenotypeFileError) as caught:
        read_genotypes(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def message_of_text(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "file.vcf"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return message_of(path)


def message_of_records(tmp_path: Path, *records: str) -> str:
    return message_of_text(tmp_path, vcf_header(SAMPLES) + "".join(records))


def assert_same(one: GenotypeMatrix, other: GenotypeMatrix) -> None:
    np.testing.assert_array_equal(one.dosage, other.dosage)
    np.testing.assert_array_equal(one.sample_id, other.sample_id)
    pd.testing.assert_frame_equal(one.variants, other.variants)
    assert one.left_out == other.left_out


# The golden file, to be read beside tests/data/golden.vcf.

GOLDEN_KEPT = [
    # contig, position, id, ref, alt, dosages of S1, S2 and S3
    ("1", 100, "rs100", "A", "C", [0, 1, 2]),
    ("1", 150, ".", "G", "T", [0, 1, 1]),  # phased
    ("1", 200, ".", "A", "G", [-1, -1, -1]),  # ./., half calls, lower-case alleles
    ("1", 250, ".", "T", "A", [-1, -1, 2]),  # a lone dot, a half call
    ("1", 300, ".", "C", "T", [1, 2, 0]),  # GT:DP
    ("1", 310, ".", "C", "T", [2, 0, -1]),  # DP:GT, and a cell that ends before its GT
    ("1", 600, ".", "A", "C", [0, 1, 2]),  # a haploid call counts as homozygous
    ("1", 620, ".", "A", "C", [0, 2, 0]),
    ("1", 100, "other", "A", "G", [1, 0, 0]),  # the position of rs100, another allele
    ("chr22", 800, ".", "G", "A", [2, 1, 0]),
    ("2", 50, "last", "T", "C", [0, 0, 1]),
]
GOLDEN_LEFT_OUT = {
    "multiallelic": 2,  # 1:350 1:360
    "indel or multi-nucleotide": 3,  # 1:400 1:410 1:420
    "symbolic or missing ALT": 4,  # 1:450 1:460 1:470 1:480
    "allele other than A, C, G or T": 2,  # 1:500 1:510
    "REF and ALT are the same": 1,  # 1:520
    "no GT in this record": 1,  # 1:550
    "neither diploid nor haploid": 1,  # 1:610
    "duplicated site": 1,  # 1:100 later
    "not on an autosome": 6,  # X chrX Y chrM MT 23
}


@pytest.mark.parametrize("compress", ["none", "gzip", "bgzip"])
def test_golden_file(tmp_path: Path, compress: str) -> None:
    genotypes = read_text(tmp_path, GOLDEN.read_text(), compress)
    assert genotypes.sample_id.tolist() == SAMPLES
    rows = [tuple(row) for row in genotypes.variants.itertuples(index=False)]
    assert rows == [kept[:5] for kept in GOLDEN_KEPT]
    assert genotypes.dosage.T.tolist() == [kept[5] for kept in GOLDEN_KEPT]
    assert dict(genotypes.left_out) == GOLDEN_LEFT_OUT


def test_every_record_is_kept_or_counted() -> None:
    n_records = sum(not line.startswith("#") for line in GOLDEN.read_text().splitlines())
    genotypes = read_genotypes(GOLDEN)
    assert genotypes.n_variants + sum(genotypes.left_out.values()) == n_records


@pytest.mark.parametrize("compress", ["none", "gzip", "bgzip"])
def test_form_of_the_result(tmp_path: Path, compress: str) -> None:
    path = write_text(tmp_path / "golden", GOLDEN.read_text(), compress)
    genotypes = read_genotypes(path)
    assert genotypes.dosage.dtype == np.int8
    assert genotypes.dosage.flags.f_contiguous
    assert tuple(genotypes.variants.columns) == VARIANT_COLUMNS
    assert genotypes.variants["position"].dtype == np.int64
    assert genotypes.source == {
        "path": str(path),
        "format": f"VCF ({'plain text' if compress == 'none' else compress})",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


# Round trips.


@pytest.mark.parametrize("compress", ["none", "gzip", "bgzip"])
def test_write_then_read(tmp_path: Path, compress: str) -> None:
    """More records than one block of the parser, and many bgzip blocks."""
    dosage = np.random.default_rng(0).integers(-1, 3, size=(40, 1500)).astype(np.int8)
    sample_id = [f"S{i}" for i in range(40)]
    genotypes = read_genotypes(write_vcf(tmp_path / "x", dosage, sample_id, compress=compress))
    np.testing.assert_array_equal(genotypes.dosage, dosage)
    assert genotypes.sample_id.tolist() == sample_id
    assert dict(genotypes.left_out) == {}


@settings(max_examples=60, deadline=None)
@given(
    dosage=arrays(
        np.int8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-1, 2)
    ),
    data=st.data(),
)
def test_write_then_read_property(dosage: np.ndarray, data: st.DataObject) -> None:
    n_samples, n_variants = dosage.shape
    name = st.text(
        st.characters(min_codepoint=33, codec="utf-8", exclude_categories=("Z", "C")), min_size=1
    )
    sample_id = data.draw(
        st.lists(name, min_size=n_samples, max_size=n_samples, unique=True), "sample ids"
    )
    position = st.integers(1, 2**31 - 1)
    alleles = st.sampled_from([(ref, alt) for ref in "ACGT" for alt in "ACGT" if ref != alt])
    contig = st.sampled_from(["1", "22", "chr7", "NC_000003.12"])
    sites = data.draw(
        st.lists(
            st.tuples(contig, position, alleles),
            min_size=n_variants,
            max_size=n_variants,
            unique=True,
        ),
        "sites",
    )
    variants = pd.DataFrame(
        [(contig, position, ".", *alleles) for contig, position, alleles in sites],
        columns=list(VARIANT_COLUMNS),
    )
    compress = data.draw(st.sampled_from(["none", "gzip", "bgzip"]), "compress")
    with TemporaryDirectory() as folder:
        path = write_vcf(Path(folder) / "x", dosage, sample_id, variants, compress)
        genotypes = read_both(path)
    np.testing.assert_array_equal(genotypes.dosage, dosage)
    assert genotypes.sample_id.tolist() == sample_id
    pd.testing.assert_frame_equal(genotypes.variants, variants)


def test_carriage_returns_and_no_final_line_feed(tmp_path: Path) -> None:
    expected = read_text(tmp_path, GOLDEN.read_text())
    assert_same(read_text(tmp_path, GOLDEN.read_text().replace("\n", "\r\n")), expected)
    assert_same(read_text(tmp_path, GOLDEN.read_text().removesuffix("\n")), expected)


def test_the_name_does_not_decide(tmp_path: Path) -> None:
    path = write_text(tmp_path / "misleading.bed", GOLDEN.read_text(), "bgzip")
    assert_same(read_genotypes(path), read_genotypes(GOLDEN))


def test_agrees_with_scikit_allel_on_real_data(tmp_path: Path) -> None:
    with gzip.open(REAL, "rt") as lines:
        text = "".join(line for _, line in zip(range(326), lines, strict=False))
    ours = read_text(tmp_path, text, "bgzip")
    theirs = allel.read_vcf(
        io.BytesIO(text.encode()), fields=["samples", "POS", "REF", "ALT", "GT"]
    )
    assert ours.n_variants > 290
    np.testing.assert_array_equal(ours.sample_id, theirs["samples"].astype(str))
    np.testing.assert_array_equal(ours.variants["position"], theirs["variants/POS"])
    np.testing.assert_array_equal(ours.variants["ref"], theirs["variants/REF"].astype(str))
    np.testing.assert_array_equal(ours.variants["alt"], theirs["variants/ALT"][:, 0].astype(str))
    expected = allel.GenotypeArray(theirs["calldata/GT"]).to_n_alt(fill=-1)
    np.testing.assert_array_equal(ours.dosage, expected.T)


def test_progress_rises_to_one(tmp_path: Path) -> None:
    dosage = np.zeros((3, 3000), dtype=np.int8)
    path = write_vcf(tmp_path / "x", dosage, SAMPLES, compress="bgzip")
    seen: list[float] = []
    read_genotypes(path, progress=seen.append)
    read_sources([HtslibSource(path)], progress=seen.append)
    assert len(seen) > 5
    assert all(0 <= fraction <= 1 for fraction in seen)
    assert seen.count(1.0) >= 2
    later = seen[seen.index(1.0) + 1 :]
    assert sorted(later[-5:]) == later[-5:]


# Small decisions.


@pytest.mark.parametrize(
    "contig", ["1", "22", "chr1", "CHR22", "Chr3", "NC_000001.11", "CM000684.2", "01", "chr09"]
)
def test_autosomes(contig: str) -> None:
    assert is_autosome(contig)


@pytest.mark.parametrize(
    "contig",
    [
        "X",
        "Y",
        "XY",
        "M",
        "MT",
        "0",
        "23",
        "24",
        "25",
        "26",
        "chrX",
        "chry",
        "Chrx",
        "chrM",
        "NC_000023.11",
        "NC_012920.1",
        "CM000685.2",
        "chr1_KI270706v1_random",
        "GL000192.1",
        "scaffold_1",
        "00",
    ],
)
def test_not_autosomes(contig: str) -> None:
    assert not is_autosome(contig)


def test_duplicate_of_a_record_that_was_left_out_is_kept(tmp_path: Path) -> None:
    genotypes = read_records(tmp_path, record("0/0/0", "1", "1"), record("0/1", "0/0", "1/1"))
    assert genotypes.dosage.T.tolist() == [[1, 0, 2]]
    assert dict(genotypes.left_out) == {"neither diploid nor haploid": 1}


def test_duplicates_far_apart_and_in_lower_case(tmp_path: Path) -> None:
    others = [record(position=str(100 + i)) for i in range(1100)]
    again = record("1/1", "1/1", "1/1", ref="a", alt="c")
    genotypes = read_records(tmp_path, record(), *others, again, record(position="5000"))
    assert dict(genotypes.left_out) == {"duplicated site": 1}
    assert genotypes.variants["position"].tolist() == [10, *range(100, 1200), 5000]
    np.testing.assert_array_equal(genotypes.dosage, np.repeat([[0], [1], [2]], 1102, axis=1))


def test_header_that_declares_neither_contig_nor_gt(tmp_path: Path) -> None:
    text = vcf_header(SAMPLES).replace("##FORMAT", "##was") + record(contig="chr7", info="DP=3;H2")
    assert read_text(tmp_path, text).dosage.T.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("text", ["good", "bad"])
def test_htslib_writes_nothing_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    """An undeclared contig and INFO key make htslib warn; a bad genotype makes it complain."""
    last = "0/x" if text == "bad" else "0/1"
    text = vcf_header(SAMPLES) + record("0/0", "0/1", last, contig="chr7", info="XX=1")
    with suppress(GenotypeFileError):
        read_text(tmp_path, text)
    assert capfd.readouterr() == ("", "")


# Bad input.


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"\x6c\x1b\x01", "looks like a PLINK file"),
        (b"\x6c\x1b\x10", "looks like a PLINK file"),
        (b"\x89HDF\r\n", "looks like an HDF5 file"),
        (b"PK\x03\x04", "looks like a zip archive"),
        (b"\x80\x04\x95", "looks like a Python pickle"),
        (b"CRAM\x03", "looks like a CRAM"),
        (b"BZh91AY", "looks like bzip2-compressed"),
        (b"\xef\xbb\xbf##fileformat=VCFv4.2\n", "looks like a VCF behind a byte-order mark"),
        (b"#CHROM\tPOS", "looks like a VCF without its first line"),
        (b"<!DOCTYPE html>", "looks like a web page"),
        (b"sample,pop\nS1,GBR\n", "starts with b'sample,pop', not with '##fileformat=VCF'"),
        (bytes(40), "starts with b'\\x00"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, start: bytes, expected: str) -> None:
    message = message_of_text(tmp_path, start)
    assert message.startswith("no genotype file (it ")
    assert expected in message
    assert ";" in message


def test_other_formats_are_seen_through_compression(tmp_path: Path) -> None:
    path = write_text(tmp_path / "x.vcf", "BAM\x01 and so on", "bgzip")
    assert "looks like a BAM" in message_of(path)
    path.write_bytes(gzip.compress(gzip.compress(b"text")))
    assert "looks like compressed twice" in message_of(path)


@pytest.mark.parametrize("compress", ["none", "gzip", "bgzip"])
def test_compressed_nothing(tmp_path: Path, compress: str) -> None:
    message = message_of(write_text(tmp_path / "x.vcf", "", compress))
    assert ("is empty" if compress == "none" else "no genotype file") in message


HEADER = vcf_header(SAMPLES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEADER, "has a header but no records"),
        ("##fileformat=VCFv4.2\n", "has no #CHROM line"),
        (HEADER.split("#CHROM")[0] + record(), "has no #CHROM line"),
        (vcf_header([]) + record().split("\tGT")[0] + "\tGT\n", "line 4 (#CHROM): no samples"),
        (HEADER.split("\tFORMAT")[0] + "\n", "line 4 (#CHROM): no samples, only sites; export"),
        (HEADER.split("\tALT")[0] + "\n", "line 4 (#CHROM): only 4 columns"),
        (HEADER.replace("\t", " "), "column 1 is '#CHROM POS ID REF ALT"),
        (HEADER.replace("\tINFO", "\tFORMAT"), "column 8 is 'FORMAT', not 'INFO'"),
        (vcf_header(["a", "b", "a"]), "sample id 'a' occurs in columns 10 and 12; rename"),
        (vcf_header(["a", "", "c"]), "the sample id in column 11 is empty"),
        (vcf_header(["a", "b", ""]), "the sample id in column 12 is empty"),
        (vcf_header(["a", " ", "c"]), "the sample id in column 11 is empty"),
        (vcf_header(["a", "b\0", "c"]), "line 4 holds a NUL byte"),
    ],
)
def test_bad_header(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in message_of_text(tmp_path, text)


def test_sample_id_that_is_not_utf8(tmp_path: Path) -> None:
    text = (vcf_header(["José", "b", "c"]) + record()).encode("latin-1")
    assert "b'\\xe9', is not UTF-8" in message_of_text(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (record("0/0", "0/1"), "line 6 (1:10) has 11 columns, not 12 as the header"),
        (record("0/0", "0/1", "1/1", "1/1"), "line 6 (1:10) has 13 columns, not 12"),
        (record("0/0", "0/1 1/1"), "line 6 (1:10) has 11 columns, not 12"),
        ("\n", "line 6 is empty; remove it"),
        ("1\n", "line 6 (1) has 1 columns, not 12"),
        ("##comment\n", "line 6 is a header line among the records"),
        (HEADER, "line 6 is a header line among the records"),
        (record(contig="#1"), "line 6 is a header line among the records"),
        (record(contig=""), "line 6 has the contig name ''"),
        (record(contig="chr 1"), "line 6 has the contig name 'chr 1'"),
        (record(position="1e3"), "line 6 has the position '1e3' on contig 1"),
        (record(position="-5"), "line 6 has the position '-5'"),
        (record(position=""), "line 6 has the position ''"),
        (record(position="99999999999999"), "line 6 has the position '99999999999999'"),
        (record(format="GT:"), "line 6 has the FORMAT 'GT:'"),
        (record(format=":GT"), "line 6 has the FORMAT ':GT'"),
        (record(id="rs\0"), "line 6 holds a NUL byte"),
    ],
)
def test_malformed_line(tmp_path: Path, line: str, expected: str) -> None:
    """Each has good lines before and behind it, so that it could be passed over."""
    records = [record(position="5"), line, record(position="50")]
    assert expected in message_of_records(tmp_path, *records)


@pytest.mark.parametrize(
    "call",
    ["0/", "/1", "0//1", "0/1/", "a/b", "0/x", "", "-1/0", "0/1 ", "0\\1", ";", "0/99999999999"],
)
@pytest.mark.parametrize("contig", ["1", "chr7"])  # the second is not declared
def test_malformed_genotype(tmp_path: Path, call: str, contig: str) -> None:
    records = [record(position="5"), record("0/0", call, "1/1", contig=contig), record()]
    expected = f"record 2 ({contig}:10): sample S2 has genotype "
    assert expected in message_of_records(tmp_path, *records)


@pytest.mark.parametrize("call", ["0/2", "2/2", "2|.", "7/0", "0/300"])
def test_allele_beyond_the_alt_column(tmp_path: Path, call: str) -> None:
    message = message_of_records(tmp_path, record(position="5"), record("0/0", "0/1", call))
    assert f"record 2 (1:10): sample S3 has genotype '{call}'" in message
    assert "one ALT" in message


def test_more_values_than_format_keys(tmp_path: Path) -> None:
    message = message_of_records(tmp_path, record("0/0", "0/1:7", "1/1"))
    assert "record 1 (1:10): sample S2 has 2 values for the 1 of FORMAT" in message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            HEADER + record("0/0:x", "0/1:1", "1/1:1", format="GT:DP"),
            "record 1 (1:10): cannot be parsed",
        ),
        (
            HEADER.replace("#CHROM", "##contig=<ID=é>\n#CHROM") + record(),
            "its header cannot be parsed ('utf-8' codec",
        ),
        (
            HEADER.replace("Type=String", "Type=Integer", 1) + record(),
            "record 1 (1:10): cannot be parsed",
        ),
        (
            HEADER + record() + record("0/0", "0/x", "1/1", contig="X"),
            "record 2 (X:10): sample S2 has genotype '0/x'",
        ),
    ],
)
def test_faults_in_what_is_not_looked_at(tmp_path: Path, text: str, complaint: str) -> None:
    """Other fields than GT, the header's words, calls of records that are left out: no matter,
    unless the file has to be read through htslib."""
    path = tmp_path / "file.vcf"
    path.write_bytes(text.encode("latin-1"))
    assert read_genotypes(path).dosage.tolist() == [[0], [1], [2]]
    text += record("0", "0/1", "1/1", position="99")  # a haploid call is for htslib
    path.write_bytes(text.encode("latin-1"))
    assert message_of(path).startswith(complaint)


def test_allele_that_is_not_utf8(tmp_path: Path) -> None:
    text = (HEADER + record(ref="é")).encode("latin-1")
    assert "record 1 (1:10): cannot be parsed" in message_of_text(tmp_path, text)


@pytest.mark.parametrize("calls", [("0/0", "0/1", ""), ("0/0", "", "0/1"), ("", "0/1", "0/1")])
@pytest.mark.parametrize("keys", ["GT", "GT:DP"])
def test_an_empty_cell(tmp_path: Path, calls: tuple[str, ...], keys: str) -> None:
    message = message_of_records(tmp_path, record(), record(*calls, position="20", format=keys))
    assert "record 2 (1:20): sample S" in message


@pytest.mark.parametrize("call", [".\r1", "0/1\r", ".\r", "0/1\r:3"])
def test_a_carriage_return_within_a_line_is_no_end(tmp_path: Path, call: str) -> None:
    line = record(call, "0/1", "1/1", position="20", format="GT:DP")
    message = message_of_records(tmp_path, record(), line)
    assert "record 2 (1:20): sample S1 has genotype" in message


def test_an_empty_id_is_none(tmp_path: Path) -> None:
    assert read_records(tmp_path, record(id="")).variants["id"].tolist() == ["."]


def test_one_site_under_two_names_of_its_contig(tmp_path: Path) -> None:
    genotypes = read_records(tmp_path, record(), record(contig="chr1"), record(contig="chr01"))
    assert genotypes.dosage.T.tolist() == [[0, 1, 2]]
    assert genotypes.left_out == {"duplicated site": 2}


def test_nothing_called_is_said(tmp_path: Path) -> None:
    (note,) = read_records(tmp_path, record("./.", "./.", ".")).notes
    assert note.startswith("no genotype is called")
    path = write_text(tmp_path / "x.vcf", HEADER + record("./.", "./.", "."))
    with pytest.raises(NotEnoughDataError, match="1 no genotype called"):
        read_genotypes(path, ReadOptions(maf=0.01))


def test_progress_does_not_fall_where_htslib_takes_over(tmp_path: Path) -> None:
    records = [record(position=str(i + 1)) for i in range(2000)]
    path = write_text(
        tmp_path / "x.vcf", HEADER + "".join(records) + record("0", "0/1", "1/1", position="9999")
    )
    seen: list[float] = []
    read_genotypes(path, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_lists_that_name_nothing_are_said(tmp_path: Path) -> None:
    path = write_text(tmp_path / "x.vcf", HEADER + record(id="rs1") + record(position="20"))
    (tmp_path / "list").write_text("rs1\nrs2\n1\t20\n")
    (tmp_path / "other").write_text("rs2\n")
    named, other = (read_variants(tmp_path / name) for name in ("list", "other"))
    regions = RegionSet.parse(["6:1-100"])
    options = ReadOptions(extract=named, exclude=other, exclude_regions=regions)
    genotypes = read_genotypes(path, options)
    assert genotypes.n_variants == 2
    extract, exclude, region = genotypes.notes
    assert "names 3 variants, of which 2 are read" in extract
    assert "none is left out" in exclude
    assert "--exclude-region" in region


def test_no_gt_anywhere(tmp_path: Path) -> None:
    records = [record("1", "2", "3", format="DP"), record("1", "2", "3", format="DP", alt="G")]
    assert "none of its 2 records has GT in FORMAT" in message_of_records(tmp_path, *records)


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    records = [record(alt="C,G"), record(alt="CT"), record(contig="X"), record(alt="G,T")]
    message = message_of_records(tmp_path, *records)
    assert "no biallelic autosomal SNP among its 4 records" in message
    assert "(2 multiallelic, 1 indel or multi-nucleotide, 1 not on an autosome)" in message


def test_half_calls_count_once_for_each_alt_that_is_taken(tmp_path: Path) -> None:
    """Whether the fast reader, htslib or a BCF is read: one ALT of two is a SNP."""
    text = vcf_header(SAMPLES).replace("#CHROM", "##contig=<ID=1>\n#CHROM")
    text += record("./1", "1/2", "0/0", alt="C,AT")
    path = write_text(tmp_path / "x.vcf", text)
    with (
        pysam.VariantFile(str(path)) as file,
        pysam.VariantFile(str(tmp_path / "x.bcf"), "wb", header=file.header) as bcf,
    ):
        for line in file:
            bcf.write(line)
    options = ReadOptions(multiallelic="split")
    found = [read_genotypes(path, options), read_sources([HtslibSource(path)], options)]
    found.append(read_genotypes(tmp_path / "x.bcf", options))
    for genotypes in found:
        assert genotypes.dosage.tolist() == [[-1], [1], [0]]
        assert genotypes.by_rule == {"half calls taken as missing": 1}


def test_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """A record fewer when the second pass comes: the result would be of neither file."""
    path = write_vcf(tmp_path / "x", np.zeros((3, 600), dtype=np.int8), SAMPLES)
    lines = path.read_text().splitlines(keepends=True)

    def drop_last_record(fraction: float) -> None:
        path.write_text("".join(lines[:-1]))

    with pytest.raises(GenotypeFileError, match="has 599 records where it had 600"):
        read_sources([HtslibSource(path)], progress=drop_last_record)


@pytest.mark.parametrize("compress", ["gzip", "bgzip"])
def test_flipped_bits_never_give_another_matrix(tmp_path: Path, compress: str) -> None:
    """An error, or the same result where the bit means nothing (a time stamp, say).

    In a process of its own, since a crash of the native parser would take the test run with it.
    """
    dosage = np.random.default_rng(1).integers(-1, 3, size=(20, 200)).astype(np.int8)
    path = write_vcf(tmp_path / "x", dosage, [f"S{i}" for i in range(20)], compress=compress)
    raw = path.read_bytes()
    n_headers = 18
    bits = random.Random(0).sample(range(8 * len(raw)), 30) + list(range(0, 8 * n_headers, 5))
    outcomes = run_flips(path, bits)
    assert len(outcomes) == len(bits)
    assert set(outcomes) <= {"error", "same"}
    assert outcomes[:30].count("error") >= 25


FLIPPER = """
import sys
import numpy as np
from ancestry_ddvi.errors import GenotypeFileError, NotEnoughDataError
from ancestry_ddvi.loaders import ReadOptions, read_genotypes

path, *bits = sys.argv[1:]
intact, raw = read_genotypes(path), open(path, "rb").read()
for bit in map(int, bits):
    flipped = bytearray(raw)
    flipped[bit // 8] ^= 1 << bit % 8
    open(path, "wb").write(flipped)
    try:
        read = read_genotypes(path)
    except GenotypeFileError:
        print("error", flush=True)
        continue
    same = np.array_equal(read.dosage, intact.dosage) and read.variants.equals(intact.variants)
    same = same and np.array_equal(read.sample_id, intact.sample_id)
    print("same" if same else "another", flush=True)
"""


def run_flips(path: Path, bits: Sequence[int]) -> list[str]:
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", FLIPPER, str(path), *map(str, bits)],
        capture_output=True,
        text=True,
        cwd=root,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()
