"""Every hostile file is read as it is written down in its case, or refused in one line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from cli_helpers import command, environment
from hostile import CASES, GOOD, SAMPLES, Hostile, Joined, Read, Refused, Same, write

from ancestry_ddvi.errors import GenotypeFileError, InputError, LabelFileError
from ancestry_ddvi.genotypes import GenotypeMatrix, bare_contig
from ancestry_ddvi.loaders import read_genotypes
from ancestry_ddvi.loaders.htslib import HtslibSource
from ancestry_ddvi.loaders.options import ReadOptions
from ancestry_ddvi.loaders.panel import read_labels
from ancestry_ddvi.loaders.read import read_sources

T = TypeVar("T")

LIMIT_S = 20
VCF_GROUPS = ("container", "record", "genotype", "samples")
BY_NAME = {case.name: case for case in CASES}
GENOTYPES = [case for case in CASES if case.group != "labels"]
VCFS = [case for case in CASES if case.group in VCF_GROUPS and not isinstance(case.expect, Same)]
READ = [case for case in CASES if isinstance(case.expect, Read)]


def each(cases: list[Hostile]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@contextmanager
def time_limit() -> Iterator[None]:
    """What hangs fails."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"nothing after {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(read: Callable[[], T]) -> T | InputError:
    with time_limit():
        try:
            return read()
        except InputError as fault:
            return fault


def made(case: Hostile, folder: Path) -> list[Path]:
    if case.as_user and os.geteuid() == 0:
        pytest.skip("the superuser may read any file")
    if case.group == "VCF Zarr":
        pytest.importorskip("zarr")
    paths = case.make(folder)
    return paths if isinstance(paths, list) else [paths]


def columns_of(genotypes: GenotypeMatrix) -> tuple[str, ...]:
    """As `Read` has them."""
    return tuple("".join(".012"[call + 1] for call in column) for column in genotypes.dosage.T)


def check_refused(fault: object, expect: Refused, path: Path) -> None:
    """One line: the file, the place, what is wrong, and what to do."""
    assert isinstance(fault, InputError), fault
    message = str(fault)
    named = path.with_name(path.name.split(".")[0] + expect.at) if expect.at else path
    assert message.startswith((f"{named}: ", f"{named}.")), message[:500]
    assert len(message.splitlines()) == 1
    assert re.search(expect.says, message.removeprefix(str(path.parent))), message
    assert re.search(r"[;:] \S.*$", message.removeprefix(f"{named}: ")), "no remedy"
    assert "crashed" not in message


def test_there_are_enough() -> None:
    assert len(CASES) >= 60
    assert len(BY_NAME) == len(CASES)
    assert {"PLINK 1", "PLINK 2", "VCF Zarr", "npz", "labels"} < {case.group for case in CASES}


def test_the_generator_writes_them_all(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    generator = Path(__file__).with_name("hostile.py")
    words = [*command()[:1], str(generator), str(tmp_path / "all")]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    assert {path.name for path in (tmp_path / "all").iterdir()} == set(BY_NAME)


@each([case for case in GENOTYPES if not isinstance(case.expect, Same)])
def test_genotypes(case: Hostile, tmp_path: Path) -> None:
    for path in made(case, tmp_path):
        found = attempt(lambda path=path: read_genotypes(path, ReadOptions(**case.options)))
        if isinstance(case.expect, Refused):
            check_refused(found, case.expect, path)
            continue
        assert isinstance(case.expect, Read)
        assert isinstance(found, GenotypeMatrix), found
        assert columns_of(found) == case.expect.dosage
        assert tuple(found.sample_id) == case.expect.samples


@each([case for case in CASES if isinstance(case.expect, Same)])
def test_flipped_bits(case: Hostile, tmp_path: Path) -> None:
    assert isinstance(case.expect, Same)
    paths = made(case, tmp_path)
    intact = read_genotypes(tmp_path / case.expect.intact)
    n_refused = 0
    for path in paths:
        found = attempt(lambda path=path: read_genotypes(path))
        if isinstance(found, GenotypeMatrix):
            same = found.content_hash() == intact.content_hash()
            assert same or (case.expect.shape_only and found.dosage.shape == intact.dosage.shape)
        else:
            n_refused += 1
            check_refused(found, Refused(""), path)
    assert len(paths) == 50
    assert n_refused >= (0 if case.expect.shape_only else 25)


@each([case for case in CASES if case.group == "labels"])
def test_labels(case: Hostile, tmp_path: Path) -> None:
    (path,) = made(case, tmp_path)
    found = attempt(lambda: read_labels(path, SAMPLES))
    if isinstance(case.expect, Refused):
        assert isinstance(found, LabelFileError)
        check_refused(found, case.expect, path)
        return
    assert isinstance(case.expect, Joined)
    assert not isinstance(found, InputError), found
    pop = found.frame["pop"]
    assert tuple(pop.astype(object).where(pop.notna(), None)) == case.expect.pop


@each(VCFS)
def test_the_fast_reader_and_htslib_alone(case: Hostile, tmp_path: Path) -> None:
    options = ReadOptions(**case.options)
    for path in made(case, tmp_path):
        fast = attempt(lambda path=path: read_genotypes(path, options))
        # Text has been looked through before htslib sees it; the rest may crash.
        htslib = HtslibSource.guarded if path.suffix == ".bcf" else HtslibSource
        slow = attempt(lambda path=path, htslib=htslib: read_sources([htslib(path)], options))
        alike = isinstance(fast, InputError) == isinstance(slow, InputError)
        assert alike != bool(case.slow), (fast, slow)
        if isinstance(fast, GenotypeMatrix) and isinstance(slow, GenotypeMatrix):
            assert fast.content_hash() == slow.content_hash()
            assert fast.left_out == slow.left_out
            assert fast.by_rule == slow.by_rule
            assert fast.source == slow.source


# Other programs. Where one of them differs the case says why.

Sites = dict[tuple[str, int, str, str], str]


def counted(call: str, alt: int, half_calls: str) -> str:
    """A call of a VCF as `Read` has it."""
    alleles = re.split(r"[/|]", call)
    known = [allele for allele in alleles if allele != "."]
    if not known or (len(known) < len(alleles) and half_calls == "missing"):
        return "."
    whole = known * 2 if len(alleles) == 1 or half_calls == "haploid" else known
    return str(sum(int(allele) == alt for allele in whole[:2]))


def by_bcftools(path: Path, case: Hostile) -> Sites | None:
    """The dosages at every site; None if it refuses."""
    form = "%CHROM\\t%POS\\t%REF\\t%ALT[\\t%GT]\\n"
    words = ["bcftools", "query", "-f", form, str(path)]
    done = subprocess.run(words, capture_output=True, timeout=LIMIT_S)
    if done.returncode:
        return None
    sites: Sites = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        contig, position, ref, alts, *calls = line.split("\t")
        for number, alt in enumerate(alts.split(","), start=1):
            half = case.options.get("half_calls", "missing")
            dosage = "".join(counted(call, number, half) for call in calls)
            sites[bare_contig(contig), int(position), ref.upper(), alt.upper()] = dosage
    return sites


def by_plink2(path: Path, case: Hostile) -> Sites | None:
    """As `by_bcftools`; sites of two alleles only."""
    flags = {"PLINK 1": "--bfile", "PLINK 2": "--pfile"}
    if (flag := flags.get(case.group)) is not None:
        given = [flag, str(path.with_suffix(""))]
        given += ["vzs"] * path.with_suffix(".pvar.zst").exists()
    else:
        given = ["--bcf" if path.suffix == ".bcf" else "--vcf", str(path)]
        given += ["--vcf-half-call", case.options.get("half_calls", "missing")]
    out = path.parent / "plink2"
    words = ["plink2", *given, "--allow-extra-chr", "--max-alleles", "2", "--threads", "1"]
    words += ["--memory", "640", "--set-all-var-ids", "@:#:$r:$a", "--out", str(out)]
    words += ["--new-id-max-allele-len", "1000", "--export", "A"]
    done = subprocess.run(words, capture_output=True, timeout=LIMIT_S)
    if done.returncode:
        return None
    names, *rows = Path(f"{out}.raw").read_text().splitlines()
    sites: Sites = {}
    for column, name in enumerate(names.split("\t")[6:], start=6):
        contig, position, ref, rest = name.split(":", 3)
        alt, _, allele = rest.rpartition("_")
        assert allele in (ref, alt)
        calls = [row.split("\t")[column] for row in rows]
        # It counts REF, unless told otherwise.
        counts = {"NA": ".", "0": "0", "1": "1", "2": "2"}
        if allele == ref:
            counts |= {"0": "2", "2": "0"}
        dosage = "".join(counts[call] for call in calls)
        sites[bare_contig(contig), int(position), ref.upper(), alt.upper()] = dosage
    return sites


@pytest.mark.parametrize("program", ["bcftools", "plink2"])
@each(READ)
def test_other_programs(case: Hostile, program: str, tmp_path: Path) -> None:
    assert isinstance(case.expect, Read)
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if case.group not in (*VCF_GROUPS, *(("PLINK 1", "PLINK 2") if program == "plink2" else ())):
        pytest.skip(f"{program} does not know the format")
    if program == "plink2" and case.options.get("multiallelic") == "split":
        pytest.skip("plink2 exports no dosages of the alleles of a multiallelic variant")
    (path,) = made(case, tmp_path)
    ours = read_genotypes(path, ReadOptions(**case.options))
    theirs = {"bcftools": by_bcftools, "plink2": by_plink2}[program](path, case)
    table = ours.variants[["contig", "position", "ref", "alt"]].itertuples(index=False, name=None)
    sites = [(bare_contig(contig), *site) for contig, *site in table]
    agree = theirs is not None and tuple(theirs.get(s) for s in sites) == case.expect.dosage  # type: ignore[arg-type]
    assert agree or getattr(case, program), theirs  # a later version may have mended it


# The command.

OF_THE_COMMAND = (
    "bgzip_cut_in_the_middle",
    "byte_order_mark",
    "bcf_cut_in_a_record",
    "directory",
    "fifo",
    "row_short",
    "tetraploid_throughout",
    "samples_twice",
    "fam_short_though_it_fits",
    "pgen_cut_to_20_bytes",
    "zarr_without_a_chunk",
    "labels_latin1",
)


@pytest.mark.parametrize("name", OF_THE_COMMAND)
def test_the_command_refuses_in_one_line(name: str, tmp_path: Path) -> None:
    case, here = BY_NAME[name], tmp_path / "here"
    (tmp_path / "files").mkdir()
    here.mkdir()
    path = made(case, tmp_path / "files")[0]
    words: list[str | Path] = [path]
    if case.group == "labels":
        words = [write(tmp_path / "good.vcf", GOOD), "--labels", path]
    done = subprocess.run(
        command("embed", *words),
        cwd=here,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=3 * LIMIT_S,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert done.stderr.splitlines()[-1] == errors[0]
    fault = GenotypeFileError(errors[0].removeprefix("error: "))
    assert isinstance(case.expect, Refused)
    check_refused(fault, case.expect, path)
    assert list(here.iterdir()) == []
