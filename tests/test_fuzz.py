"""Mutated files give a sound matrix or a refusal in one line, and nothing else.

Bounded and seeded: the same examples on every run. ANCESTRY_DDVI_FUZZ=20 makes it 20 times as many.
"""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hostile import (
    BED_ROWS,
    BIM,
    BY_SAMPLE,
    FAM,
    GOOD_BED,
    PSAM,
    PVAR,
    bcf,
    bgzip,
    cache,
    header,
    pgen,
    record,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestry_ddvi.errors import InputError
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.loaders import read_genotypes
from ancestry_ddvi.loaders.htslib import HtslibSource
from ancestry_ddvi.loaders.options import ReadOptions
from ancestry_ddvi.loaders.read import read_sources

TIMES = int(os.environ.get("ANCESTRY_DDVI_FUZZ", "1"))

VCF = header(("S1", "S2", "S3")) + "".join(
    (
        record("0/0", "0|1", "1/1", position="10", id="rs1"),
        record("0/1", "./.", "0/0", id="rs2", ref="G", alt="T"),
        record("0/0:3", "0/1:.", "1/1", position="30", format="GT:DP"),
        record("3:0/0:1,2", "4:0/1", "5:1/1:1,1", position="40", format="DP:GT:AD"),
        record("0/2", "1/2", ".", position="50", alt="C,T"),
        record("0", "./1", "0/1/1", position="60"),
        record("0.1", "1", "2", position="70", format="DS"),
        record("1,0,0", "0,1,0", "0,0.1,0.9", position="80", format="GP"),
        record("0/0", "0/1", "1/1", contig="2", position="9", ref="A", alt="<DEL>"),
        record("1|1", "0|0", ".|.", contig="2", position="10", ref="c", alt="t", info="NOTE=x"),
    )
)
# What records are made of, and what must not be there.
TOKENS = (
    *(
        "0/0",
        "0/1",
        "1|1",
        "./.",
        ".",
        "./1",
        "0/2",
        "1",
        "0/0/1",
        "0/",
        "/",
        "|",
        "-1",
        "10/1",
        "",
    ),
    *("A", "C", "G,T", "*", "<INS>", "N", "a", "C,C", "C,", "GT", "GT:DP", "DP:GT", "GT:GT", "DS"),
    *("GP", "DP", "GT:", ":", "PL", "GT:DS", "0.5", "3", "nan", "inf", "1e9", "1,0,0", "2,2,2"),
    *("1", "2", "X", "chr1", "MT", "0", "4294967297", "2147483647", "99999999999999999999", "+1"),
    *("é", "\N{GRINNING FACE}", " ", "  ", "\r", "\0", "#", "##x", "#CHROM", "=1+1", "%s", "\x7f"),
    *("x" * 300, "0" * 300, "9" * 5000, "a:b", ";", "=", "A=1;B", "rs1", "S1"),
)


def fuzz(n_examples: int) -> settings:
    return settings(
        max_examples=n_examples * TIMES,
        deadline=None,
        derandomize=True,
        database=None,
    )


# Mutations.


@st.composite
def edited(draw: st.DrawFn, data: bytes, most: int = 4, start: int = 0) -> bytes:
    """Bytes changed, put in, taken out, doubled or cut off, from `start` on."""
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(min(start, len(data)), len(data)))
        kind = draw(st.sampled_from(("set", "flip", "insert", "delete", "double", "cut")))
        n = draw(st.integers(1, 40))
        if kind == "set":
            data = data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
        elif kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + n :]
        elif kind == "double":
            data = data[: at + n] + data[at:]
        else:
            data = data[: max(at, start)]
    return data


@st.composite
def rewritten(draw: st.DrawFn, text: str, tokens: tuple[str, ...] = TOKENS) -> bytes:
    """Lines doubled, dropped or moved, fields swapped for others, and a few bytes at last."""
    lines = [line.split("\t") for line in text.split("\n")]
    # Mutations of meta lines teach little: most go to the rest.
    first = next((i for i, line in enumerate(lines) if line[:1] == ["#CHROM"]), 0)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(draw(st.sampled_from((0, first, first))), len(lines) - 1))
        kind = draw(st.sampled_from(("token",) * 5 + ("double", "drop", "move", "swap", "cut")))
        if kind == "token" and lines[at]:
            column = draw(st.integers(0, len(lines[at]) - 1))
            lines[at] = [*lines[at]]
            lines[at][column] = draw(st.sampled_from(tokens))
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "drop" and len(lines) > 1:
            del lines[at]
        elif kind == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
        elif kind == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = [*lines[at][:5], *lines[other][5:]], lines[at]
        elif kind == "cut":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]  # maybe to an empty one
        first = min(first, len(lines) - 1)
    data = "\n".join("\t".join(line) for line in lines).encode()
    if draw(st.integers(0, 3)) == 0:
        data = draw(edited(data, 2))
    return data


# What must hold.


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def outcome(path: Path, read: object) -> GenotypeMatrix | InputError:
    """A sound matrix, or a refusal in a line that begins with the path."""
    try:
        found = read()  # type: ignore[operator]
    except InputError as fault:
        message = str(fault)
        prefix = str(path.with_suffix(""))
        assert message.startswith(prefix), message
        assert len(message.splitlines()) == 1, message
        assert "crashed" not in message or path.suffix == ".pgen", message
        return fault
    assert isinstance(found, GenotypeMatrix)
    assert found.dosage.dtype == np.int8
    assert found.dosage.shape == (len(found.sample_id), len(found.variants))
    assert found.dosage.size
    assert set(np.unique(found.dosage)) <= {-1, 0, 1, 2}
    assert all(found.sample_id)
    return found


def check(path: Path, options: ReadOptions | None = None) -> GenotypeMatrix | InputError:
    return outcome(path, lambda: read_genotypes(path, options))


def check_both(path: Path, options: ReadOptions) -> None:
    """The fast reader and htslib alone, which agree if both read the file."""
    fast = check(path, options)
    slow = outcome(path, lambda: read_sources([HtslibSource.guarded(path)], options))
    if isinstance(fast, InputError):
        assert isinstance(slow, InputError), fast
    elif not isinstance(slow, InputError):
        assert fast.content_hash() == slow.content_hash()
        assert (fast.left_out, fast.by_rule) == (slow.left_out, slow.by_rule)
        assert fast.variants.equals(slow.variants)


OPTIONS = st.builds(
    ReadOptions,
    multiallelic=st.sampled_from(("skip", "split")),
    half_calls=st.sampled_from(("missing", "reference", "haploid", "error")),
    chr_set=st.sampled_from((22, None)),
)


@fuzz(90)
@given(rewritten(VCF), OPTIONS, st.sampled_from(("plain", "plain", "gzip", "bgzip")))
def test_vcf(data: bytes, options: ReadOptions, container: str) -> None:
    pack = {"plain": bytes, "gzip": gzip.compress, "bgzip": bgzip}[container]
    with folder() as here:
        check_both(write(here / "x.vcf", pack(data)), options)  # type: ignore[operator]


@fuzz(40)
@given(edited(bgzip(VCF, 300)))
def test_container(data: bytes) -> None:
    with folder() as here:
        check(write(here / "x.vcf.gz", data))


BCF = bcf(VCF.replace("<DEL>", "*"))  # pysam would write an END that its header lacks


@fuzz(25)
@given(edited(BCF, 2, start=9), OPTIONS)
def test_bcf(data: bytes, options: ReadOptions) -> None:
    """With right checksums, so that htslib sees it all."""
    with folder() as here:
        check(write(here / "x.bcf", bgzip(data, 3000)), options)


@fuzz(60)
@given(st.data())
def test_plink1(data: st.DataObject) -> None:
    files = {
        ".bed": data.draw(st.sampled_from((GOOD_BED, BY_SAMPLE))),
        ".bim": "".join(BIM).encode(),
        ".fam": "".join(FAM).encode(),
    }
    for suffix in data.draw(st.sets(st.sampled_from(sorted(files)), min_size=1, max_size=2)):
        change = edited(files[suffix], 2)
        if suffix != ".bed":
            change |= rewritten(files[suffix].decode())
        files[suffix] = data.draw(change)
    with folder() as here:
        for suffix, content in files.items():
            write(here / f"x{suffix}", content)
        check(here / "x.bed")


PGEN = pgen(BED_ROWS)


@fuzz(25)
@given(st.data())
def test_plink2(data: st.DataObject) -> None:
    """A .pgen has no checksum: a crash in Pgenlib is caught, and said."""
    files = {".pgen": PGEN, ".pvar": "".join(PVAR).encode(), ".psam": "".join(PSAM).encode()}
    suffix = data.draw(st.sampled_from((".pgen", ".pgen", ".pvar", ".psam")))
    change = edited(files[suffix], 2)
    files[suffix] = data.draw(
        change if suffix == ".pgen" else change | rewritten(files[suffix].decode())
    )
    with folder() as here:
        for name, content in files.items():
            write(here / f"x{name}", content)
        check(here / "x.pgen")


@fuzz(60)
@given(edited(cache()))
def test_npz(data: bytes) -> None:
    with folder() as here:
        check(write(here / "x.npz", data))


def test_nothing_is_changed_to_begin_with() -> None:
    """The control: all of them are read."""
    with folder() as here:
        paths = [
            write(here / "x.vcf", VCF),
            write(here / "x.vcf.gz", bgzip(VCF)),
            write(here / "x.bcf", bgzip(BCF)),
        ]
        hashes = [read_genotypes(path).content_hash() for path in paths]
        assert len(set(hashes)) == 1
        assert read_genotypes(paths[0]).n_variants == 7
        assert read_genotypes(write(here / "x.npz", cache())).n_variants == 3
