"""VCF Zarr stores: written with zarr in both formats, and by bio2zarr; damaged in every way."""

from __future__ import annotations

import builtins
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pysam
import pytest
from conftest import Cut
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ancestry_ddvi.errors import GenotypeFileError
from ancestry_ddvi.loaders.guard import GuardedSource
from ancestry_ddvi.loaders.sites import MULTIALLELIC, NOT_AUTOSOMAL, SiteRule
from ancestry_ddvi.loaders.source import HAPLOID, NOT_DIPLOID, CallRule, Selection, Source
from ancestry_ddvi.loaders.vcf_zarr import VcfZarrSource, is_vcf_zarr

zarr: Any = pytest.importorskip("zarr", minversion="3", reason="zarr is not installed")

FORMATS = (2, 3)


def write_store(
    path: Path,
    calls: np.ndarray,
    zarr_format: int = 2,
    chunk: int = 3,
    alleles: Sequence[Sequence[str]] | None = None,
    contig: Sequence[int] | None = None,
    without: Sequence[str] = (),
    **changes: np.ndarray,
) -> None:
    """A store of (variants, samples, ploidy) allele indices, as bio2zarr lays it out."""
    m, n, _ = calls.shape
    alleles = alleles or [["A", "C"]] * m
    width = max(map(len, alleles))
    fields: dict[str, np.ndarray] = {
        "call_genotype": calls.astype(np.int8),
        "variant_contig": np.array(contig or [0] * m, dtype=np.int8),
        "variant_position": np.arange(1, m + 1, dtype=np.int32) * 1000,
        "variant_allele": np.array([[*a, *[""] * (width - len(a))] for a in alleles], dtype=object),
        "variant_id": np.array([f"rs{i}" if i % 2 else "." for i in range(m)], dtype=object),
        "variant_id_mask": np.arange(m) % 2 == 0,
        "contig_id": np.array(["1", "chrX", "chr2"], dtype=object),
        "sample_id": np.array([f"S{i}" for i in range(n)], dtype=object),
    }
    with warnings.catch_warnings(), zarr.config.set({"array.write_empty_chunks": True}):
        warnings.simplefilter("ignore")  # strings are not in the specification of format 3
        group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
        group.attrs["vcf_zarr_version"] = "0.4"
        for name, values in (fields | changes).items():
            if name in without:
                continue
            chunks = [min(chunk, values.shape[0]), *values.shape[1:]]
            if name == "call_genotype":
                chunks[1] = max(1, min(chunk, n))
            dtype = str if values.dtype == object else values.dtype
            array = group.create_array(name, shape=values.shape, dtype=dtype, chunks=chunks)
            array[...] = values.astype("T") if dtype is str else values


def read(source: Source, selection: Selection | None = None) -> tuple[np.ndarray, list]:
    """(n_samples, n_variants) dosages, and the rows."""
    dosage, rows = [], []
    for block in source.blocks(selection or Selection(), lambda fraction: None):
        assert len(block.rows) == len(block.dosage) > 0
        dosage.append(block.dosage)
        rows += block.rows
    none = np.empty((0, len(source.sample_id)), dtype=np.int8)
    return np.concatenate(dosage or [none]).T, rows


def some_calls(m: int = 8, n: int = 7, seed: int = 0) -> np.ndarray:
    """Diploid calls of a biallelic store."""
    calls = np.random.default_rng(seed).integers(0, 2, (m, n, 2))
    calls[np.random.default_rng(seed + 1).random((m, n)) < 0.1] = -1
    return calls


def dosage_of_diploid(calls: np.ndarray) -> np.ndarray:
    return np.where(calls.min(axis=2) < 0, -1, (calls == 1).sum(axis=2)).T


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_both_formats(tmp_path: Path, zarr_format: int) -> None:
    path, calls = tmp_path / "x.vcz", some_calls()
    write_store(path, calls, zarr_format, contig=[0, 0, 0, 1, 2, 2, 2, 2])
    assert is_vcf_zarr(path)
    source = VcfZarrSource(path)
    assert (source.format, source.family_id) == ("VCF Zarr 0.4", None)
    assert source.sample_id == tuple(f"S{i}" for i in range(7))
    with pytest.raises(RuntimeError, match="once it has been read"):
        source.sha256()
    selection, fractions = Selection(), []
    blocks = list(source.blocks(selection, fractions.append))
    use = [0, 1, 2, 4, 5, 6, 7]
    found = np.concatenate([block.dosage for block in blocks]).T
    np.testing.assert_array_equal(found, dosage_of_diploid(calls)[:, use])
    assert found.dtype == np.int8
    rows = [row for block in blocks for row in block.rows]
    assert rows[:2] == [("1", 1000, ".", "A", "C"), ("1", 2000, "rs1", "A", "C")]
    assert rows[3] == ("chr2", 5000, ".", "A", "C")
    assert selection.sites.left_out == {NOT_AUTOSOMAL: 1}
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    again = VcfZarrSource(path)
    np.testing.assert_array_equal(
        read(again, Selection(samples=np.array([6, 2])))[0], found[[6, 2]]
    )
    assert again.sha256() == source.sha256()
    write_store(tmp_path / "y", some_calls(seed=9), zarr_format)
    other = VcfZarrSource(tmp_path / "y")
    read(other)
    assert other.sha256() != source.sha256()


def test_guarded(tmp_path: Path) -> None:
    path, calls = tmp_path / "x.vcz", some_calls()
    write_store(path, calls)
    source = GuardedSource(VcfZarrSource, path)
    np.testing.assert_array_equal(read(source)[0], dosage_of_diploid(calls))
    plain = VcfZarrSource(path)
    read(plain)
    assert source.sha256() == plain.sha256()


def test_in_a_zip(tmp_path: Path) -> None:
    path, calls = tmp_path / "x.vcz", some_calls()
    write_store(path, calls)
    # As vcf2zarr writes it: an array whose name goes on where ours ends.
    group = zarr.open_group(str(path), mode="a")
    group.create_array("call_genotype_mask", data=calls < 0, chunks=(1, *calls.shape[1:]))
    shutil.make_archive(str(path), "zip", path)
    packed = Path(f"{path}.zip")
    assert is_vcf_zarr(packed)
    source = VcfZarrSource(packed)
    np.testing.assert_array_equal(read(source)[0], dosage_of_diploid(calls))
    data = packed.read_bytes()
    packed.write_bytes(data[: len(data) // 2])
    assert not is_vcf_zarr(packed)
    with pytest.raises(GenotypeFileError, match=r"x\.vcz\.zip: cannot be opened"):
        VcfZarrSource(packed)


def test_is_vcf_zarr(tmp_path: Path) -> None:
    assert not is_vcf_zarr(tmp_path)
    assert not is_vcf_zarr(tmp_path / "absent")
    assert not is_vcf_zarr("\0")
    for zarr_format in FORMATS:
        path = tmp_path / f"other{zarr_format}"
        group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
        assert not is_vcf_zarr(path)
        group.attrs["vcf_zarr_version"] = "0.4"
        assert is_vcf_zarr(path)
        with pytest.raises(GenotypeFileError, match="has no array call_genotype"):
            VcfZarrSource(path)
        del group.attrs["vcf_zarr_version"]
        assert not is_vcf_zarr(path)
        group.create_array("call_genotype", shape=(1, 1, 2), dtype="i1")
        assert is_vcf_zarr(path)
    (tmp_path / "other2" / ".zattrs").write_text("[")
    assert is_vcf_zarr(tmp_path / "other2")  # by its array; that it is damaged is said on opening
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a", "b")
    assert not is_vcf_zarr(tmp_path / "other.zip")
    (tmp_path / "text").write_text("a")
    assert not is_vcf_zarr(tmp_path / "text")


@settings(deadline=None, max_examples=30)
@given(
    calls=st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4)).flatmap(
        lambda shape: arrays(np.int8, shape, elements=st.integers(-2, 2))
    ),
    zarr_format=st.sampled_from(FORMATS),
    rule=st.sampled_from(["missing", "reference", "haploid"]),
)
def test_any_calls(calls: np.ndarray, zarr_format: int, rule: str) -> None:
    """Against the rule in plain Python, one call at a time."""
    expected, names = [], []
    for record in calls.tolist():
        known = [[a for a in call if a >= 0] for call in record]
        if any(k and any(a != -2 for a in call[2:]) for k, call in zip(known, record, strict=True)):
            continue
        for alt in (1, 2):
            expected.append([one_dosage([*call, -2][:2], alt, rule) for call in record])
            names.append("CG"[alt - 1])
    with TemporaryDirectory() as folder:
        write_store(Path(folder) / "x", calls, zarr_format, alleles=[["A", "C", "G"]] * len(calls))
        selection = Selection(SiteRule(split=True), CallRule(rule))
        found, rows = read(VcfZarrSource(Path(folder) / "x"), selection)
    assert found.T.tolist() == expected
    assert [row[4] for row in rows] == names
    assert selection.sites.left_out.total() == 2 * len(calls) - len(expected)


def one_dosage(call: list[int], alt: int, rule: str) -> int:
    known = [a for a in call if a >= 0]
    if not known:
        return -1
    if -2 in call:
        return 2 * (known[0] == alt)
    if -1 in call:
        return {"missing": -1, "reference": 1, "haploid": 2}[rule] * (
            known[0] == alt or rule == "missing"
        )
    return call.count(alt)


def test_calls_that_are_not_diploid(tmp_path: Path) -> None:
    calls = np.array([[[0, 1, -2], [1, -2, -2]], [[0, 1, 1], [0, 1, -2]], [[-1, 1, -2], [0] * 3]])
    write_store(tmp_path / "x", calls[:2])
    selection = Selection()
    found, rows = read(VcfZarrSource(tmp_path / "x"), selection)
    assert found.tolist() == [[1], [2]]
    assert rows == [("1", 1000, ".", "A", "C")]
    assert selection.sites.left_out == {NOT_DIPLOID: 1}
    assert selection.calls.by_rule == {HAPLOID: 1}
    write_store(tmp_path / "x", calls)
    one = Selection(calls=CallRule("error"), samples=np.array([1]))
    assert read(VcfZarrSource(tmp_path / "x"), one)[0].tolist() == [[2, 1]]
    calls[2, 1] = 0, 1, -2
    write_store(tmp_path / "x", calls)
    with pytest.raises(GenotypeFileError, match=r"variant 3 \(1:3000\): sample S0 has a half call"):
        read(VcfZarrSource(tmp_path / "x"), Selection(calls=CallRule("error")))


def test_multiallelic(tmp_path: Path) -> None:
    calls = np.array([[[0, 1], [1, 2]], [[2, 2], [0, 0]], [[0, 0], [1, 1]]])
    alleles = [["A", "C", "G"], ["A", "c", "g", "T"], ["A", "C"]]
    write_store(tmp_path / "x", calls, alleles=alleles)
    selection = Selection()
    assert read(VcfZarrSource(tmp_path / "x"), selection)[0].tolist() == [[0], [2]]
    assert selection.sites.left_out == {MULTIALLELIC: 2}
    found, rows = read(VcfZarrSource(tmp_path / "x"), Selection(SiteRule(split=True)))
    assert [row[4] for row in rows] == ["C", "G", "C", "G", "T", "C"]
    assert found.tolist() == [[1, 0, 0, 2, 0, 0], [1, 1, 0, 0, 0, 2]]
    for_model = Selection(SiteRule(split=True), CallRule(others_missing=True))
    found, _ = read(VcfZarrSource(tmp_path / "x"), for_model)
    assert found.tolist() == [[1, -1, -1, 2, -1, 0], [-1, -1, 0, 0, 0, 2]]


def test_older_layouts(tmp_path: Path) -> None:
    """Version 0.1: contigs in an attribute; strings of a fixed width; no ids."""
    path, calls = tmp_path / "x", some_calls(4)
    fixed = np.array([["A", "C"]] * 4, dtype="S1")
    write_store(path, calls, without=["contig_id", "variant_id"], variant_allele=fixed)
    with pytest.raises(GenotypeFileError, match="has no array contig_id"):
        VcfZarrSource(path)
    zarr.open_group(path).attrs["contigs"] = ["chr7"]
    found, rows = read(VcfZarrSource(path))
    np.testing.assert_array_equal(found, dosage_of_diploid(calls))
    assert rows[1] == ("chr7", 2000, ".", "A", "C")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": ["call_genotype"]}, "has no array call_genotype; write the store anew"),
        ({"without": ["sample_id"]}, "has no array sample_id"),
        ({"without": ["variant_allele"]}, "has no array variant_allele"),
        ({"sample_id": np.array(["a", "b"], dtype=object)}, "sample_id has 2 entries, but call_ge"),
        ({"sample_id": np.array(list("abcdefa"), dtype=object)}, "sample id 'a' is that of number"),
        ({"sample_id": np.array(["", *"bcdefg"], dtype=object)}, "sample id number 1 is empty"),
        ({"sample_id": np.arange(7)}, "sample_id holds 0, which is no string"),
        ({"variant_position": np.arange(7)}, "variant_position has 7 entries, but call_genotype"),
        ({"variant_position": np.arange(8) / 2}, "variant_position is of type float64"),
        ({"variant_allele": np.array(["A"] * 8, dtype=object)}, "variant_allele has 1 dimensions"),
        ({"variant_contig": np.array([0] * 7 + [3])}, "variant 8 is on contig number 3, but there"),
        ({"variant_contig": np.array([0] * 7 + [-1])}, "variant 8 is on contig number -1"),
        ({"call_genotype": np.zeros((8, 7))}, "call_genotype has 2 dimensions"),
        (
            {"call_genotype": np.full((8, 7, 2), 2)},
            "variant 1: sample S0 has the allele 2, but the",
        ),
        ({"call_genotype": np.full((8, 7, 2), -3)}, "sample S0 has the allele -3, but the record"),
        ({"call_genotype": np.zeros((8, 7, 2), dtype="f4")}, "call_genotype is of type float32"),
    ],
)
@pytest.mark.parametrize("zarr_format", FORMATS)
def test_refused(tmp_path: Path, zarr_format: int, changes: dict[str, Any], message: str) -> None:
    calls = changes.pop("call_genotype", some_calls())
    write_store(tmp_path / "x", some_calls(), zarr_format, **changes)
    if calls.shape != (8, 7, 2) or calls.dtype.kind == "f" or calls.min() < -1 or calls.min() > 1:
        group = zarr.open_group(tmp_path / "x", mode="r+")
        group.create_array("call_genotype", data=calls, overwrite=True)
    changes["call_genotype"] = calls
    with pytest.raises(GenotypeFileError, match=message) as caught:
        read(VcfZarrSource(tmp_path / "x"))
    assert "\n" not in str(caught.value)


def absent(chunk: Path) -> None:
    chunk.unlink()


def halved(chunk: Path) -> None:
    data = chunk.read_bytes()
    chunk.write_bytes(data[: len(data) // 2])


def emptied(chunk: Path) -> None:
    chunk.write_bytes(b"")


def noise(chunk: Path) -> None:
    chunk.write_bytes(np.random.default_rng(0).bytes(chunk.stat().st_size))


def a_pipe(chunk: Path) -> None:
    chunk.unlink()
    os.mkfifo(chunk)


def a_loop(chunk: Path) -> None:
    chunk.unlink()
    chunk.symlink_to(chunk)


@pytest.mark.parametrize("harm", [absent, halved, emptied, noise, a_pipe, a_loop])
@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize("name", ["call_genotype", "variant_position", "variant_allele"])
def test_damaged_chunk(
    tmp_path: Path, harm: Callable[[Path], None], zarr_format: int, name: str
) -> None:
    write_store(tmp_path / "x", some_calls(), zarr_format)
    chunks = [
        path
        for path in sorted((tmp_path / "x" / name).rglob("*"))
        if path.is_file() and path.name not in (".zarray", ".zattrs", "zarr.json")
    ]
    harm(chunks[-1])
    with pytest.raises(GenotypeFileError, match=r"/x: ") as caught:
        read(GuardedSource(VcfZarrSource, tmp_path / "x", patience_s=20))
    assert "\n" not in str(caught.value)
    if harm is absent:
        assert f"chunks of {name} are absent" in str(caught.value)


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_chunk_cut_anywhere(tmp_path: Path, zarr_format: int) -> None:
    """The decoder of blosc, which zarr takes for format 2, reads on behind the end of a chunk."""
    write_store(tmp_path / "x", some_calls(), zarr_format)
    chunk = tmp_path / "x" / "call_genotype" / ("2.2.0" if zarr_format == 2 else "c/2/2/0")
    data = chunk.read_bytes()
    for end in range(len(data)):
        chunk.write_bytes(data[:end])
        with pytest.raises(GenotypeFileError, match="damaged"):
            read(VcfZarrSource(tmp_path / "x"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"zarr_format": 9}', "null"])
@pytest.mark.parametrize("zarr_format", FORMATS)
@pytest.mark.parametrize("where", ["", "call_genotype", "sample_id"])
def test_damaged_metadata(tmp_path: Path, text: str, zarr_format: int, where: str) -> None:
    write_store(tmp_path / "x", some_calls(), zarr_format)
    file = {(2, True): ".zgroup", (2, False): ".zarray"}.get((zarr_format, not where), "zarr.json")
    (tmp_path / "x" / where / file).write_text(text)
    with pytest.raises(GenotypeFileError, match=r"/x: ") as caught:
        read(VcfZarrSource(tmp_path / "x"))
    assert "\n" not in str(caught.value)


def test_flipped_bits(tmp_path: Path) -> None:
    """There is no checksum to tell: the same shape, or refused in a line; never a crash or hang."""
    path = tmp_path / "x"
    write_store(path, some_calls(30, 40), chunk=40)
    files = [f for f in sorted(path.rglob("*")) if f.is_file()]
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(25):
        file = files[int(rng.integers(len(files)))]
        data = bytearray(whole := file.read_bytes())
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        try:
            found, rows = read(GuardedSource(VcfZarrSource, path, patience_s=30))
        except GenotypeFileError as fault:
            assert "\n" not in str(fault)  # noqa: PT017
            n_refused += 1
        else:
            assert found.shape == (40, len(rows))
            assert set(np.unique(found)) <= {-1, 0, 1, 2}
        file.write_bytes(whole)
    assert n_refused >= 3


def test_without_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path / "x", some_calls())
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "zarr":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(GenotypeFileError, match=r'pip install "ancestry-ddvi\[zarr\]"'):
        VcfZarrSource(tmp_path / "x")


@pytest.mark.parametrize("zarr_format", FORMATS)
def test_bio2zarr(tmp_path: Path, cut: Cut, zarr_format: int) -> None:
    """What bio2zarr makes of a VCF is what pysam reads in it."""
    pytest.importorskip("bio2zarr", reason="bio2zarr is not installed")
    with pysam.VariantFile(str(cut.vcf)) as vcf:
        header = str(vcf.header)
        records = [str(record) for record, _ in zip(vcf, range(700), strict=False)]
    plain = tmp_path / "x.vcf"
    plain.write_text(header + "".join(records))
    pysam.tabix_index(str(plain), preset="vcf")
    path = tmp_path / "x.vcz"
    convert = "import sys; from bio2zarr.cli import vcf2zarr_main; vcf2zarr_main()"
    options = ["--zarr-format", str(zarr_format), "-l", "100", "-w", "50", "-Q", "-p", "0"]
    process = subprocess.run(
        [sys.executable, "-c", convert, "convert", f"{plain}.gz", str(path), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    calls = [[call.split(":")[0] for call in r.rstrip().split("\t")[9:]] for r in records]
    code = {"0": 0, "1": 1, ".": -1}
    table = np.array([[[code[g[0]], code[g[2]]] for g in record] for record in calls])
    assert is_vcf_zarr(path)
    found, rows = read(VcfZarrSource(path))
    np.testing.assert_array_equal(found, dosage_of_diploid(table))
    fields = [r.split("\t", 5)[:5] for r in records]
    assert rows == [(c, int(p), i, r, a) for c, p, i, r, a in fields]
    metadata = json.loads((path / (".zattrs" if zarr_format == 2 else "zarr.json")).read_text())
    assert "vcf_zarr_version" in metadata.get("attributes", metadata)
