"""The command `convert`, and what the reading options do to what it writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import command, environment, run_cli
from helpers import make_variants, write_vcf

from ancestry_ddvi.loaders import read_genotypes

RNG = np.random.default_rng(7)
DOSAGE = RNG.integers(-1, 3, size=(7, 60)).astype(np.int8)
IDS = [f"S{i}" for i in range(7)]
BUNDLED = Path(__file__).parent.parent / "data" / "1kg_phase3_24k.vcf.gz"


@pytest.fixture
def vcf(tmp_path: Path) -> Path:
    return write_vcf(tmp_path / "in.vcf.gz", DOSAGE, IDS, compress="bgzip")


def convert(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_cli("convert", *args, cwd=cwd)


@pytest.mark.parametrize(
    "name", ["out.vcf", "out.vcf.gz", "out.bcf", "out.bed", "out.pgen", "out.vcz", "out.npz"]
)
def test_every_format_comes_back(vcf: Path, tmp_path: Path, name: str) -> None:
    process = convert(vcf, name, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    written = [tmp_path / line for line in process.stdout.splitlines()]
    assert all(path.exists() for path in written)
    assert read_genotypes(tmp_path / name).content_hash() == read_genotypes(vcf).content_hash()


def test_options_choose(vcf: Path, tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("S4\nS1\nS6\nnobody\n")
    (tmp_path / "variants").write_text("rs3\n1:5000\n2:1000:A:C\n")
    options = ["--keep", "keep", "--extract", "variants"]
    process = convert(vcf, "out.npz", *options, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "not in" in process.stderr
    assert "nobody" in process.stderr
    read = read_genotypes(tmp_path / "out.npz")
    assert read.sample_id.tolist() == ["S1", "S4", "S6"]
    index = [3, 4, 30]
    assert read.variants["id"].tolist() == [f"rs{i}" for i in index]
    np.testing.assert_array_equal(read.dosage, DOSAGE[np.ix_([1, 4, 6], index)])


def test_filters_are_those_of_the_samples_kept(tmp_path: Path) -> None:
    # S0 is called nowhere: --mind takes it first, and so --geno does not take every variant.
    dosage = np.abs(DOSAGE)
    dosage[0] = -1
    dosage[1:, 5] = [0, 0, 0, 0, 0, 1]
    dosage[1:, 6] = [-1, 0, 1, 2, 0, 1]
    dosage[1:, 7] = 1
    vcf = write_vcf(tmp_path / "in.vcf", dosage, IDS)
    options = ["--mind", "0.5", "--geno", "0.1", "--maf", "0.1", "--hwe", "0.1"]
    process = convert(vcf, "out.npz", *options, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "--mind 0.5 leaves out 1 sample (S0)" in process.stderr
    read = read_genotypes(tmp_path / "out.npz")
    assert read.sample_id.tolist() == IDS[1:]
    kept = {int(name[2:]) for name in read.variants["id"]}
    assert not kept & {5, 6, 7}
    assert len(kept) > 20


def test_several_files_and_standard_input(tmp_path: Path) -> None:
    table = make_variants(60)
    halves = [table["contig"] == contig for contig in ("1", "2")]
    # The second file has its samples in another order.
    order = RNG.permutation(7)
    for number, half in enumerate(halves, start=1):
        rows = order if number == 2 else np.arange(7)
        write_vcf(
            tmp_path / f"chr{number}.vcf",
            DOSAGE[rows][:, half.to_numpy()],
            [IDS[i] for i in rows],
            table[half],
        )
    process = convert("chr1.vcf", "chr2.vcf", "out.bed", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "another order" in process.stderr
    np.testing.assert_array_equal(read_genotypes(tmp_path / "out.bed").dosage, DOSAGE)
    piped = subprocess.run(
        command("convert", "-", "piped.npz"),
        input=(tmp_path / "chr1.vcf").read_bytes(),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert piped.returncode == 0, piped.stderr
    read = read_genotypes(tmp_path / "piped.npz")
    np.testing.assert_array_equal(read.dosage, DOSAGE[:, :30])


def test_the_source_of_standard_input(
    vcf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vcf.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert read_genotypes("-").source["path"] == "-"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere.vcf", "out.bed"], ("nowhere.vcf: no such file",)),
        (["in.vcf.gz", "out.txt"], ("out.txt", "suffix")),
        (["in.vcf.gz", "in.vcf.gz"], ("in.vcf.gz", "already exists", "--force")),
        (["in.vcf.gz", "no/where.bed"], ("where.bed", "no folder no", "make it")),
        (["in.vcf.gz", "other.vcf", "out.bed"], ("other.vcf", "samples", "'S0'")),
        (["in.vcf.gz", "out.bed", "--maf", "0.6"], ("--maf", "0.5")),
        (["in.vcf.gz", "out.bed", "--keep", "nobody"], ("in.vcf.gz", "leave none of its 7")),
        (["in.vcf.gz", "out.bed", "--region", "7"], ("in.vcf.gz", "60 outside --region")),
        (["in.vcf.gz", "in.vcf.gz", "--force"], ("in.vcf.gz", "the input itself")),
        (["in.vcf.gz", "-", "--format", "vcf"], ("standard output", "name a file")),
        (["in.vcf.gz"], ("GENOTYPES", "convert --help")),
    ],
)
def test_refusals(vcf: Path, tmp_path: Path, args: list[str], words: tuple[str, ...]) -> None:
    write_vcf(tmp_path / "other.vcf", DOSAGE, [f"T{i}" for i in range(7)])
    (tmp_path / "nobody").write_text("nobody\n")
    before = sorted(p.name for p in tmp_path.iterdir())
    process = convert(*args, cwd=tmp_path)
    assert process.returncode == 2
    assert process.stdout == ""
    *_, error = process.stderr.splitlines()
    assert error.startswith("error: ")
    assert "Traceback" not in process.stderr
    for word in words:
        assert word in error
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(("table", "warned"), [("GRCh38", True), ("GRCh37", False)])
def test_a_table_of_another_build_is_warned_of(table: str, warned: bool, tmp_path: Path) -> None:
    option = f"long-range-ld-{table}"
    process = convert(BUNDLED, "out.npz", "--exclude-region", option, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert ("are those of GRCh37; give long-range-ld-GRCh37" in process.stderr) is warned


def test_a_pipe_that_never_ends_is_refused_by_its_start(tmp_path: Path) -> None:
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        process = subprocess.run(
            command("inspect", "-"),
            stdin=endless.stdout,
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        endless.kill()
    assert process.returncode == 2
    assert "standard input: no genotype file" in process.stderr
