"""PLINK 2 sets: written by Pgenlib and by plink2, read back; damaged in every way."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import zstandard
from helpers import make_variants
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pgenlib import PgenWriter

from ancestry_ddvi import read_genotypes
from ancestry_ddvi.errors import GenotypeFileError
from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.loaders.guard import GuardedSource
from ancestry_ddvi.loaders.plink2 import Plink2Source, plink2_prefix
from ancestry_ddvi.loaders.sites import INDEL, MULTIALLELIC, NOT_AUTOSOMAL, SYMBOLIC, SiteRule
from ancestry_ddvi.loaders.source import CallRule, Selection, Source

DATA = Path(__file__).parents[1] / "data"
PLINK2 = shutil.which("plink2")
needs_plink2 = pytest.mark.skipif(PLINK2 is None, reason="plink2 is not installed")


def plink2(*args: object) -> None:
    assert PLINK2
    command = [PLINK2, *map(str, args), "--threads", "1"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


def write_tables(prefix: Path, variants: pd.DataFrame, n_samples: int) -> None:
    """PREFIX.pvar and PREFIX.psam."""
    lines = ["##source=test", "#CHROM\tPOS\tID\tREF\tALT"]
    columns = ["contig", "position", "id", "ref", "alt"]
    lines += ["\t".join(map(str, row)) for row in variants[columns].itertuples(index=False)]
    Path(f"{prefix}.pvar").write_text("\n".join(lines) + "\n")
    samples = [f"S{i}\tNA" for i in range(n_samples)]
    Path(f"{prefix}.psam").write_text("\n".join(["#IID\tSEX", *samples]) + "\n")


def write_set(prefix: Path, dosage: np.ndarray, variants: pd.DataFrame) -> None:
    """The three files of (n_samples, n_variants) dosages of ALT."""
    n, m = dosage.shape
    with PgenWriter(f"{prefix}.pgen".encode(), n, variant_ct=m, nonref_flags=False) as writer:
        for column in np.where(dosage < 0, -9, dosage).T.astype(np.int8):
            writer.append_biallelic(np.ascontiguousarray(column))
    write_tables(prefix, variants, n)


def read(source: Source, selection: Selection | None = None) -> tuple[np.ndarray, list]:
    """(n_samples, n_variants) dosages, and the rows."""
    dosage, rows = [], []
    for block in source.blocks(selection or Selection(), lambda fraction: None):
        assert len(block.rows) == len(block.dosage)
        dosage.append(block.dosage)
        rows += block.rows
    none = np.empty((0, len(source.sample_id)), dtype=np.int8)
    return np.concatenate(dosage or [none]).T, rows


def correlated(n: int, m: int, seed: int = 0) -> np.ndarray:
    """Dosages of rare and common variants, some like the one before: every packing of a record."""
    rng = np.random.default_rng(seed)
    dosage = rng.binomial(2, rng.choice([0.01, 0.3, 0.99], m), (n, m)).astype(np.int8)
    for j in range(1, m):
        if rng.random() < 0.5:
            dosage[:, j] = dosage[:, j - 1] if rng.random() < 0.5 else 2 - dosage[:, j - 1]
    dosage[rng.random((n, m)) < 0.02] = MISSING
    return np.where(dosage > 2, MISSING, dosage)


@settings(deadline=None)
@given(
    dosage=st.tuples(st.integers(1, 11), st.integers(1, 9)).flatmap(
        lambda shape: arrays(np.int8, shape, elements=st.integers(-1, 2))
    ),
    data=st.data(),
)
def test_round_trip(dosage: np.ndarray, data: st.DataObject) -> None:
    n, m = dosage.shape
    variants = make_variants(m)
    with TemporaryDirectory() as folder:
        prefix = Path(folder) / "a.b"
        write_set(prefix, dosage, variants)
        source = Plink2Source(prefix)
        found, rows = read(source)
        np.testing.assert_array_equal(found, dosage)
        assert source.sample_id == tuple(f"S{i}" for i in range(n))
        assert source.family_id is None
        assert rows == list(variants.itertuples(index=False, name=None))
        chosen = data.draw(st.lists(st.integers(0, n - 1), unique=True))
        part = list(Plink2Source(prefix).blocks(Selection(samples=np.array(chosen)), print_nothing))
        np.testing.assert_array_equal(
            np.concatenate([b.dosage for b in part]).T, dosage[np.array(chosen, dtype=int)]
        )


def print_nothing(fraction: float) -> None:
    """Progress that nobody looks at."""


def test_more_than_a_block(tmp_path: Path) -> None:
    """70,000 variants: two blocks in the header of the .pgen, and many of ours."""
    dosage = correlated(3, 70_000)
    write_set(tmp_path / "x", dosage, make_variants(70_000))
    source = Plink2Source(tmp_path / "x")
    fractions: list[float] = []
    blocks = list(source.blocks(Selection(), fractions.append))
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate([b.dosage for b in blocks]).T, dosage)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def small(tmp_path: Path) -> Path:
    write_set(tmp_path / "x", correlated(7, 5), make_variants(5))
    return tmp_path / "x"


def test_any_of_its_names(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    source = Plink2Source(prefix)
    expected, rows = read(source)
    for name in (prefix, *(Path(f"{prefix}{s}") for s in (".pgen", ".pvar", ".psam"))):
        assert plink2_prefix(name) == prefix
        again = Plink2Source(name)
        assert (again.path, again.format) == (f"{prefix}.pgen", "PLINK 2")
        found, found_rows = read(again)
        np.testing.assert_array_equal(found, expected)
        assert found_rows == rows
        assert again.sha256() == source.sha256()
    Path(f"{prefix}.pvar").write_text(Path(f"{prefix}.pvar").read_text().replace("rs1", "rs9"))
    changed = Plink2Source(prefix)
    with pytest.raises(RuntimeError, match="once it has been read"):
        changed.sha256()
    read(changed)
    assert changed.sha256() != source.sha256()


def test_a_suffix_is_taken_off_once(tmp_path: Path) -> None:
    """`plink2 --make-pgen --out study.pgen` makes study.pgen.pgen; study.pgen is another's."""
    write_set(tmp_path / "study.pgen", correlated(7, 5), make_variants(5))
    expected = read(Plink2Source(tmp_path / "study.pgen"))[0]
    for _ in range(2):  # alone, and beside the other
        for suffix in (".pgen", ".pvar", ".psam"):
            found = read_genotypes(tmp_path / f"study.pgen{suffix}").dosage
            np.testing.assert_array_equal(found, expected)
        write_set(tmp_path / "study", np.zeros((7, 5), dtype=np.int8), make_variants(5))
    assert not read_genotypes(tmp_path / "study.pgen").dosage.any()


def test_the_pvar_that_was_named_is_read(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    text = Path(f"{prefix}.pvar").read_bytes()
    packed = zstandard.compress(text.replace(b"rs1", b"rs9"))
    Path(f"{prefix}.pvar.zst").write_bytes(packed)
    for name, expected in ((".pvar.zst", "rs9"), (".pvar", "rs1"), (".pgen", "rs1"), ("", "rs1")):
        assert read_genotypes(f"{prefix}{name}").variants["id"][1] == expected


@pytest.mark.parametrize("suffix", [".pvar", ".pvar.zst"])
def test_a_pvar_that_goes_away(tmp_path: Path, suffix: str) -> None:
    prefix = small(tmp_path)
    pvar = Path(f"{prefix}.pvar")
    if suffix == ".pvar.zst":
        Path(f"{prefix}.pvar.zst").write_bytes(zstandard.compress(pvar.read_bytes()))
        pvar.unlink()
    source = GuardedSource(Plink2Source, str(prefix))
    Path(f"{prefix}{suffix}").unlink()
    with pytest.raises(GenotypeFileError, match=rf"x\{suffix}: no such file; check the path"):
        read(source)


def test_its_content_decides(tmp_path: Path) -> None:
    for start in (b"", b"\x6c\x1b", b"\x6c\x1b\x01\x00", b"\x6c\x1b\x00\x00", b"##fileformat=VCF"):
        (tmp_path / "x.pgen").write_bytes(start)
        assert plink2_prefix(tmp_path / "x.pgen") is None
        assert plink2_prefix(tmp_path / "x") is None
    (tmp_path / "x.pgen").write_bytes(b"\x6c\x1b\x10")
    assert plink2_prefix(tmp_path / "x") == tmp_path / "x"
    assert plink2_prefix(tmp_path / "x.psam") is None  # no such file
    assert plink2_prefix(tmp_path) is None
    assert plink2_prefix(tmp_path / "x.vcf") is None
    assert plink2_prefix("\0") is None
    (tmp_path / "x.pgen").rename(tmp_path / "x.PGEN")
    assert plink2_prefix(tmp_path / "x.PGEN") == tmp_path / "x"
    assert plink2_prefix(tmp_path / "x") == tmp_path / "x"


def write_multiallelic(prefix: Path, alleles: np.ndarray, n_alts: Sequence[int]) -> None:
    """A set of (m, n, 2) allele codes."""
    m, n, _ = alleles.shape
    bases = "ACGT"
    variants = make_variants(m)
    variants["alt"] = [",".join(bases[1 : 1 + k]) for k in n_alts]
    with PgenWriter(
        f"{prefix}.pgen".encode(), n, variant_ct=m, nonref_flags=False, allele_ct_limit=4
    ) as writer:
        for codes, k in zip(alleles, n_alts, strict=True):
            flat = np.where(codes < 0, -9, codes).reshape(-1).astype(np.int32)
            writer.append_alleles(flat, allele_ct=k + 1)
    write_tables(prefix, variants, n)


def multiallelic(seed: int, m: int, n: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    n_alts = rng.integers(1, 4, m).tolist()
    alleles = np.stack([rng.integers(0, k + 1, (n, 2)) for k in n_alts])
    alleles[rng.random((m, n)) < 0.2] = -1
    return alleles, n_alts


def test_other_alt_alleles_are_missing_for_a_model(tmp_path: Path) -> None:
    alleles, n_alts = multiallelic(0, m=12, n=6)
    write_multiallelic(tmp_path / "x", alleles, n_alts)
    selection = Selection(SiteRule(split=True), CallRule(others_missing=True))
    found, _ = read(Plink2Source(tmp_path / "x"), selection)
    expected = np.stack(
        [
            np.where(np.isin(call, (0, alt)).all(axis=1), (call == alt).sum(axis=1), MISSING)
            for call, k in zip(alleles, n_alts, strict=True)
            for alt in range(1, k + 1)
        ],
        axis=1,
    )
    np.testing.assert_array_equal(found, expected)
    assert (expected[alleles.min(axis=2).T[:, np.repeat(np.arange(12), n_alts)] >= 0] < 0).any()


@pytest.mark.parametrize("seed", range(5))
def test_multiallelic(tmp_path: Path, seed: int) -> None:
    alleles, n_alts = multiallelic(seed, m=12, n=6)
    write_multiallelic(tmp_path / "x", alleles, n_alts)
    selection = Selection(SiteRule(split=True), samples=np.array([5, 0, 2]))
    found, rows = read(Plink2Source(tmp_path / "x"), selection)
    counts = np.stack(
        [
            np.where(call.min(axis=1) < 0, MISSING, (call == alt).sum(axis=1))
            for call, k in zip(alleles, n_alts, strict=True)
            for alt in range(1, k + 1)
        ],
        axis=1,
    )
    np.testing.assert_array_equal(found, counts[[5, 0, 2]])
    assert [row[4] for row in rows] == [a for k in n_alts for a in "CGT"[:k]]
    selection = Selection()
    found, rows = read(Plink2Source(tmp_path / "x"), selection)
    plain = [j for j, k in enumerate(n_alts) if k == 1]
    assert [row[2] for row in rows] == [f"rs{j}" for j in plain]
    assert selection.sites.left_out == {MULTIALLELIC: len(n_alts) - len(plain)}
    for j, column in zip(plain, found.T, strict=True):
        expected = np.where(alleles[j].min(axis=1) < 0, MISSING, (alleles[j] == 1).sum(axis=1))
        np.testing.assert_array_equal(column, expected)


def test_what_is_left_out(tmp_path: Path) -> None:
    variants = make_variants(5)
    variants["contig"] = ["chr1", "chrX", "1", "1", "22"]
    variants["ref"] = ["A", "A", "AC", "A", "a"]
    variants["alt"] = ["C", "C", "A", ".", "c"]
    write_set(tmp_path / "x", correlated(4, 5), variants)
    selection = Selection()
    found, rows = read(Plink2Source(tmp_path / "x"), selection)
    np.testing.assert_array_equal(found, correlated(4, 5)[:, [0, 4]])
    assert [row[0::3] for row in rows] == [("chr1", "A"), ("22", "A")]
    assert selection.sites.left_out == {NOT_AUTOSOMAL: 1, INDEL: 1, SYMBOLIC: 1}
    variants["contig"] = "X"
    write_set(tmp_path / "x", correlated(4, 5), variants)
    found, rows = read(Plink2Source(tmp_path / "x"))
    assert (found.shape, rows) == ((4, 0), [])


def test_tables_in_other_shapes(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    pvar, psam = Path(f"{prefix}.pvar"), Path(f"{prefix}.psam")
    expected, rows = read(Plink2Source(prefix))
    bare = [line.split("\t") for line in pvar.read_text().splitlines()[2:]]
    other = [
        "#CHROM\tID\tREF\tPOS\tALT\tINFO\n"
        + "".join(f"{c}\t{i}\t{r}\t{p}\t{a}\tX=a b\n" for c, p, i, r, a in bare),
        "".join(f"{c}\t{i}\t0\t{p}\t{a}\t{r}\n" for c, p, i, r, a in bare),
        "".join(f"{c} {i} {p}  {a} {r}\r\n" for c, p, i, r, a in bare),
        "##x\n#CHROM POS ID REF ALT\n" + "\n".join(" ".join(row) for row in bare),
    ]
    for text in other:
        pvar.write_text(text, newline="")
        found, found_rows = read(Plink2Source(prefix))
        np.testing.assert_array_equal(found, expected)
        assert found_rows == rows
    tables = {
        "#FID\tIID\tSEX\tGROUP\n": "F{0}\tS{0}\t1\tg\n",
        "##x\n#FID IID\n": "F{0} S{0}\r\n",
        "": "F{0} S{0} 0 0 1 -9\n",
        "#IID\n": "S{0}\n",
        "#IID SID\n": "S{0} visit1\n",
    }
    for header, line in tables.items():
        psam.write_text(header + "".join(line.format(i) for i in range(7)), newline="")
        source = Plink2Source(prefix)
        assert source.sample_id == tuple(f"S{i}" for i in range(7))
        families = None if "#IID" in header else tuple(f"F{i}" for i in range(7))
        assert source.family_id == families


def test_zstd(tmp_path: Path) -> None:
    prefix = small(tmp_path)
    expected, rows = read(Plink2Source(prefix))
    pvar, packed = Path(f"{prefix}.pvar"), Path(f"{prefix}.pvar.zst")
    text = pvar.read_bytes()
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(text)
    pvar.unlink()
    for data in (whole, b"".join(zstandard.compress(part) for part in (text[:50], text[50:]))):
        packed.write_bytes(data)
        for name in (prefix, packed):
            assert plink2_prefix(name) == prefix
            found, found_rows = read(Plink2Source(name))
            np.testing.assert_array_equal(found, expected)
            assert found_rows == rows
    for end in range(4, len(whole), 7):
        packed.write_bytes(whole[:end])
        with pytest.raises(GenotypeFileError, match=r"pvar\.zst: (cut off|damaged)"):
            read(Plink2Source(prefix))
    for place in range(4, len(whole), 7):
        packed.write_bytes(flipped(whole, place, 3))
        with pytest.raises(GenotypeFileError, match=r"pvar\.zst: "):
            read(Plink2Source(prefix))


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


@pytest.mark.parametrize("mode", [2, 3, 4])
@pytest.mark.parametrize("flags", [0, 1])
def test_records_of_one_length(tmp_path: Path, mode: int, flags: int) -> None:
    """The modes that Pgenlib does not write, by hand; 16384 is a dosage of one."""
    dosage = np.random.default_rng(0).integers(-1, 3, (7, 5)).astype(np.int8)
    data = struct.pack("<3BIIB", 0x6C, 0x1B, mode, 5, 7, 0xC0 if flags else 0x40) + b"\x05" * flags
    for codes in np.where(dosage < 0, 3, dosage).T:
        shifted = np.pad(codes, (0, 1)).reshape(2, 4).astype(int) << np.array([0, 2, 4, 6])
        data += shifted.sum(axis=1).astype(np.uint8).tobytes()
        values = np.where(codes == 3, 65535, 16384 * codes.astype(int)).astype("<u2")
        data += values.tobytes() * (mode > 2) + bytes(14) * (mode > 3)
    Path(tmp_path / "x.pgen").write_bytes(data)
    write_tables(tmp_path / "x", make_variants(5), 7)
    source = Plink2Source(tmp_path / "x")
    assert ("hard-called by plink2" in source.format) == (mode > 2)
    np.testing.assert_array_equal(read(source)[0], dosage)
    (tmp_path / "x.pgen").write_bytes(data[:-1])
    with pytest.raises(GenotypeFileError, match="5 variants of 7 samples make"):
        Plink2Source(tmp_path / "x")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (0x11, r"with a footer \(mode 0x11\), which is not read; write a plain one"),
        (0x20, r"index in a \.pgen\.pgi \(mode 0x20\)"),
        (0x21, r"index in a \.pgen\.pgi"),
        (0x05, "has the unknown mode 0x05"),
        (0x01, r"starts with b'l\\x1b\\x01', which no \.pgen does"),
    ],
)
def test_modes_that_are_not_read(tmp_path: Path, mode: int, message: str) -> None:
    prefix = small(tmp_path)
    pgen = Path(f"{prefix}.pgen")
    data = bytearray(pgen.read_bytes())
    data[2] = mode
    pgen.write_bytes(data)
    with pytest.raises(GenotypeFileError, match=message):
        Plink2Source(prefix)


_PVAR, _PSAM, _PGEN = ".pvar", ".psam", ".pgen"


@pytest.mark.parametrize(
    ("suffix", "old", "new", "message"),
    [
        (_PVAR, b"2\t2000\trs4\tA\tC\n", b"", r"has 4 variants, but the \.pgen has 5"),
        (_PVAR, b"1\t1000", b"1\t900\tr\tA\tC\n1\t1000", "has 6 variants, but"),
        (_PVAR, b"\tC\n", b"\n", "line 3 has 4 columns, not 5"),
        (_PVAR, b"\t1000\t", b"\tmany\t", "line 3 has the position 'many', which is no whole"),
        (_PVAR, b"\t1000\t", "\t١٢\t".encode(), "position '١٢', which is no whole"),
        (_PVAR, b"\tPOS", b"\tWHERE", r"line 2 \(its header\) names 0 columns POS"),
        (_PVAR, b"rs0", b"rs\xe9", "line 3 is not UTF-8"),
        (_PVAR, b"rs0", b"rs\0", "line 3 holds a NUL byte"),
        (_PVAR, b"1\t1000", b"\n1\t1000", "line 3 is empty"),
        (_PVAR, b"##source", b"\xef\xbb\xbf##source", "byte-order mark"),
        (_PVAR, b"#CHROM\tPOS\tID\tREF\tALT\n", b"", "as_bim"),
        (_PVAR, None, b"", r"x\.pvar: is empty"),
        (_PVAR, None, None, r"x\.pvar: no such file"),
        (_PVAR, None, b"##only\n", "has 0 variants"),
        (_PVAR, None, b"1 2 3\n", "has 3 columns and there is no #CHROM line"),
        (_PSAM, b"S6\tNA\n", b"", r"has 6 samples, but .*x\.pgen has 7; give the files that were"),
        (_PSAM, b"S6", b"S2", "'S2' occurs in lines 4 and 8; rename one or drop it"),
        (_PSAM, b"S3\tNA", b"S3", "line 5 has 1 columns, not 2"),
        (_PSAM, b"#IID", b"#FID", "names no column IID"),
        (_PSAM, b"S3", b"S\xe9", "line 5 is not UTF-8"),
        (_PSAM, b"#IID\tSEX\n", b"", "has 2 columns and there is no #FID or #IID line"),
        (_PSAM, None, b"", r"x\.psam: is empty"),
        (_PSAM, None, b"#IID\n", "has no samples"),
        (_PSAM, None, None, r"x\.psam: no such file"),
        (_PGEN, None, b"", r"x\.pgen: is empty"),
        (_PGEN, None, b"\x6c\x1b\x10", "its header ends at byte 3"),
        (_PGEN, None, b"\x6c\x1b\x10" + bytes(9), "tells of 0 samples and 0 variants"),
        (_PGEN, None, b"\x6c\x1b\x10" + b"\xff" * 9, "bytes for 4294967295 variants"),
        (_PGEN, None, b"##fileformat=VCFv4.2\n", r"which no \.pgen does"),
        (_PGEN, None, None, r"x\.pgen: no such file"),
    ],
)
def test_refused(
    tmp_path: Path, suffix: str, old: bytes | None, new: bytes | None, message: str
) -> None:
    prefix = small(tmp_path)
    path = Path(f"{prefix}{suffix}")
    data = path.read_bytes()
    if new is None:
        path.unlink()
    elif old is None:
        path.write_bytes(new)
    else:
        assert old in data
        path.write_bytes(data.replace(old, new, 1))
    if message == "as_bim":  # five columns without a header are those of a .bim
        message = "position 'rs0'"
    with pytest.raises(GenotypeFileError, match=message) as caught:
        read(Plink2Source(prefix))
    assert "\n" not in str(caught.value)


def test_alleles_are_held_against_the_pgen(tmp_path: Path) -> None:
    """Pgenlib would read other genotypes, or beyond its memory."""
    alleles, n_alts = multiallelic(1, m=12, n=6)
    write_multiallelic(tmp_path / "x", alleles, n_alts)
    pvar = tmp_path / "x.pvar"
    pvar.write_text(pvar.read_text().replace("C,G,T", "C").replace("C,G", "C"))
    with pytest.raises(GenotypeFileError, match="has 1 ALT alleles, but another number in the"):
        read(Plink2Source(tmp_path / "x"))


def hostile(folder: Path) -> Path:
    """Every kind of record: packed in each way, with several ALT alleles, with dosages."""
    rng = np.random.default_rng(3)
    n, m = 90, 60
    plain = correlated(n, m)
    prefix = folder / "h"
    variants = make_variants(m)
    variants.loc[::7, "alt"] = "C,G"
    with PgenWriter(
        f"{prefix}.pgen".encode(),
        n,
        variant_ct=m,
        nonref_flags=False,
        allele_ct_limit=3,
        dosage_present=True,
    ) as writer:
        for j in range(m):
            if j % 7 == 0:
                codes = rng.integers(0, 3, 2 * n).astype(np.int32)
                writer.append_alleles(codes, allele_ct=3)
            elif j % 5 == 0:
                writer.append_dosages(rng.uniform(0, 2, n).astype(np.float32))
            else:
                writer.append_biallelic(np.where(plain[:, j] < 0, -9, plain[:, j]).astype(np.int8))
    write_tables(prefix, variants, n)
    return prefix


def test_cut_off(tmp_path: Path) -> None:
    prefix = hostile(tmp_path)
    pgen = Path(f"{prefix}.pgen")
    data = pgen.read_bytes()
    for end in np.linspace(1, len(data) - 1, 20).astype(int):
        pgen.write_bytes(data[:end])
        with pytest.raises(GenotypeFileError, match=r"h\.pgen: "):
            Plink2Source(prefix)
    pgen.write_bytes(data + b"\0")
    with pytest.raises(GenotypeFileError, match=r"bytes, but its records end at"):
        Plink2Source(prefix)


def test_flipped_bits(tmp_path: Path) -> None:
    """There is no checksum to tell: the same shape, or refused in a line; never a crash or hang."""
    prefix = hostile(tmp_path)
    pgen = Path(f"{prefix}.pgen")
    data = pgen.read_bytes()
    rows = read(Plink2Source(prefix), Selection(SiteRule(split=True)))[1]
    rng = np.random.default_rng(0)
    n_refused = 0
    for place in np.linspace(0, len(data) - 1, 50).astype(int):
        pgen.write_bytes(flipped(data, int(place), int(rng.integers(8))))
        try:
            source = GuardedSource(Plink2Source, prefix, patience_s=20)
            found, found_rows = read(source, Selection(SiteRule(split=True)))
        except GenotypeFileError as fault:
            assert str(fault).startswith(str(tmp_path))  # noqa: PT017
            assert "\n" not in str(fault)  # noqa: PT017
            n_refused += 1
        else:
            assert found_rows == rows
            assert found.shape == (90, len(rows))
            assert set(np.unique(found)) <= {-1, 0, 1, 2}
    assert n_refused >= 5


# Beside plink2.


def exported(prefix: Path, *options: str) -> np.ndarray:
    """(n_samples, n_variants) copies of ALT, of biallelic variants, by `plink2 --export A`."""
    out = f"{prefix}_exported"
    plink2("--pfile", prefix, *options, "--export", "A", "--out", out)
    header, *lines = Path(f"{out}.raw").read_text().splitlines()
    counted = [name.rsplit("_", 1)[1] for name in header.split("\t")[6:]]
    alt = pd.read_csv(f"{prefix}.pvar", sep="\t", comment="#", header=None)[4]
    cells = np.array([line.split("\t")[6:] for line in lines])
    table = np.where(cells == "NA", "nan", cells).astype(float)
    dosage = np.where(np.array(counted) == alt.to_numpy(), table, 2 - table)
    return np.where(np.isnan(dosage), MISSING, dosage).astype(np.int8)


@needs_plink2
@pytest.mark.parametrize("zst", [False, True])
def test_bundled_data_beside_plink2(tmp_path: Path, zst: bool) -> None:
    x = tmp_path / "x"
    plink2(
        *("--vcf", DATA / "1kg_phase3_24k.vcf.gz", "--thin-count", 1500, "--seed", 1),
        *("--thin-indiv-count", 201, "--make-pgen", "--out", x),
    )
    expected = exported(x)
    if zst:
        plink2("--pfile", x, "--make-pgen", "vzs", "psam-cols=fid", "--out", tmp_path / "z")
        x = tmp_path / "z"
    source = GuardedSource(Plink2Source, x)
    np.testing.assert_array_equal(read(source)[0], expected)
    assert source.family_id == (("0",) * 201 if zst else None)


VCF = """##fileformat=VCFv4.2
##contig=<ID=1>
##FORMAT=<ID=GT,Number=1,Type=String,Description="G">
##FORMAT=<ID=DS,Number=1,Type=Float,Description="D">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS1\tS2\tS3
"""


@needs_plink2
def test_dosages_beside_plink2(tmp_path: Path) -> None:
    x, hard = tmp_path / "x", tmp_path / "hard"
    records = [
        "1\t2\tb\tA\tC\t.\t.\t.\tGT:DS\t0|1:1.2\t./.:0.4\t1/1:1.95\n",
        "1\t3\tc\tA\tC\t.\t.\t.\tDS\t1.02\t0.4\t1.95\n",
    ]
    Path(f"{x}.vcf").write_text(VCF + "".join(records))
    plink2("--vcf", f"{x}.vcf", "dosage=DS", "--make-pgen", "--out", x)
    plink2("--pfile", x, "--make-pgen", "erase-dosage", "--out", hard)
    source = Plink2Source(x)
    assert source.format == "PLINK 2, its dosages as hard-called by plink2"
    np.testing.assert_array_equal(read(source)[0], exported(hard))
    assert Plink2Source(hard).format == "PLINK 2"


@needs_plink2
def test_multiallelic_beside_plink2(tmp_path: Path) -> None:
    """Phased, half called, haploid and with an ALT that nobody has; a .pvar with INFO."""
    x = tmp_path / "x"
    records = [
        "1\t1\ta\tA\tC,G\t9\tPASS\tDP=1\tGT\t0|1\t1|2\t2|2\n",
        "1\t2\tb\tA\tC,G,T\t9\tPASS\tDP=1\tGT\t3/3\t./.\t0/3\n",
        "1\t3\tc\tA\tC\t9\tPASS\tDP=1\tGT\t1\t0/0\t1|0\n",
        "1\t4\td\tA\t.\t9\tPASS\tDP=1\tGT\t0/0\t0/0\t0/0\n",
    ]
    Path(f"{x}.vcf").write_text(VCF + "".join(records))
    plink2("--vcf", f"{x}.vcf", "--make-pgen", "--out", x)
    found, rows = read(Plink2Source(x), Selection(SiteRule(split=True)))
    assert [row[2] + row[4] for row in rows] == ["aC", "aG", "bC", "bG", "bT", "cC"]
    assert found.tolist() == [[1, 0, 0, 0, 2, 2], [1, 1, -1, -1, -1, 0], [0, 2, 0, 0, 1, 1]]


@needs_plink2
def test_tables_as_plink2_reads_them(tmp_path: Path) -> None:
    """A .pvar without a header is a .bim of six or of five columns to plink2 as well."""
    prefix = small(tmp_path)
    pvar = Path(f"{prefix}.pvar")
    bare = [line.split("\t") for line in pvar.read_text().splitlines()[2:]]
    for line in ("{0} {2} 0 {1} {4} {3}\n", "{0} {2} {1} {4} {3}\n"):
        pvar.write_text("".join(line.format(*row) for row in bare))
        plink2("--pfile", prefix, "--make-just-pvar", "--out", f"{prefix}2")
        theirs = [
            line.split("\t")[:5]
            for line in Path(f"{prefix}2.pvar").read_text().splitlines()
            if not line.startswith("#")
        ]
        ours = [[c, str(p), i, r, a] for c, p, i, r, a in read(Plink2Source(prefix))[1]]
        assert ours == theirs == bare
