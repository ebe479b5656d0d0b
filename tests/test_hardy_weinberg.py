"""The exact test of Hardy-Weinberg proportions: against enumeration, and the real plink2."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from fractions import Fraction
from itertools import islice
from math import factorial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ancestry_ddvi.preprocessing.hardy_weinberg import hardy_weinberg_p

VCF = Path(__file__).parents[1] / "data" / "1kg_phase3_24k.vcf.gz"
N_RECORDS = 2000

Triple = tuple[int, int, int]


def enumerated(hom_ref: int, het: int, hom_alt: int) -> float:
    """The sum over every number of heterozygotes, in whole numbers."""
    n, a = hom_ref + het + hom_alt, 2 * hom_alt + het
    weight = {}
    for h in range(a % 2, min(a, 2 * n - a) + 1, 2):
        alt = (a - h) // 2
        ways = factorial(n) // (factorial(alt) * factorial(h) * factorial(n - alt - h))
        weight[h] = ways * 2**h
    likely = sum(w for w in weight.values() if w <= weight[het])
    return float(Fraction(likely, sum(weight.values())))


def p_of(*triples: Triple) -> np.ndarray:
    return hardy_weinberg_p(*np.array(triples).T)


def test_published_example() -> None:
    """100 people with 21 copies of the rarer allele, the example of Wigginton et al. (2005)."""
    n_het = np.arange(5, 22, 2)
    # P of 5 to 21 heterozygotes; only 19 are more probable than 21, so that theirs are one tail.
    probability = [
        0,
        0.000001,
        0.000047,
        0.000870,
        0.009375,
        0.059283,
        0.214465,
        0.406355,
        0.309404,
    ]
    expected = [*np.cumsum(probability[:7]), 1, 1 - probability[7]]
    p = hardy_weinberg_p(100 - n_het - (21 - n_het) // 2, n_het, (21 - n_het) // 2)
    np.testing.assert_allclose(p, expected, atol=3e-6)


def test_every_triple_of_up_to_12() -> None:
    triples = [(x, y, z) for x in range(13) for y in range(13 - x) for z in range(13 - x - y)]
    assert len(triples) == 455
    expected = [enumerated(*triple) for triple in triples]
    np.testing.assert_allclose(p_of(*triples), expected, rtol=1e-12)


@given(st.tuples(*[st.integers(0, 400)] * 3))
def test_alone_as_enumerated(triple: Triple) -> None:
    """One at a time: no variant's p may hang on the variants beside it."""
    np.testing.assert_allclose(p_of(triple), enumerated(*triple), rtol=1e-9)


@pytest.mark.parametrize("triple", [(0, 4, 2), (2, 4, 0), (1, 2, 3), (3, 2, 1)])
def test_two_counts_that_are_equally_probable(triple: Triple) -> None:
    """Both 2 and 4 heterozygotes are the mode of 6 people with 4 copies."""
    assert p_of(triple) == pytest.approx(1)


def test_nobody_called_and_one_allele() -> None:
    np.testing.assert_array_equal(p_of((0, 0, 0), (9, 0, 0), (0, 0, 9), (1, 0, 0), (0, 1, 0)), 1)
    assert hardy_weinberg_p(*np.zeros((3, 0), dtype=np.int64)).shape == (0,)


def test_half_a_million_people() -> None:
    """Neither overflow nor nan; near the normal approximation where that is good."""
    expected, spread = 0.5 * 500_000, 0.5 * np.sqrt(500_000)  # two alleles of equal frequency
    z = np.array([0.0, 1.0, 2.0, 3.0])
    n_het = (2 * np.round((expected + z * spread) / 2)).astype(np.int64)
    n_hom = (500_000 - n_het) // 2
    p = hardy_weinberg_p(n_hom, n_het, n_hom)
    np.testing.assert_allclose(p, [1, 0.3173, 0.0455, 0.0027], rtol=0.02)
    assert p_of((250_000, 0, 250_000), (0, 500_000, 0)).tolist() == [0, 0]
    assert p_of((499_999, 0, 1)) == pytest.approx(1 / 999_999)


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_as_plink2(tmp_path: Path) -> None:
    """2,000 real variants of 2,504 people; plink2 writes six digits, so that half of the last is
    all that may differ."""
    with gzip.open(VCF, "rt") as file:
        lines = list(islice(file, N_RECORDS + 100))
    n_header = sum(line.startswith("#") for line in lines)
    (tmp_path / "x.vcf").write_text("".join(lines[: n_header + N_RECORDS]))
    command = ["plink2", "--threads", "1", "--vcf", "x.vcf", "--hardy", "--out", "x"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    header, *rows = (tmp_path / "x.hardy").read_text().splitlines()
    at = [header.split("\t").index(name) for name in ("HOM_A1_CT", "HET_A1_CT", "TWO_AX_CT", "P")]
    table = [[row.split("\t")[i] for i in at] for row in rows]
    assert len(table) == N_RECORDS
    p = hardy_weinberg_p(*np.array([row[:3] for row in table], dtype=np.int64).T)
    theirs = np.array([float(row[3]) for row in table])
    assert theirs.min() < 1e-50
    assert theirs.max() == 1
    unit = 10.0 ** (np.floor(np.log10(theirs)) - 5)
    assert (np.abs(p - theirs) <= 0.5 * unit + 1e-6 * theirs).all()
    assert (np.abs(p - theirs) > 0).any()
