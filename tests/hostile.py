"""Hostile genotype and label files, each with what must hold when it is read.

    python tests/hostile.py FOLDER        # writes them all, each case in a folder of its own

What must hold is `Refused` (by one line that says so), `Read` (as exactly these genotypes, written
down here by hand) or `Same` (damage: refused, or read as if there were none). None of it is
computed by the package. Where `bcftools query` or `plink2` differ, the case says why.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import socket
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Paths = Path | list[Path]


@dataclass(frozen=True)
class Refused:
    """`says` is a pattern of the message; `at` is how the name of the file ends that it names."""

    says: str
    at: str = ""


@dataclass(frozen=True)
class Read:
    """`dosage` has a string a variant and a letter a sample: 0, 1, 2, or a dot for missing."""

    dosage: tuple[str, ...]
    samples: tuple[str, ...] = ("S1", "S2", "S3")


@dataclass(frozen=True)
class Same:
    """As the file `intact`, or refused; of a format without checksums at least of its shape."""

    intact: str
    shape_only: bool = False


@dataclass(frozen=True)
class Joined:
    """The column `pop` of a label table for the samples S1, S2 and S3."""

    pop: tuple[str | None, ...]


@dataclass(frozen=True)
class Hostile:
    """A case.

    Attributes
    ----------
    group
        What kind of thing is wrong.
    make
        Writes it into a folder that is there and empty; the path to read, or several of them, each
        to be read alone.
    options
        Fields of `ReadOptions`.
    bcftools, plink2
        Why they do not read it as we do; empty where they must.
    slow
        Why the fast reader and htslib alone may differ; empty where they must not.
    as_user
        The case means nothing to the superuser.
    """

    name: str
    group: str
    make: Callable[[Path], Paths]
    expect: Refused | Read | Same | Joined
    options: dict[str, Any] = field(default_factory=dict)
    bcftools: str = ""
    plink2: str = ""
    slow: str = ""
    as_user: bool = False


CASES: list[Hostile] = []

SAMPLES = ("S1", "S2", "S3")
META = (
    "##fileformat=VCFv4.2\n"
    "##contig=<ID=1>\n##contig=<ID=2>\n##contig=<ID=X>\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">\n'
    '##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Reads">\n'
    '##FORMAT=<ID=DS,Number=1,Type=Float,Description="Dosage">\n'
    '##FORMAT=<ID=GP,Number=G,Type=Float,Description="Probabilities">\n'
    '##INFO=<ID=NOTE,Number=1,Type=String,Description="Text">\n'
)
N_FLIPS = 50


def header(samples: Sequence[str] = SAMPLES) -> str:
    """The header of a VCF."""
    fixed = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")
    return META + "\t".join((*fixed, *samples)) + "\n"


def record(*calls: str, **fields: str) -> str:
    """A line of a VCF; without changes a plain A>C SNP at 1:20."""
    line = {"contig": "1", "position": "20", "id": "x", "ref": "A", "alt": "C"}
    line |= {"qual": ".", "filter": ".", "info": ".", "format": "GT"} | fields
    return "\t".join((*line.values(), *calls)) + "\n"


# A sound record before and one behind what is wrong, so that it could be passed over.
BEFORE = record("0/0", "0/1", "1/1", position="10", id="rs1")
BEHIND = record("1/1", "0/0", "0/1", contig="2", position="30", id="rs3", ref="C", alt="T")
PLAIN = record("0/1", "./.", "0/0", id="rs2", ref="G", alt="T")
GOOD = header() + BEFORE + PLAIN + BEHIND
READ_GOOD = Read(("012", "1.0", "201"))


def between(*dosage: str) -> Read:
    """What is read of records between `BEFORE` and `BEHIND`."""
    return Read(("012", *dosage, "201"))


BGZF_EOF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def bgzip(data: bytes | str, block: int = 200, eof: bool = True) -> bytes:
    """BGZF, in small blocks."""
    data = data.encode() if isinstance(data, str) else data
    out = []
    for start in range(0, len(data), block):
        piece = data[start : start + block]
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = deflate.compress(piece) + deflate.flush()
        head = bytes.fromhex("1f8b08040000000000ff060042430200")
        tail = struct.pack("<II", zlib.crc32(piece), len(piece))
        out.append(head + struct.pack("<H", len(body) + 25) + body + tail)
    return b"".join(out) + BGZF_EOF * eof


def bgzip_blocks(data: bytes) -> list[int]:
    """Where each block starts."""
    starts = [0]
    while starts[-1] < len(data):
        starts.append(starts[-1] + struct.unpack_from("<H", data, starts[-1] + 16)[0] + 1)
    return starts[:-1]


def bcf(text: str) -> bytes:
    """A VCF as the bytes of a BCF inside its container, by htslib."""
    import pysam

    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder, "x.vcf"), Path(folder, "x.bcf")
        plain.write_text(text)
        with (
            pysam.VariantFile(str(plain)) as source,
            pysam.VariantFile(str(packed), "wb", header=source.header) as target,
        ):
            for line in source:
                target.write(line)
        return gzip.decompress(packed.read_bytes())


def flip(data: bytes, bit: int) -> bytes:
    """The same with one bit changed."""
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def write(path: Path, data: bytes | str) -> Path:
    """Write the file, and give its path."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def flipped(folder: Path, suffix: str, data: bytes) -> list[Path]:
    """Copies with one bit changed each, beside the intact one."""
    write(folder / f"intact{suffix}", data)
    bits = random.Random(suffix).sample(range(8 * len(data)), N_FLIPS)
    return [write(folder / f"bit{bit}{suffix}", flip(data, bit)) for bit in bits]


# How cases are made.


def case(
    name: str, expect: Refused | Read | Same | Joined, group: str, **facts: Any
) -> Callable[[Callable[[Path], Paths]], None]:
    """Register what the function writes."""

    def register(make: Callable[[Path], Paths]) -> None:
        CASES.append(Hostile(name, group, make, expect, **facts))

    return register


def file_case(
    name: str,
    expect: Refused | Read | Same | Joined,
    data: bytes | str | Callable[[], bytes | str],
    group: str = "container",
    file: str = "x.vcf.gz",
    **facts: Any,
) -> None:
    """A single file of these bytes."""

    def make(folder: Path) -> Path:
        return write(folder / file, data() if callable(data) else data)

    case(name, expect, group, **facts)(make)


def record_case(
    name: str, expect: Refused | Read, *lines: str, group: str = "record", **facts: Any
) -> None:
    """A VCF with these lines in its middle."""
    file_case(name, expect, header() + BEFORE + "".join(lines) + BEHIND, group, "x.vcf", **facts)


def sample_case(name: str, *samples: str, **facts: Any) -> None:
    """Names that are odd and no more."""
    calls = [("0/0", "0/1", "1/1")[i % 3] for i in range(len(samples))]
    dosage = "".join("012"[i % 3] for i in range(len(samples)))
    expect = Read((dosage,), tuple(samples))
    file_case(name, expect, header(samples) + record(*calls), "samples", "x.vcf", **facts)


# Containers.

PACKED = bgzip(GOOD)
STARTS = bgzip_blocks(PACKED)
CUT = r"cut off: the bgzip block at byte \d+ is incomplete .*; copy or download it again"

file_case("bgzip_cut_in_its_first_block", Refused(CUT), PACKED[:100])
file_case("bgzip_cut_in_the_middle", Refused(CUT), PACKED[: STARTS[2] + 50])
file_case("bgzip_cut_in_a_block_header", Refused(CUT), PACKED[: STARTS[2] + 7])
file_case("bgzip_cut_in_the_last_block", Refused(CUT), PACKED[:-5])
NO_END = r"cut off: bgzip's end-of-file block is missing at byte \d+; copy"
file_case("bgzip_cut_between_blocks", Refused(NO_END), PACKED[: STARTS[-2]])
file_case("bgzip_without_its_last_block", Refused(NO_END), bgzip(GOOD, eof=False))
file_case("bgzip_cut_to_ten_bytes", Refused("gzip data end early, at byte 10; copy"), PACKED[:10])
NO_BLOCK = r"damaged: no bgzip block starts at byte \d+; copy"
file_case("bgzip_and_something_behind", Refused(NO_BLOCK), PACKED + b"something")
file_case("bgzip_and_zeros_behind", Refused(NO_BLOCK), PACKED + bytes(4096))
file_case("bgzip_a_block_of_zeros", Refused(NO_BLOCK), PACKED[: STARTS[2]] + bytes(200))
file_case("bgzip_joined", READ_GOOD, bgzip(GOOD[:300]) + bgzip(GOOD[300:]))
file_case("bgzip_twice", Refused("compressed twice.*; decompress it once"), bgzip(bgzip(GOOD)))
file_case(
    "bgzip_of_nothing", Refused(r"no genotype file \(it is compressed nothing\); copy"), BGZF_EOF
)
file_case("gzip_plain", READ_GOOD, gzip.compress(GOOD.encode(), mtime=0))
file_case(
    "gzip_of_several_members",
    READ_GOOD,
    b"".join(gzip.compress(part.encode(), mtime=0) for part in (GOOD[:99], "", GOOD[99:])),
)
file_case(
    "gzip_of_nothing",
    Refused(r"no genotype file \(it is compressed nothing\); copy"),
    gzip.compress(b"", mtime=0),
)
file_case(
    "gzip_cut_off",
    Refused(r"cut off: its gzip data end early, at byte \d+; copy"),
    gzip.compress(GOOD.encode(), mtime=0)[:-20],
)
OTHER = r"no genotype file \(it looks like {}\); {}"
file_case(
    "zstd",
    Refused(OTHER.format("zstd-compressed", "compress it with bgzip")),
    lambda: __import__("zstandard").compress(GOOD.encode()),
)
file_case(
    "bzip2",
    Refused(OTHER.format("bzip2-compressed", "compress it with bgzip")),
    bz2.compress(GOOD.encode()),
)
file_case(
    "xz",
    Refused(OTHER.format("xz-compressed", "compress it with bgzip")),
    lzma.compress(GOOD.encode()),
)
file_case("empty_file", Refused(r"is empty \(0 bytes\); copy"), b"")
file_case("all_zeros", Refused("no genotype file .*; give a VCF"), bytes(5000))
file_case("web_page", Refused(OTHER.format("a web page", "download")), "<!DOCTYPE html>\n")
file_case(
    "byte_order_mark",
    Refused(OTHER.format("a VCF behind a byte-order mark", "save it as UTF-8 without BOM")),
    b"\xef\xbb\xbf" + GOOD.encode(),
)
file_case(
    "utf16", Refused(OTHER.format("text in UTF-16", "save it as UTF-8")), GOOD.encode("utf-16")
)
file_case("crlf", READ_GOOD, GOOD.replace("\n", "\r\n"))
file_case("crlf_bgzip", READ_GOOD, bgzip(GOOD.replace("\n", "\r\n")))
file_case(
    "carriage_returns_only",
    Refused("has lines that end in carriage returns alone; save it with line feeds"),
    GOOD.replace("\n", "\r"),
)
file_case("no_final_line_feed", READ_GOOD, GOOD.removesuffix("\n"))
file_case("header_alone", Refused("has a header but no records; was it cut off"), header())
file_case("meta_alone", Refused("no #CHROM line with the sample ids; restore the header"), META)
file_case(
    "latin1_in_an_id",
    Refused(r"line 13 \(1:20\) has the id b'\\xe9', which is not UTF-8; convert the file"),
    (header() + BEFORE + record("0/0", "0/0", "0/0", id="é") + BEHIND).encode("latin-1"),
)
file_case(
    "latin1_in_a_sample_id",
    Refused(r"line 11 \(#CHROM\): byte \d+ of the line, b'\\xe9', is not UTF-8; rename"),
    (header(("José", "S2", "S3")) + BEFORE).encode("latin-1"),
)
file_case(
    "zero_byte_in_a_record",
    Refused("line 13 holds a NUL byte, so it is damaged; copy"),
    GOOD.replace("rs2", "r\0"),
)
file_case(
    "zero_byte_in_a_sample_id",
    Refused("line 11 holds a NUL byte, so it is damaged; copy"),
    header(("S1", "S\0", "S3")) + BEFORE,
)
file_case(
    "zeros_at_the_end",
    Refused("line 15 holds a NUL byte, so it is damaged; copy"),
    GOOD.encode() + bytes(4096),
)


@case("flips_vcf_gz", Same("intact.vcf.gz"), "container")
def _(folder: Path) -> Paths:
    return flipped(folder, ".vcf.gz", PACKED)


@case("flips_gzip", Same("intact.gz"), "container")
def _(folder: Path) -> Paths:
    return flipped(folder, ".gz", gzip.compress(GOOD.encode(), mtime=0))


@case("flips_bcf", Same("intact.bcf"), "container")
def _(folder: Path) -> Paths:
    return flipped(folder, ".bcf", bgzip(bcf(GOOD)))


file_case("bcf", READ_GOOD, lambda: bgzip(bcf(GOOD)), file="x.bcf")
file_case(
    "bcf_cut_in_a_record",
    Refused("record 3 .*(cut off|cannot be parsed).*;"),
    lambda: bgzip(bcf(GOOD)[:-9]),
    file="x.bcf",
)
file_case(
    "bcf_cut_in_its_header",
    Refused("its header cannot be parsed .*; check it"),
    lambda: bgzip(bcf(GOOD)[:80]),
    file="x.bcf",
)
file_case(
    "bcf_and_zeros_behind",
    Refused("record 4 .*;"),
    lambda: bgzip(bcf(GOOD) + bytes(64)),
    file="x.bcf",
)
file_case("bcf_cut_off", Refused(CUT), lambda: bgzip(bcf(GOOD))[:-40], file="x.bcf")
file_case("bcf_no_end", Refused(NO_END), lambda: bgzip(bcf(GOOD), eof=False), file="x.bcf")
file_case(
    "bcf_in_gzip",
    Refused("is a BCF in gzip; compress it with"),
    lambda: gzip.compress(bcf(GOOD)),
    file="x.bcf",
)
file_case("bcf_plain", Refused("is a BCF in plain text; compress"), lambda: bcf(GOOD), file="x.bcf")
file_case(
    "bcf_of_version_1",
    Refused(r"no genotype file .*; "),
    lambda: bgzip(b"BCF\4" + bcf(GOOD)[4:]),
    file="x.bcf",
)
file_case(
    "bcf_without_records",
    Refused("has a header but no records; was it cut off"),
    lambda: bgzip(bcf(header())),
    file="x.bcf",
)
file_case(
    "bcf_of_sites",
    Refused("no samples, only sites; export"),
    lambda: bgzip(bcf(META + "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")),
    file="x.bcf",
)


@case("directory", Refused("is a directory; give the file inside it"), "container")
def _(folder: Path) -> Paths:
    (folder / "x.vcf").mkdir()
    return folder / "x.vcf"


@case("fifo", Refused("not a regular file; save the data to a file first"), "container")
def _(folder: Path) -> Paths:
    os.mkfifo(folder / "x.vcf")
    return folder / "x.vcf"


@case("socket", Refused("not a regular file; save the data to a file first"), "container")
def _(folder: Path) -> Paths:
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket has a limit
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("x.vcf")
    os.chdir(here)
    return folder / "x.vcf"


@case("link_to_a_device", Refused("not a regular file; save the data"), "container")
def _(folder: Path) -> Paths:
    (folder / "x.vcf").symlink_to("/dev/zero")
    return folder / "x.vcf"


@case("fifo_as_a_bed", Refused("not a regular file|no such file"), "container")
def _(folder: Path) -> Paths:
    os.mkfifo(folder / "x.bed")
    os.mkfifo(folder / "y.pgen")
    return [folder / "x.bed", folder / "x", folder / "y.pgen", folder / "y"]


@case(
    "link_that_is_a_loop", Refused("no such file .*link.*; check the path|cannot be"), "container"
)
def _(folder: Path) -> Paths:
    (folder / "x.vcf").symlink_to(folder / "y.vcf")
    (folder / "y.vcf").symlink_to(folder / "x.vcf")
    return folder / "x.vcf"


@case("broken_link", Refused(r"no such file \(a broken link\); check the path"), "container")
def _(folder: Path) -> Paths:
    (folder / "x.vcf").symlink_to(folder / "absent.vcf")
    return folder / "x.vcf"


@case("absent", Refused("no such file; check the path"), "container")
def _(folder: Path) -> Paths:
    return folder / "x.vcf"


@case("folder_that_is_a_file", Refused("no such file; check the path|cannot be"), "container")
def _(folder: Path) -> Paths:
    write(folder / "x.vcf", GOOD)
    return folder / "x.vcf" / "y.vcf"


@case("name_too_long", Refused(r"cannot be read .*; check the path"), "container")
def _(folder: Path) -> Paths:
    return folder / ("x" * 5000)


@case(
    "unreadable",
    Refused(r"cannot be read \(Permission denied\); check its permissions"),
    "container",
    as_user=True,
)
def _(folder: Path) -> Paths:
    write(folder / "x.vcf", GOOD).chmod(0)
    return folder / "x.vcf"


@case("stale_index", READ_GOOD, "container")
def _(folder: Path) -> Paths:
    write(folder / "x.vcf.gz.tbi", bgzip(b"TBI\1" + bytes(60)))
    write(folder / "x.vcf.gz.csi", b"of another file")
    return write(folder / "x.vcf.gz", PACKED)


@case("index_instead", Refused(r"a tabix index\); give the .vcf.gz beside it"), "container")
def _(folder: Path) -> Paths:
    return write(folder / "x.vcf.gz.tbi", bgzip(b"TBI\1" + bytes(60)))


# Records.


def columns(n: int) -> str:
    """The words for a row of the wrong length."""
    return rf"line 13 \(1:20\) has {n} columns, not 12 as the header; .* make it again"


record_case("row_short", Refused(columns(11)), record("0/0", "0/1"))
record_case("row_long", Refused(columns(13)), record("0/0", "0/1", "1/1", "1/1"))
record_case(
    "row_glued",
    Refused(columns(23)),
    record("0/0", "0/1", "1/1").rstrip("\n"),
    record("0/0", "0", "1"),
)
record_case(
    "row_with_blanks", Refused("line 13 .*1 columns, not 12"), record("0/0").replace("\t", " ")
)
record_case("row_of_a_left_out_record_short", Refused(columns(11)), record("0/0", "0/1", ref="AT"))
POSITION = r"line 13 has the position '{}' on contig 1, which is not a whole number.*; correct it"
for word, text in (
    ("text", "ten"),
    ("negative", "-5"),
    ("too_large", "2147483648"),
    ("huge", "99999999999999999999"),
    ("fraction", "1.5"),
    ("empty", ""),
    ("signed", r"\+5"),
    ("blank", " 20"),
):
    record_case(
        f"position_{word}",
        Refused(POSITION.format(text)),
        record("0/0", "0/1", "1/1", position=text.replace("\\", "")),
    )
record_case(
    "position_of_5000_digits",
    Refused(POSITION.format("9{40}")),
    record("0/0", "0/1", "1/1", position="9" * 5000),
)
record_case(
    "position_zero",
    between(),
    record("0/0", "0/1", "1/1", position="0"),
    plink2="plink2 keeps a variant at position 0, which to PLINK is no place",
)
file_case(
    "no_gt",
    Refused("none of its 1 records has GT in FORMAT; export the VCF with called genotypes"),
    header() + record("3", "4", "5", format="DP"),
    "record",
    "x.vcf",
)
GT_IN_FRONT = "plink2 looks for GT in front alone, as the specification has it: else it is missing"
record_case(
    "gt_last", between("012"), record("3:0/0", "4:0/1", "5:1/1", format="DP:GT"), plink2=GT_IN_FRONT
)
record_case(
    "gt_in_the_middle",
    between("01."),
    record("3:0/0:1,2", "4:0/1:3,4", "5", format="DP:GT:AD"),
    bcftools="bcftools 1.16 prints the call that is not there as -65",
    plink2=GT_IN_FRONT,
)
record_case(
    "gt_as_letters",
    Refused("sample S2 has genotype 'A/G'; correct it"),
    record("0/0", "A/G", "1/1"),
)
record_case("gt_empty", Refused("sample S2 has genotype ''; correct it"), record("0/0", "", "0/0"))
record_case(
    "gt_cut", Refused("sample S2 has genotype '0/'; correct it"), record("0/0", "0/", "0/0")
)
record_case(
    "gt_of_two_separators", Refused("sample S2 has genotype '0//1'"), record("0/0", "0//1", "0/0")
)
record_case("gt_negative", Refused("sample S2 has genotype '-1/0'"), record("0/0", "-1/0", "0/0"))
record_case("gt_with_a_blank", Refused("sample S2 has genotype '0/1 '"), record("0/0", "0/1 ", "1"))
BEYOND = r"record 2 \(1:20\): sample S2 has genotype '{}', but the record has {}; correct it"
record_case(
    "allele_beyond_alt", Refused(BEYOND.format("0/2", "one ALT")), record("0/0", "0/2", "0/0")
)
record_case(
    "allele_beyond_two_alts",
    Refused(BEYOND.format("1/3", "2 ALT alleles")),
    record("0/0", "1/3", "0/0", alt="C,G"),
    options={"multiallelic": "split"},
)
record_case(
    "allele_beyond_no_alt",
    between(),
    record("0/0", "0/1", "0/0", alt="."),
)
record_case(
    "allele_of_twenty_digits",
    Refused("sample S2 has genotype '0/99999999999999999999'"),
    record("0/0", "0/99999999999999999999", "0/0"),
)
record_case(
    "allele_of_5000_digits",
    Refused("sample S2 has genotype '0/9{38}', but the record has one ALT; correct"),
    record("0/0", "0/" + "9" * 5000, "0/0"),
)
MANY = ",".join(["C", "G", "T", *("A" * (i + 2) for i in range(297))])
record_case(
    "alts_300_skipped",
    between(),
    record("0/0", "3/300", "1/1", alt=MANY),
    plink2="plink2 refuses more than 254 ALT alleles",
)
record_case(
    "alts_300_split",
    between("002", "000", "010"),
    record("0/0", "3/300", "1/1", alt=MANY),
    options={"multiallelic": "split"},
)
record_case("alt_symbolic", between(), record("0/0", "0/1", "1/1", alt="<DEL>"))
record_case("alt_breakend", between(), record("0/0", "0/1", "1/1", alt="]13:123456]A"))
record_case("alt_star", between(), record("0/0", "0/1", "1/1", alt="*"))
record_case(
    "alt_star_split",
    between("110"),
    record("0/1", "1/2", "2/2", alt="C,*"),
    options={"multiallelic": "split"},
)
record_case("alt_missing", between(), record("0/0", "0/0", "0/0", alt="."))
NO_ALLELE = "plink2 refuses an empty allele; such a record is left out here"
record_case("alt_empty", between(), record("0/0", "0/0", "0/0", alt=""), plink2=NO_ALLELE)
record_case("alt_is_ref", between(), record("0/0", "0/1", "1/1", alt="A"))
record_case(
    "alt_ends_in_a_comma", between(), record("0/0", "0/1", "1/1", alt="C,"), plink2=NO_ALLELE
)
record_case("ref_n", between(), record("0/0", "0/1", "1/1", ref="N"))
record_case("ref_empty", between(), record("0/0", "0/1", "1/1", ref=""), plink2=NO_ALLELE)
record_case("alleles_in_lower_case", between("012"), record("0/0", "0/1", "1/1", ref="a", alt="c"))
record_case(
    "positions_twice",
    between("012", "100"),
    record("0/0", "0/1", "1/1"),
    record("0/1", "0/0", "0/0", alt="G", id="y"),
)
record_case(
    "record_twice",
    between("012"),
    record("0/0", "0/1", "1/1"),
    record("1/1", "1/1", "1/1", id="y"),
    bcftools="a site counts once here: the first of the two",
    plink2="a site counts once here: the first of the two",
)
record_case(
    "positions_unsorted",
    between("012", "100"),
    record("0/0", "0/1", "1/1", position="900"),
    record("0/1", "0/0", "0/0", position="3", id="y"),
)
record_case(
    "contig_in_two_pieces",
    between("100", "012"),
    record("0/1", "0/0", "0/0", contig="2", position="3", id="y"),
    record("0/0", "0/1", "1/1"),
    plink2="plink2 refuses a contig in two pieces until it has been sorted",
)
record_case("contig_not_declared", between("012"), record("0/0", "0/1", "1/1", contig="7"))
record_case("contig_sexual", between(), record("0/0", "0", "1", contig="X"))
record_case(
    "contig_empty",
    Refused("line 13 has the contig name '', which VCF does not allow; rename"),
    record("0/0", "0/1", "1/1", contig=""),
)
record_case(
    "contig_with_a_blank",
    Refused("line 13 has the contig name 'chr 1', which VCF does not allow; rename"),
    record("0/0", "0/1", "1/1", contig="chr 1"),
)
record_case(
    "format_missing",
    between(),
    record(".", ".", ".", format="."),
)
record_case(
    "format_with_an_empty_key",
    Refused("line 13 has the FORMAT 'GT::DP', which VCF does not allow; correct"),
    record("0/0", "0/1", "1/1", format="GT::DP"),
)
record_case(
    "format_empty",
    Refused("line 13 has the FORMAT '', which VCF does not allow; correct"),
    record("0/0", "0/1", "1/1", format=""),
)
record_case(
    "format_names_gt_twice",
    between("012"),  # the first counts
    record("0/0:1/1", "0/1:1/1", "1/1:1/1", format="GT:GT"),
)
record_case(
    "format_not_declared", between("012"), record("0/0:7", "0/1:7", "1/1:7", format="GT:ZZ")
)
record_case(
    "more_values_than_keys",
    Refused("sample S2 has 2 values for the 1 of FORMAT; correct"),
    record("0/0", "0/1:7", "1/1"),
)
record_case(
    "fewer_values_than_keys", between("012"), record("0/0", "0/1:3", "1/1:3:1,2", format="GT:DP:AD")
)
record_case(
    "value_of_another_type",
    between("012"),
    record("0/0:x", "0/1:3", "1/1:y", format="GT:DP"),
    slow="htslib refuses the record for its DP; the fast reader looks at GT alone, which is sound",
    bcftools="bcftools drops the record for its DP, with a warning",
)
record_case("line_empty", Refused("line 13 is empty; remove it"), "\n")
record_case("line_of_blanks", Refused("line 13 is empty; remove it"), "  \t \n")
file_case(
    "lines_empty_at_the_end",
    Refused("line 15 is empty; remove it"),
    GOOD + "\n\n",
    "record",
    "x.vcf",
)
record_case("header_again", Refused("line 13 is a header line among the records; join"), header())
record_case("comment", Refused("line 13 is a header line among the records"), "# comment\n")
record_case(
    "info_of_a_megabyte",
    between("012"),
    record("0/0", "0/1", "1/1", info="NOTE=" + "x" * 2**20),
)
record_case(
    "id_of_70000_letters",
    between("012"),
    record("0/0", "0/1", "1/1", id="x" * 70_000),
    plink2="plink2 refuses an id of more than 16,000 letters",
)
record_case(
    "info_and_filter_not_declared",
    between("012"),
    record("0/0", "0/1", "1/1", info="A=1;;B", filter="q10", qual="-1e400"),
)
record_case(
    "filter_with_a_comma",
    between("012"),
    record("0/0", "0/1", "1/1", filter="low,q10"),
    slow="htslib refuses the record for its FILTER; the fast reader does not look at that",
    bcftools="bcftools drops the record for its FILTER, with a warning",
)
file_case(
    "cut_in_a_record",
    Refused(r"line 14 \(2:30\) has 11 columns, not 12 as the header; .* make it again"),
    GOOD[:-5],
    "record",
    "x.vcf",
)
file_case(
    "cut_in_a_call",
    Refused("sample S3 has genotype '0/'; correct it"),
    GOOD[:-2],
    "record",
    "x.vcf",
)
file_case(
    "cut_in_the_first_columns",
    Refused("line 14 .* columns, not 12 as the header; .* make it again"),
    GOOD[: GOOD.rindex("\trs3")],
    "record",
    "x.vcf",
)
# Such a cut leaves a sound file: only the final line feed is missing, as in many files.
file_case("cut_to_a_haploid_call", Read(("012", "1.0", "200")), GOOD[:-3], "record", "x.vcf")

# Genotypes.


def genotype_case(name: str, expect: Refused | Read, *lines: str, **facts: Any) -> None:
    """As `record_case`."""
    record_case(name, expect, *lines, group="genotype", **facts)


genotype_case("tetraploid", between(), record("0/0/0/0", "0/0/0/1", "1/1/1/1"))
genotype_case("triploid_in_one_sample", between(), record("0/0", "0/1", "0/1/1"))
genotype_case("triploid_and_missing", between("01."), record("0/0", "0/1", "./././."))
file_case(
    "tetraploid_throughout",
    Refused("no biallelic autosomal SNP among its 1 records .*neither diploid nor haploid.*; give"),
    header() + record("0/0/0/0", "0/0/0/1", "1/1/1/1"),
    "genotype",
    "x.vcf",
)
genotype_case("haploid", between("02."), record("0", "1", "."))
genotype_case("mixed_ploidy", between("021"), record("0/0", "1", "0/1"))
for rule, dosage in (("missing", ".."), ("reference", "10"), ("haploid", "20")):
    genotype_case(
        f"half_calls_as_{rule}",
        between(dosage + "2"),
        record("./1", "0/.", "1/1"),
        options={"half_calls": rule},
    )
genotype_case(
    "half_calls_as_error",
    Refused(r"record 2 \(1:20\): sample S1 has a half call; say what it means with --half-calls"),
    record("./1", "0/.", "1/1"),
    options={"half_calls": "error"},
)
genotype_case("phased_half_calls", between("..1"), record(".|1", "0|.", "0|1"))
genotype_case("missing_throughout", between("..."), record("./.", ".|.", "."))
genotype_case("all_the_same", between("111"), record("0/1", "0/1", "0/1"))
file_case(
    "monomorphic_throughout",
    Read(("000", "222")),
    header() + record("0/0", "0/0", "0/0") + record("1/1", "1/1", "1/1", position="21"),
    "genotype",
    "x.vcf",
)
file_case(
    "nothing_but_missing",
    Read(("...",)),
    header() + record("./.", "./.", "."),
    "genotype",
    "x.vcf",
)
genotype_case("phased", between("012"), record("0|0", "1|0", "1|1"))
genotype_case("phased_in_part", between("112"), record("0|1", "1/0", "1|1"))
TWELVE = "C,G,T," + ",".join("A" * (i + 2) for i in range(9))
genotype_case(
    "alleles_of_two_digits",
    between("100", "001", "000"),
    record("1/12", "10/11", "2/10", alt=TWELVE),
    options={"multiallelic": "split"},
)
genotype_case(
    "alleles_with_leading_zeros",
    between("012"),
    record("00/0", "0/01", "001/1"),
    plink2="plink2 looks at the first digit alone where there is one ALT allele",
)
genotype_case(
    "half_calls_split",
    between("10.", "01."),
    record("./1", "2/.", "./.", alt="C,G"),
    options={"multiallelic": "split", "half_calls": "reference"},
)
DOSAGES = "a dosage without GT is hard-called here"
genotype_case(
    "ds_alone",
    between("01."),
    record("0.05", "1.0", "1.5", format="DS"),
    bcftools=DOSAGES,
    plink2=DOSAGES,
)
genotype_case(
    "ds_missing",
    between(".12"),
    record(".", "1.0", "2", format="DS"),
    bcftools=DOSAGES,
    plink2=DOSAGES,
)
file_case(
    "ds_not_declared",
    Refused(r"record 2 \(1:20\): the header does not declare DS as numbers; add its ##FORMAT"),
    (header() + BEFORE + record("0.05", "1", "2", format="DS")).replace("ID=DS", "ID=DZ"),
    "genotype",
    "x.vcf",
)
file_case(
    "ds_declared_without_a_type",
    Refused(r"record 2 \(1:20\): the header does not declare DS as numbers; add its ##FORMAT"),
    (header() + BEFORE + record("0.05", "1", "2", format="DS")).replace("1,Type=Float", "1"),
    "genotype",
    "x.vcf",
)
genotype_case(
    "ds_all_missing",
    between("..."),
    record(".", ".", ".", format="DS"),
)
genotype_case(
    "gp_alone",
    between("01."),
    record("1,0,0", "0,0.98,0.02", "0.5,0.5,0", format="GP"),
    bcftools=DOSAGES,
    plink2=DOSAGES,
)
genotype_case(
    "gp_that_says_nothing",  # its expected dosage is 1
    between("..1"),
    record("0.333,0.334,0.333", "0.49,0.02,0.49", "0.04,0.91,0.05", format="GP"),
    bcftools=DOSAGES,
    plink2=DOSAGES,
)
genotype_case("ds_beside_gt", between("012"), record("0/0:2", "0/1:2", "1/1:0", format="GT:DS"))
genotype_case(
    "ds_out_of_range",
    Refused(r"record 2 \(1:20\): .*DS.* from 0 to 2.*; correct"),
    record("0.05", "2.5", "1.5", format="DS"),
)
genotype_case(
    "ds_negative",
    Refused(r"record 2 \(1:20\): .*DS.* from 0 to 2.*; correct"),
    record("0.05", "-0.5", "1.5", format="DS"),
)
genotype_case(
    "ds_no_number",
    Refused(r"record 2 \(1:20\): .*;"),
    record("0.05", "x", "1.5", format="DS"),
)
genotype_case(
    "gp_that_is_no_probability",
    Refused(r"record 2 \(1:20\): GP has numbers that do not add up to 1; correct"),
    record("1,0,0", "0.9,0.9,0", "0,0,1", format="GP"),
)
genotype_case(
    "gp_of_two_numbers",
    Refused(r"record 2 \(1:20\): .*GP.*three probabilities.*; correct"),
    record("1,0", "0,1", "0,1", format="GP"),
)

# Samples.

file_case(
    "samples_twice",
    Refused(r"line 11 \(#CHROM\): sample id 'S1' occurs in columns 10 and 12; rename"),
    header(("S1", "S2", "S1")) + record("0/0", "0/1", "1/1"),
    "samples",
    "x.vcf",
)
for word, name in (("empty", ""), ("blank", " ")):
    file_case(
        f"sample_{word}",
        Refused(r"line 11 \(#CHROM\): the sample id in column 11 is empty; name the sample"),
        header(("S1", name, "S3")) + record("0/0", "0/1", "1/1"),
        "samples",
        "x.vcf",
    )
sample_case("samples_hostile", "=cmd()", "<script>", '"', "a,b", "'; DROP TABLE", "%s", "../../x")
sample_case("samples_unicode", "José", "李", "\N{GRINNING FACE}", "e\N{COMBINING ACUTE ACCENT}")
sample_case("sample_of_5000_letters", "x" * 5000, "S2")
sample_case("samples_numeric", "1", "01", "1.0", "1e0", "nan", "-1")
sample_case("samples_with_blanks", " S1", "S1 ", "S 1", "S1")
sample_case("sample_alone", "S1")
NONE = r"line 11 \(#CHROM\): no samples, only sites; export the VCF with its genotype columns"
file_case("samples_none", Refused(NONE), header(()) + record(), "samples", "x.vcf")
file_case(
    "no_format_column",
    Refused(NONE),
    header(()).replace("\tFORMAT", "") + "1\t20\tx\tA\tC\t.\t.\t.\n",
    "samples",
    "x.vcf",
)
file_case(
    "header_with_blanks",
    Refused(r"line 11 \(#CHROM\): column 1 is '#CHROM POS ID REF ALT.*; separate the columns by"),
    header().replace("\t", " ") + BEFORE,
    "samples",
    "x.vcf",
)

# PLINK 1.

BED_CODES = {"2": 0, ".": 1, "1": 2, "0": 3}  # copies of A1
BED_START = b"\x6c\x1b\x01"
BED_ROWS = ("0122", "1.02", "2100", "0.11")  # a variant each
FAM = tuple(f"F{i} I{i} 0 0 0 -9\n" for i in range(1, 5))
BIM = tuple(f"1\trs{i}\t0\t{10 * i}\tC\tA\n" for i in range(1, 5))
IIDS = ("I1", "I2", "I3", "I4")
READ_BED = Read(BED_ROWS, IIDS)


def bed(rows: Sequence[str]) -> bytes:
    """The rows of a .bed, four genotypes a byte, the first in its lowest bits."""
    out = bytearray()
    for row in rows:
        for start in range(0, len(row), 4):
            codes = [BED_CODES[call] << 2 * i for i, call in enumerate(row[start : start + 4])]
            out.append(sum(codes))
    return bytes(out)


GOOD_BED = BED_START + bed(BED_ROWS)
BY_SAMPLE = b"\x6c\x1b\x00" + bed(["".join(column) for column in zip(*BED_ROWS, strict=True)])


def plink1_case(
    name: str,
    expect: Refused | Read | Same,
    bed_data: bytes | None = GOOD_BED,
    fam: Sequence[str] | bytes | None = FAM,
    bim: Sequence[str] | bytes | None = BIM,
    **facts: Any,
) -> None:
    """A set; None for a file that is not there."""

    def make(folder: Path) -> Path:
        for suffix, data in ((".bed", bed_data), (".fam", fam), (".bim", bim)):
            if data is not None:
                write(folder / f"x{suffix}", data if isinstance(data, bytes) else "".join(data))
        return folder / "x.bed"

    case(name, expect, "PLINK 1", **facts)(make)


plink1_case("bed", READ_BED)
plink1_case("bed_by_sample", READ_BED, BY_SAMPLE)
plink1_case(
    "bed_wrong_magic",
    Refused(r"no genotype file \(it starts with b'm.*; give"),
    b"\x6d" + GOOD_BED[1:],
)
plink1_case(
    "bed_wrong_third_byte",
    Refused("starts with b'.*', which no PLINK 1 .bed does; look"),
    BED_START[:2] + b"\x02" + GOOD_BED[3:],
)
SIZE = r"has {} bytes, but {} samples in the .fam and {} variants in the .bim make {}; .* copy"
plink1_case("bed_short", Refused(SIZE.format(6, 4, 4, 7)), GOOD_BED[:-1])
plink1_case("bed_long", Refused(SIZE.format(8, 4, 4, 7)), GOOD_BED + b"\0")
plink1_case("bed_without_genotypes", Refused(SIZE.format(3, 4, 4, 7)), BED_START)
plink1_case("bed_of_two_bytes", Refused(r"starts with .*, which no PLINK 1 .bed does"), b"\x6c\x1b")
plink1_case("bed_empty", Refused(r"is empty \(0 bytes\); copy"), b"")
plink1_case("bim_short", Refused(SIZE.format(7, 4, 3, 6)), bim=BIM[:3])
plink1_case("fam_long", Refused(SIZE.format(7, 5, 4, 11)), fam=(*FAM, "F5 I5 0 0 0 -9\n"))
PADDING = r"has genotypes behind its last {}.*\.{}.*; give"
plink1_case("fam_short_though_it_fits", Refused(PADDING.format("sample", "fam")), fam=FAM[:3])
plink1_case(
    "bim_short_though_it_fits", Refused(PADDING.format("variant", "bim")), BY_SAMPLE, bim=BIM[:3]
)
plink1_case(
    "bim_short_and_fam_long_though_it_fits",
    Refused(PADDING.format("sample", "fam")),
    BED_START + bed(BED_ROWS[:2]),
    fam=(*FAM, "F5 I5 0 0 0 -9\n"),
    bim=BIM[:1],
)
plink1_case(
    "bed_order_flipped",
    Refused(SIZE.format(11, 5, 4, 8)),
    b"\x6c\x1b\x00" + bed(["01220", "1.020", "21000", "0.110"]),
    fam=(*FAM, "F5 I5 0 0 0 -9\n"),
)
plink1_case("bed_gzip", Refused(r"no genotype file .*PLINK.*; "), gzip.compress(GOOD_BED, mtime=0))
plink1_case(
    "bed_of_intervals",
    Refused(r"no genotype file \(it starts with b'chr1.*; give"),
    b"chr1\t1\t2\n",
)
FIELDS = "line 2 has {} fields, not 6; correct it"
plink1_case(
    "bim_of_five_columns",
    Refused(FIELDS.format(5), ".bim"),
    bim=(BIM[0], "1\trs2\t20\tC\tA\n", *BIM[2:]),
)
plink1_case(
    "bim_of_seven_columns",
    Refused(FIELDS.format(7), ".bim"),
    bim=(BIM[0], "1\trs2\t0\t20\tC\tA\tG\n", *BIM[2:]),
)
plink1_case("bim_ids_twice", READ_BED, bim=[line.replace("rs2", "rs1") for line in BIM])
plink1_case(
    "bim_text_position",
    Refused(r"variant 2 \(rs2\) has position 'ten', which is no whole number.*; correct", ".bim"),
    bim=[line.replace("\t20\t", "\tten\t") for line in BIM],
)
plink1_case(
    "bim_huge_position",
    Refused(r"variant 2 \(rs2\) has position '9+', which .*; correct", ".bim"),
    bim=[line.replace("\t20\t", "\t99999999999999999999\t") for line in BIM],
)
plink1_case(
    "bim_position_of_5000_digits",
    Refused(r"variant 2 \(rs2\) has position '9+', which .*; correct", ".bim"),
    bim=[line.replace("\t20\t", "\t" + "9" * 5000 + "\t") for line in BIM],
)
plink1_case(
    "bim_negative_position",
    Read(("0122", "2100", "0.11"), IIDS),
    bim=[line.replace("\t20\t", "\t-20\t") for line in BIM],
)
plink1_case(
    "bim_monomorphic",
    Read(("0122", "2100", "0.11"), IIDS),
    bim=[line.replace("20\tC", "20\t0") for line in BIM],
)
plink1_case("bim_missing", Refused("no such file; check the path", ".bim"), bim=None)
plink1_case("fam_missing", Refused("no such file; check the path", ".fam"), fam=None)
plink1_case("fam_empty", Refused(r"is empty \(0 bytes\); copy", ".fam"), fam=b"")
plink1_case("fam_of_blank_lines", Refused("has no line with fields; copy", ".fam"), fam=b"\n \n")
plink1_case(
    "fam_ids_twice",
    Refused("sample id 'I1' .*; rename"),
    fam=(*FAM[:3], FAM[0].replace("F1", "F9")),
)
plink1_case(
    "fam_latin1",
    Refused("line 1 is not UTF-8; save the file as UTF-8", ".fam"),
    fam="".join(FAM).replace("I1", "é").encode("latin-1"),
)
plink1_case("fam_crlf", READ_BED, fam=[line.replace("\n", "\r\n") for line in FAM])
plink1_case(
    "fam_byte_order_mark",
    Refused("begins with a byte-order mark; save it as UTF-8 without BOM", ".fam"),
    fam="\N{ZERO WIDTH NO-BREAK SPACE}".encode() + "".join(FAM).encode(),
)
plink1_case(
    "fam_zero_byte",
    Refused("line 1 holds a NUL byte, so it is damaged; copy", ".fam"),
    fam="".join(FAM).replace("I1", "I\0").encode(),
)


@case("flips_bed", Same("intact.bed", shape_only=True), "PLINK 1")
def _(folder: Path) -> Paths:
    many = BED_START + bed(BED_ROWS * 8)
    paths = flipped(folder, ".bed", many)
    for path in (folder / "intact.bed", *paths):
        write(path.with_suffix(".fam"), "".join(FAM))
        bim = [f"1\trs{i}\t0\t{10 * i}\tC\tA\n" for i in range(1, 33)]
        write(path.with_suffix(".bim"), "".join(bim))
    return paths


# PLINK 2.

PSAM = ("#IID\tSEX\n", *(f"I{i}\tNA\n" for i in range(1, 5)))
PVAR = ("#CHROM\tPOS\tID\tREF\tALT\n", *(f"1\t{10 * i}\trs{i}\tA\tC\n" for i in range(1, 5)))


def pgen(rows: Sequence[str]) -> bytes:
    """A .pgen, by Pgenlib."""
    from pgenlib import PgenWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.pgen")
        with PgenWriter(
            os.fsencode(path), len(rows[0]), variant_ct=len(rows), nonref_flags=False
        ) as writer:
            for row in rows:
                calls = [-9 if call == "." else int(call) for call in row]
                writer.append_biallelic(np.array(calls, dtype=np.int8))
        return path.read_bytes()


def plink2_case(
    name: str,
    expect: Refused | Read | Same,
    change: Callable[[bytes], bytes] = bytes,
    psam: Sequence[str] | bytes | None = PSAM,
    pvar: Sequence[str] | bytes | Callable[[], bytes] | None = PVAR,
    pvar_suffix: str = ".pvar",
    **facts: Any,
) -> None:
    """A set, its .pgen changed; None for a file that is not there."""

    def make(folder: Path) -> Path:
        for suffix, data in ((".psam", psam), (pvar_suffix, pvar() if callable(pvar) else pvar)):
            if data is not None:
                write(folder / f"x{suffix}", data if isinstance(data, bytes) else "".join(data))
        return write(folder / "x.pgen", change(pgen(BED_ROWS)))

    case(name, expect, "PLINK 2", **facts)(make)


def zstd(lines: Sequence[str]) -> bytes:
    """As plink2 compresses a .pvar."""
    import zstandard

    return zstandard.compress("".join(lines).encode())


plink2_case("pgen", READ_BED)
plink2_case("pvar_zst", READ_BED, pvar=lambda: zstd(PVAR), pvar_suffix=".pvar.zst")
plink2_case("pgen_wrong_magic", Refused("no genotype file .*; give"), lambda data: b"m" + data[1:])
plink2_case(
    "pgen_unknown_mode",
    Refused("has the unknown mode 0x77; copy"),
    lambda data: data[:2] + b"\x77" + data[3:],
)
for n_left in (4, 11, 12, 20, 25):
    plink2_case(
        f"pgen_cut_to_{n_left}_bytes",
        Refused("cut off or damaged: .*; copy"),
        lambda data, n_left=n_left: data[:n_left],  # type: ignore[misc]
    )
plink2_case("pgen_cut_by_a_byte", Refused("cut off or damaged: .*; copy"), lambda data: data[:-1])
plink2_case("pgen_long", Refused("cut off or damaged: .*; copy"), lambda data: data + b"\0")
TOGETHER = r"has {} {}, but .* has 4; give the files that were written together"
plink2_case("psam_short", Refused(TOGETHER.format(3, "samples"), ".psam"), psam=PSAM[:-1])
plink2_case("pvar_short", Refused(TOGETHER.format(3, "variants"), ".pvar"), pvar=PVAR[:-1])
plink2_case(
    "pvar_long",
    Refused(TOGETHER.format(5, "variants"), ".pvar"),
    pvar=(*PVAR, "1\t50\trs5\tA\tC\n"),
)
plink2_case(
    "pvar_row_cut",
    Refused("line 5 has 4 columns, not 5; .*copy", ".pvar"),
    pvar=(*PVAR[:-1], "1\t40\trs4\tA"),
)
plink2_case(
    "pvar_text_position",
    Refused("line 3 has the position 'ten', which is no whole number.*; correct", ".pvar"),
    pvar=[line.replace("\t20\t", "\tten\t") for line in PVAR],
)
plink2_case(
    "pvar_huge_position",
    Refused("line 3 has the position '9+', which .*; correct", ".pvar"),
    pvar=[line.replace("\t20\t", "\t99999999999999999999\t") for line in PVAR],
)
plink2_case(
    "pvar_position_of_two_signs",
    Refused("line 3 has the position '--20', which .*; correct", ".pvar"),
    pvar=[line.replace("\t20\t", "\t--20\t") for line in PVAR],
)
plink2_case(
    "pvar_zst_cut",
    Refused("(cut off: its|damaged) zstd data.*; copy", ".pvar.zst"),
    pvar=lambda: zstd(PVAR)[:-8],
    pvar_suffix=".pvar.zst",
)
plink2_case(
    "pvar_zst_damaged",
    Refused("(cut off: its|damaged) zstd data.*; copy", ".pvar.zst"),
    pvar=lambda: flip(zstd(PVAR), 44),
    pvar_suffix=".pvar.zst",
)
plink2_case("pvar_missing", Refused("no such file; check the path", ".pvar"), pvar=None)
plink2_case("psam_missing", Refused("no such file; check the path", ".psam"), psam=None)
plink2_case(
    "psam_ids_twice",
    Refused("sample id 'I1' occurs in lines 2 and 5.*; rename", ".psam"),
    psam=(*PSAM[:-1], PSAM[1]),
)


@case("flips_pgen", Same("intact.pgen", shape_only=True), "PLINK 2")
def _(folder: Path) -> Paths:
    paths = flipped(folder, ".pgen", pgen(BED_ROWS * 8))
    for path in (folder / "intact.pgen", *paths):
        write(path.with_suffix(".psam"), "".join(PSAM))
        pvar = [PVAR[0], *(f"1\t{10 * i}\trs{i}\tA\tC\n" for i in range(1, 33))]
        write(path.with_suffix(".pvar"), "".join(pvar))
    return paths


# VCF Zarr.

ZARR_CALLS = [[[0, 0], [0, 1], [1, 1]], [[0, 1], [-1, -1], [0, 0]], [[1, 1], [0, 0], [0, 1]]]


def zarr_store(path: Path, **changes: Any) -> Path:
    """A store of the genotypes of `GOOD`, a variant a chunk; None leaves an array out."""
    import zarr

    fields: dict[str, Any] = {
        "call_genotype": np.array(ZARR_CALLS, dtype=np.int8),
        "variant_contig": np.array([0, 0, 1], dtype=np.int8),
        "variant_position": np.array([10, 20, 30], dtype=np.int32),
        "variant_allele": np.array([["A", "C"], ["G", "T"], ["C", "T"]], dtype=object),
        "variant_id": np.array(["rs1", "rs2", "rs3"], dtype=object),
        "contig_id": np.array(["1", "2"], dtype=object),
        "sample_id": np.array(SAMPLES, dtype=object),
    }
    with warnings.catch_warnings(), zarr.config.set({"array.write_empty_chunks": True}):
        warnings.simplefilter("ignore")
        group = zarr.open_group(path, mode="w", zarr_format=2)
        group.attrs["vcf_zarr_version"] = "0.4"
        for name, values in (fields | changes).items():
            if values is None:
                continue
            dtype = str if values.dtype == object else values.dtype
            chunks = (1, *values.shape[1:])
            array = group.create_array(name, shape=values.shape, dtype=dtype, chunks=chunks)
            array[...] = values.astype("T") if dtype is str else values
    return path


def zarr_case(name: str, expect: Refused | Read, harm: Any = None, **changes: Any) -> None:
    """A store with other arrays, harmed afterwards."""

    def make(folder: Path) -> Path:
        path = zarr_store(folder / "x.vcz", **changes)
        if harm is not None:
            harm(path)
        return path

    case(name, expect, "VCF Zarr")(make)


def chunk(path: Path, name: str) -> Path:
    """The file of the second chunk of an array."""
    return min(
        path / name / text for text in ("1", "1.0", "1.0.0") if (path / name / text).exists()
    )


zarr_case("zarr", READ_GOOD)
for name in ("call_genotype", "variant_position", "variant_allele", "sample_id"):
    zarr_case(
        f"zarr_without_{name}",
        Refused(f"has no array {name}; write the store anew"),
        **{name: None},
    )
zarr_case(
    "zarr_wrong_shape",
    Refused(r"variant_position has 2 entries, but call_genotype has shape \(3, 3, 2\); write"),
    variant_position=np.array([10, 20], dtype=np.int32),
)
zarr_case(
    "zarr_calls_of_two_dimensions",
    Refused(r"call_genotype has .*; write"),
    call_genotype=np.zeros((3, 3), dtype=np.int8),
)
zarr_case(
    "zarr_positions_as_fractions",
    Refused(r"variant_position .*; write"),
    variant_position=np.array([1.5, 2.5, 3.5]),
)
zarr_case(
    "zarr_without_a_chunk",
    Refused("1 of the 3 chunks of call_genotype are absent: copy"),
    lambda path: chunk(path, "call_genotype").unlink(),
)
zarr_case(
    "zarr_chunk_cut",
    Refused("(chunk|array) .*(cut off|damaged).*; copy"),
    lambda path: write(
        chunk(path, "call_genotype"), chunk(path, "call_genotype").read_bytes()[:-3]
    ),
)
zarr_case(
    "zarr_chunk_of_zeros",
    Refused("(chunk|array) .*(cut off|damaged).*; copy"),
    lambda path: write(chunk(path, "call_genotype"), bytes(22)),
)
zarr_case(
    "zarr_metadata_damaged",
    Refused(r"(is damaged|cannot be opened) .*; copy"),
    lambda path: write(path / "call_genotype" / ".zarray", "{"),
)
zarr_case(
    "zarr_allele_beyond",
    Refused("variant 2: sample S1 has the allele 5, but the record has 2 alleles; copy"),
    call_genotype=np.array([ZARR_CALLS[0], [[0, 5], [0, 0], [0, 0]], ZARR_CALLS[2]], np.int8),
)
zarr_case(
    "zarr_contig_beyond",
    Refused("variant 2 is on contig number 9, but there are 2; copy"),
    variant_contig=np.array([0, 9, 1], dtype=np.int8),
)
zarr_case(
    "zarr_samples_twice",
    Refused("sample id 'S1' is that of number 1 and of 3; rename"),
    sample_id=np.array(["S1", "S2", "S1"], dtype=object),
)


@case("zarr_fifo_as_a_chunk", Refused("is no regular file; copy"), "VCF Zarr")
def _(folder: Path) -> Paths:
    path = zarr_store(folder / "x.vcz")
    chunk(path, "call_genotype").unlink()
    os.mkfifo(path / "call_genotype" / "1.0.0")
    return path


# Our own cache.

CACHE_TEXT: dict[str, Any] = {
    "contigs": ["1", "2"],
    "id": ["rs1", "rs2", "rs3"],
    "ref": ["A", "G", "C"],
    "alt": ["C", "T", "T"],
    "sample_id": list(SAMPLES),
    "family_id": None,
    "source": {},
    "left_out": {},
}


def cache(text: Any = None, sealed: bool = True, **changes: Any) -> bytes:
    """A cache of `GOOD`, its checksum right unless it is not `sealed`."""
    import hashlib
    import io

    arrays: dict[str, np.ndarray] = {
        "dosage": np.array([[0b100100], [0b001101], [0b010010]], dtype=np.uint8),
        "position": np.array([10, 20, 30], dtype="<i8"),
        "contig": np.array([0, 0, 1], dtype="<i4"),
        "text": np.frombuffer(json.dumps(text or CACHE_TEXT).encode(), np.uint8),
        "format": np.array([1, 3], dtype="<i8"),
    }
    arrays |= changes
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    seal = digest.digest() if sealed else bytes(32)
    buffer = io.BytesIO()
    np.savez(buffer, sha256=np.frombuffer(seal, np.uint8), **arrays)
    return buffer.getvalue()


def cache_case(name: str, expect: Refused | Read, data: Callable[[], bytes], **facts: Any) -> None:
    """A single .npz."""
    file_case(name, expect, data, "npz", "x.npz", **facts)


DAMAGED = r"is damaged \(.*\); copy"
cache_case("npz", READ_GOOD, cache)
cache_case("npz_cut", Refused(r"no genotype file .*zip.*;|is damaged.*;"), lambda: cache()[:-30])
cache_case("npz_cut_in_half", Refused(r"no genotype file .*zip.*;"), lambda: cache()[:900])
cache_case("npz_checksum", Refused(DAMAGED), lambda: cache(sealed=False))
cache_case(
    "npz_pickle_inside",
    Refused(DAMAGED),
    lambda: cache(contig=np.array([{}, {}, {}], dtype=object)),
)
cache_case(
    "npz_of_a_later_version",
    Refused("is a cache of version 2, and this program reads 1; update"),
    lambda: cache(format=np.array([2, 3], dtype="<i8")),
)
cache_case(
    "npz_of_something_else",
    Refused(r"no genotype file .*; "),
    lambda: cache().replace(b"dosage", b"dosag3"),
)
# Made on purpose, so with the right checksum.
for name, changes in {
    "contig_beyond": {"contig": np.array([0, 7, 1], dtype="<i4")},
    "contig_negative": {"contig": np.array([0, -1, 1], dtype="<i4")},
    "positions_short": {"position": np.array([10, 20], dtype="<i8")},
    "positions_as_fractions": {"position": np.array([1.5, np.nan, 30])},
    "dosage_narrow": {"format": np.array([1, 300], dtype="<i8")},
    "dosage_of_one_dimension": {"dosage": np.array([1, 2, 3], dtype=np.uint8)},
    "dosage_as_fractions": {"dosage": np.array([[1.5], [2], [3]])},
    "samples_negative": {"format": np.array([1, -3], dtype="<i8")},
    "samples_short": {"text": CACHE_TEXT | {"sample_id": ["S1"]}},
    "samples_empty": {"text": CACHE_TEXT | {"sample_id": ["S1", "", "S3"]}},
    "samples_twice": {"text": CACHE_TEXT | {"sample_id": ["S1", "S2", "S1"]}},
    "samples_as_numbers": {"text": CACHE_TEXT | {"sample_id": [1, 2, 3]}},
    "ids_short": {"text": CACHE_TEXT | {"id": ["rs1"]}},
    "allele_is_no_text": {"text": CACHE_TEXT | {"ref": [None, 1, []]}},
    "text_without_alt": {"text": {k: v for k, v in CACHE_TEXT.items() if k != "alt"}},
    "text_is_a_list": {"text": [1, 2, 3]},
}.items():
    cache_case(
        f"npz_{name}",
        Refused(r"is damaged \(.*\); copy|sample id 'S1' occurs"),
        lambda changes=changes: cache(**changes),  # type: ignore[misc]
    )


@case("flips_npz", Same("intact.npz"), "npz")
def _(folder: Path) -> Paths:
    return flipped(folder, ".npz", cache())


# Labels.

TABLE = "sample\tpop\tsuper_pop\nS1\tGBR\tEUR\nS2\tYRI\tAFR\nS3\tCHB\tEAS\n"
READ_TABLE = Joined(("GBR", "YRI", "CHB"))


def label_case(name: str, expect: Refused | Joined, data: bytes | str) -> None:
    """A table."""
    file_case(name, expect, data, "labels", "x.tsv")


label_case("labels_byte_order_mark", READ_TABLE, b"\xef\xbb\xbf" + TABLE.encode())
label_case("labels_crlf", READ_TABLE, TABLE.replace("\n", "\r\n"))
label_case("labels_extra", READ_TABLE, TABLE + "S9\tGBR\tEUR\n")
label_case("labels_missing", Joined(("GBR", "YRI", None)), TABLE.replace("S3", "S9"))
label_case("labels_empty_field", Joined(("GBR", None, "CHB")), TABLE.replace("YRI", ""))
label_case(
    "labels_in_another_order", READ_TABLE, TABLE.replace("S1\tGBR\tEUR\n", "") + "S1\tGBR\tEUR\n"
)
label_case("labels_gzip", READ_TABLE, gzip.compress(TABLE.encode(), mtime=0))
label_case(
    "labels_of_formulas",
    Joined(("=cmd()", "<b>", "CHB")),
    TABLE.replace("GBR", "=cmd()").replace("YRI", "<b>"),
)
label_case(
    "labels_twice",
    Refused("lines 2 and 5 are both of sample 'S1', with different labels; remove one"),
    TABLE + "S1\tFIN\tEUR\n",
)
label_case(
    "labels_latin1",
    Refused(r"byte \d+ of its text, b'\\xe9', is not UTF-8; save the table as UTF-8"),
    TABLE.replace("GBR", "é").encode("latin-1"),
)
label_case(
    "labels_utf16",
    Refused("not UTF-8; save the table as UTF-8"),
    TABLE.encode("utf-16"),
)
label_case(
    "labels_without_ids",
    Refused(r"has no column of sample ids, only 'who', 'pop', .*; call it 'sample'"),
    TABLE.replace("sample\t", "who\t"),
)
label_case(
    "labels_of_one_column",
    Refused("has no label column beside the id column 'sample'; add one"),
    "sample\nS1\nS2\n",
)
label_case(
    "labels_of_others",
    Refused("no sample id in common with the genotypes.*; use the same ids"),
    TABLE.replace("\nS", "\nT"),
)
label_case(
    "labels_ragged",
    Refused("line 3 has 2 fields, not 3 as the header; correct it"),
    TABLE.replace("YRI\tAFR", "YRI"),
)
label_case(
    "labels_open_quote",
    Refused(r"line \d+: .*; correct the quotes"),
    TABLE.replace("GBR", '"GBR'),
)
label_case("labels_empty", Refused(r"is empty \(0 bytes\); copy"), "")
label_case("labels_header_alone", Refused("has a header but no rows; add"), "sample\tpop\n")
label_case(
    "labels_id_empty",
    Refused("line 3 has an empty sample id; fill it in or remove the line"),
    TABLE.replace("S2", ""),
)
label_case(
    "labels_two_columns_alike",
    Refused("line 1: two columns are named 'pop'; rename one"),
    TABLE.replace("super_pop", "pop"),
)
label_case("labels_vcf", Refused("is a genotype file, not a table of labels; give"), GOOD)
label_case(
    "labels_zero_byte",
    Refused(r"line 2.* NUL.*;"),
    TABLE.replace("GBR", "G\0R"),
)


def main() -> None:
    """Write every case."""
    root = Path(sys.argv[1])
    for hostile in CASES:
        folder = root / hostile.name
        folder.mkdir(parents=True)
        hostile.make(folder)
    print(f"{len(CASES)} cases in {root}")


if __name__ == "__main__":
    main()
