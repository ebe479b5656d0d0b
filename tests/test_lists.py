"""Lists of samples and variants: every form of them, against sets, and every bad line."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ancestry_ddvi.errors import OptionError
from ancestry_ddvi.loaders.lists import SampleList, VariantList, read_samples, read_variants


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def samples(folder: Path, text: str | bytes) -> SampleList:
    return read_samples(write(folder, text))


def variants(folder: Path, text: str | bytes) -> VariantList:
    return read_variants(write(folder, text))


# Samples.

IDS = ("A", "B", "C", "D")
FAMILIES = ("F1", "F1", "0", "")


def selected(
    names: SampleList, family_id: tuple[str, ...] | None = None, sample_id: tuple[str, ...] = IDS
) -> str:
    mask = names.select(sample_id, family_id)
    assert mask.dtype == bool
    assert mask.shape == (len(sample_id),)
    return "".join(np.array(sample_id)[mask])


@pytest.mark.parametrize(
    "text",
    [
        "C\nA\n",
        "C\nA",
        "C\r\nA\r\n",
        "\ufeffC\nA\n",
        "\n  C\t\n\n A \n\n",
        "C\nA\nC\nA\n",
        "# chosen by hand\nC\n# and\nA\n",
        "#IID\nC\nA\n",
        "#iid\nC\nA\n",
        "#IID\tSEX\tPopulation\nC\t1\tGBR\nA\t2\tYRI\n",
        gzip.compress(b"C\nA\n"),
    ],
)
@pytest.mark.parametrize("family_id", [None, FAMILIES])
def test_sample_ids(tmp_path: Path, text: str | bytes, family_id: tuple[str, ...] | None) -> None:
    names = samples(tmp_path, text)
    assert len(names) == 2
    assert names.path == str(tmp_path / "list.txt")
    assert selected(names, family_id) == "AC"
    assert names.absent(IDS, family_id) == ()


@pytest.mark.parametrize("header", ["", "#FID IID\n", "#FID\tIID\tSEX\n", "# mine\n#FID IID\n"])
def test_family_and_sample_ids(tmp_path: Path, header: str) -> None:
    names = samples(tmp_path, header + "F1 A\nF2\tB\n0 C\n0 D 9\nF1 A\n")
    assert len(names) == 4
    # Both must match; family 0 is none. Without family ids in the file the sample id is all.
    assert selected(names, FAMILIES) == "ACD"
    assert names.absent(IDS, FAMILIES) == ("F2 B",)
    assert selected(names) == "ABCD"
    assert names.absent(IDS) == ()
    assert names.absent(("A", "C", "D")) == ("B",)


def test_family_0_is_not_any_family(tmp_path: Path) -> None:
    names = samples(tmp_path, "0 A\nF1 C\n")
    assert selected(names, FAMILIES) == ""
    assert names.absent(IDS, FAMILIES) == ("0 A", "F1 C")


def test_a_fam_is_a_list(tmp_path: Path) -> None:
    assert selected(samples(tmp_path, "F1 A 0 0 1 -9\nF1 B 0 0 2 -9\n"), FAMILIES) == "AB"


def test_ids_that_are_not_there_in_their_order(tmp_path: Path) -> None:
    names = samples(tmp_path, "Z\nA\nY\nZ\nX\n")
    assert names.absent(np.array(IDS)) == ("Z", "Y", "X")
    assert selected(names) == "A"


def test_ids_are_compared_as_they_stand(tmp_path: Path) -> None:
    names = samples(tmp_path, "a\n01\n")
    assert selected(names, None, ("A", "1", "01")) == "01"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("\n\n", "names no sample; give one sample id a line"),
        ("#IID\n", "names no sample"),
        ("F1 A\nB\n", "line 2: 'B' stands alone"),
        ("#FID IID\nA\n", "line 2: 'A' stands alone"),
        ("A\nF1 B\n", "line 2: 'F1 B' has 2 columns, where the lines before have one"),
        (b"A\nCh\xe9\n", "line 2: b'\\xe9' is not UTF-8; save the list as UTF-8 text"),
        ("A\n".encode("utf-16"), "line 1: b'\\xff' is not UTF-8"),
        ("A\rB\r", "line 1 holds a control character"),
        ("A\nB\0\n", "line 2 holds a control character"),
        (gzip.compress(b"A\n" * 99)[:-9], "cut off"),
    ],
)
def test_bad_sample_list(tmp_path: Path, text: str | bytes, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(OptionError) as caught:
        read_samples(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    for read in (read_samples, read_variants):
        with pytest.raises(OptionError, match=r"absent: no such file"):
            read(tmp_path / "absent")
        with pytest.raises(OptionError, match="is a directory"):
            read(tmp_path)


name = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=2)


@given(st.lists(name, min_size=1), st.lists(name, unique=True))
def test_as_sets(named: list[str], sample_id: list[str]) -> None:
    with TemporaryDirectory() as folder:
        names = samples(Path(folder), "\n".join(named))
    assert list(names.select(sample_id)) == [sample in set(named) for sample in sample_id]
    assert set(names.absent(sample_id)) == set(named) - set(sample_id)


# Variants.

SNP = ("chr1", 752566, "rs3094315", "G", ["A"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rs3094315\n", True),
        ("rs1\r\nrs3094315\r\n", True),
        ("\ufeffrs3094315\n", True),
        ("# mine\nrs3094315 G A\n", True),
        ("rs3094315\trest of the line\n", True),
        ("1:752566\n", True),
        ("CHR1:752566\n", True),
        ("NC_000001.11:752566\n", True),
        ("1:752566:G:A\n", True),
        ("1:752566:A:G\n", True),
        ("chr1:752566:g:a\n", True),
        ("1:752566:G:T,A\n", True),
        (gzip.compress(b"1:752566\n"), True),
        ("rs309431\n", False),
        ("RS3094315\n", False),
        ("2:752566\n", False),
        ("1:752567\n", False),
        ("1:752566:G:T\n", False),
        ("1:752566:G\n", False),
        ("1\n", False),
        ("1:" + "9" * 5000, False),
    ],
)
def test_variant(tmp_path: Path, text: str | bytes, expected: bool) -> None:
    names = variants(tmp_path, text)
    assert names.names(*SNP) is expected
    assert pickle.loads(pickle.dumps(names)).names(*SNP) is expected


def test_an_id_that_looks_like_a_place_is_an_id_too(tmp_path: Path) -> None:
    """Ids often keep the position in an older build."""
    names = variants(tmp_path, "1:752566:G:A\n")
    assert names.names("1", 817186, "1:752566:G:A", "G", ["A"])
    assert not names.names("1", 817186, ".", "G", ["A"])


def test_any_of_several_alternatives(tmp_path: Path) -> None:
    names = variants(tmp_path, "1:5:A:C\n")
    assert names.names("1", 5, ".", "A", ("G", "C"))
    assert not names.names("1", 5, ".", "A", ("G", "T"))
    assert not names.names("1", 5, ".", "A", ())


def test_a_place_without_alleles_takes_them_all(tmp_path: Path) -> None:
    names = variants(tmp_path, "1:5:A:C\n1:5\nX:7\n")
    assert len(names) == 3
    assert names.names("1", 5, ".", "T", ["G"])
    assert names.names("chrX", 7, ".", "T", ["G"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("# none\n", "names no variant; give one id, or contig:position, a line"),
        ("rs1\n.\n", "line 2: '.' is the id of every variant without one"),
        ("##fileformat=VCFv4.2\n", "line 1: is a table of variants, not a list"),
        ("#CHROM\tPOS\tID\n1\t5\trs1\n", "line 1: is a table of variants, not a list"),
        (b"rs1\n\xff\n", "line 2: b'\\xff' is not UTF-8"),
        ("rs1\rrs2\r", "line 1 holds a control character"),
    ],
)
def test_bad_variant_list(tmp_path: Path, text: str | bytes, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(OptionError) as caught:
        read_variants(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)


site = st.tuples(st.sampled_from("12"), st.integers(1, 4), *[st.sampled_from("ACG")] * 2)


@given(st.lists(site, min_size=1, max_size=8), st.booleans())
def test_as_sets_of_sites(sites: list[tuple[str, int, str, str]], with_alleles: bool) -> None:
    lines = [":".join(map(str, s if with_alleles else s[:2])) for s in sites]
    with TemporaryDirectory() as folder:
        names = variants(Path(folder), "\n".join(lines))
    for contig in "123":
        for position in range(6):
            for ref, alt in ("AC", "CA", "AG", "GC", "AA"):
                if with_alleles:
                    expected = any(
                        s[:2] == (contig, position) and sorted(s[2:]) == sorted((ref, alt))
                        for s in sites
                    )
                else:
                    expected = any(s[:2] == (contig, position) for s in sites)
                assert names.names(f"chr{contig}", position, ".", ref, [alt]) is expected
