"""The command line as users meet it: what it writes, says and refuses."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from cli_helpers import (
    QUICK_OPTIONS,
    command,
    environment,
    run_cli,
    strict_json,
    tree,
)
from conftest import Cut, Run
from helpers import make_variants, vcf_header, write_vcf
from simulate import balding_nichols

from ancestry_ddvi import __version__
from ancestry_ddvi.ancestry import CallConfig
from ancestry_ddvi.cli import RANGES, _catch_signals, compare, default_out, embed, main
from ancestry_ddvi.comparison import METHODS, CompareConfig
from ancestry_ddvi.fitting import EmbedConfig
from ancestry_ddvi.loaders import ReadOptions

# The command in this process.


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def ancestry_ddvi_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Command]:
    """Run `ancestry-ddvi ARGS` by its entry point, in an empty folder."""
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*args: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ancestry-ddvi", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), said.out, said.err)

    yield run
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def check_refusal(outcome: Outcome, *words: str) -> None:
    """Exit code 2 and one line that names what the user needs."""
    assert outcome.code == 2
    assert outcome.out == ""
    # Stages done before may have been reported; the error is one line, and the last.
    *stages, error = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert all(re.match(r"\[ *[\d.]+ s\] ", line) for line in stages)
    for word in words:
        assert word in error
    assert "Traceback" not in outcome.err


# Help and names.


def test_help_has_examples(ancestry_ddvi_command: Command) -> None:
    outcome = ancestry_ddvi_command("embed", "--help")
    assert outcome.code == 0
    assert "ancestry-ddvi embed genotypes.vcf.gz --labels panel.tsv" in outcome.out
    assert "--model results/model" in outcome.out
    options = [o for o in embed.params if isinstance(o, click.Option)]
    assert all(o.help and o.opts[-1] in outcome.out for o in options)


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_of_the_whole(ancestry_ddvi_command: Command, args: list[str]) -> None:
    outcome = ancestry_ddvi_command(*args)
    assert (outcome.code, outcome.err) == (0, "")
    assert "embed" in outcome.out


def test_version(ancestry_ddvi_command: Command) -> None:
    outcome = ancestry_ddvi_command("--version")
    assert (outcome.code, outcome.out) == (0, f"ancestry-ddvi, version {__version__}\n")


def test_defaults_are_those_of_the_library() -> None:
    # They stand in the command line too, because help should not wait for torch.
    said = {p.name: p.to_info_dict()["default"] for p in embed.params}
    config = EmbedConfig()
    assert {name: said[name] for name in RANGES if name in said} == pytest.approx(
        {
            "seed": config.seed,
            "n_latent": config.model.n_latent,
            "holdout": config.holdout,
            "maf": config.features.min_maf,
            "geno": 1 - config.features.min_call_rate,
            "mind": 1 - config.features.min_sample_call_rate,
            "hwe": ReadOptions().hwe,
            "hard_call_threshold": ReadOptions().hard_call_threshold,
            "ld_r2": config.features.ld_max_r2,
            "max_kinship": config.max_kinship,
            "n_pcs": config.features.n_pcs,
            "n_clusters": config.model.n_clusters,
            "map_steps": config.training.map_steps,
            "posterior_steps": config.training.posterior_steps,
            "draws": config.n_draws,
            "threads": 1,
            "call_threshold": CallConfig().threshold,
            "min_typicality": CallConfig().min_typicality,
        }
    )
    reading = ReadOptions()
    assert int(said["chr_set"]) == reading.chr_set
    assert said["multiallelic"] == reading.multiallelic
    assert said["half_calls"] == reading.half_calls


def test_defaults_of_compare_are_those_of_embed_and_the_library() -> None:
    said, of_embed = ({p.name: p.default for p in c.params} for c in (compare, embed))
    own = {"methods", "seeds", "steps", "holdout", "out"}
    config = CompareConfig()
    assert (said["seeds"], said["steps"], said["holdout"]) == (
        config.n_seeds,
        config.n_steps,
        config.holdout,
    )
    assert set(said) - set(of_embed) == {"methods", "seeds", "steps"}
    shared = {name: value for name, value in said.items() if name not in own}
    assert shared == {name: of_embed[name] for name in shared}
    assert config.methods == tuple(METHODS)


def test_help_of_compare_names_every_method(ancestry_ddvi_command: Command) -> None:
    outcome = ancestry_ddvi_command("compare", "--help")
    assert outcome.code == 0
    assert "ancestry-ddvi compare genotypes.vcf.gz --labels panel.tsv" in outcome.out
    unbroken = re.sub(r"-\n +", "-", outcome.out)
    words = set(re.findall(r"[\w-]+", unbroken))
    assert set(METHODS) <= words


def test_compare_prints_the_table(ancestry_ddvi_command: Command, tmp_path: Path) -> None:
    genotypes, population = balding_nichols(10, 300, 0.15, 3, 0)
    vcf = write_vcf(tmp_path / "some.vcf", genotypes.dosage, genotypes.sample_id)
    panel = tmp_path / "panel.csv"
    lines = [f"{i},{p}\n" for i, p in zip(genotypes.sample_id, population, strict=True)]
    panel.write_text("sample,population\n" + "".join(lines))
    args = ["compare", vcf, "--labels", panel, "--methods", "gaussian,pca", "--seeds", "1"]
    args += ["--steps", "2", "--n-pcs", "3", "--holdout", "0", "--max-kinship", "1"]
    outcome = ancestry_ddvi_command(*args)
    assert outcome.code == 0, outcome.err
    assert "written to some.comparison/: comparison.csv" in outcome.out
    table = [line.split()[0] for line in outcome.out.splitlines()[1:3]]
    assert table == ["AEVB", "PCA"]
    assert "1/2 gaussian, seed 0" in outcome.err
    again = ancestry_ddvi_command(*args, "-q")
    assert (again.code, again.out, again.err) == (0, "", "")
    check_refusal(ancestry_ddvi_command(*args, "--steps", "3"), "other --steps", "--force")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--methods", "gausian"], ["--methods", "'gausian'", "ddvi-wake-sleep"]),
        (["--seeds", "0"], ["--seeds", "at least 1", "0"]),
        (["--steps", "0"], ["--steps", "at least 1", "0"]),
        (["--holdout", "1"], ["--holdout", "0.99"]),
        (["--label-column", "pop"], ["--labels"]),
    ],
)
def test_compare_refuses_wrong_options_before_it_reads(
    ancestry_ddvi_command: Command, args: list[str], words: list[str]
) -> None:
    check_refusal(ancestry_ddvi_command("compare", "no_such.vcf", *args), *words)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b.vcf.gz", "a.b.ddvi"),
        ("some/where/chr1.vcf", "chr1.ddvi"),
        ("A.VCF.GZ", "A.ddvi"),
        ("a.vcf.bgz", "a.ddvi"),
        ("genotypes", "genotypes.ddvi"),
        ("a.v1.2", "a.v1.2.ddvi"),
        ("../x.gz", "x.ddvi"),
    ],
)
def test_the_default_output_folder(name: str, expected: str) -> None:
    assert default_out([Path(name)]) == Path(expected)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["chr1.vcf.gz", "chr2.vcf.gz", "chr10.vcf.gz"], "chr.ddvi"),
        (["ALL.chr1.phase3.vcf.gz", "ALL.chr2.phase3.vcf.gz"], "ALL.chr.ddvi"),
        (["x.bed", "x.bim", "x.fam"], "x.ddvi"),
        (["1.vcf", "2.vcf"], "genotypes.ddvi"),
        (["-"], "genotypes.ddvi"),
    ],
)
def test_the_default_output_folder_of_several(names: list[str], expected: str) -> None:
    assert default_out([Path(name) for name in names]) == Path(expected)


# A run of the default length, in a process of its own, any warning an error.


def test_default_run_succeeds_without_a_warning(default_run: Run) -> None:
    assert default_run.process.returncode == 0, default_run.process.stderr
    lines = default_run.process.stderr.splitlines()
    assert all(re.match(r"\[ *[\d.]+ s\] \S", line) for line in lines)
    assert "\x1b" not in default_run.process.stdout + default_run.process.stderr


def test_default_run_writes_the_contract(default_run: Run, cut: Cut) -> None:
    assert {p.name for p in default_run.out.iterdir()} == {
        *("embedding.csv", "covariates.tsv", "map.png", "map.pdf", "report.html"),
        *("metrics.json", "model", "run.json", "run.log"),
    }
    assert [p.name for p in default_run.out.parent.iterdir()] == [default_run.out.name]
    run = strict_json(default_run.out / "run.json")
    assert run["command"] == f"ancestry-ddvi embed {cut.vcf} --labels {cut.panel}"
    default = EmbedConfig()
    assert run["parameters"]["training"]["map_steps"] == default.training.map_steps
    assert run["parameters"]["n_draws"] == default.n_draws
    assert (default_run.out / "run.log").read_text().splitlines()[0].endswith("s")


def test_default_run_maps_the_populations(default_run: Run, quick_results: Path) -> None:
    metrics = strict_json(default_run.out / "metrics.json")
    assert metrics["knn_population"]["accuracy"] > 0.9
    assert metrics["knn_superpopulation"]["accuracy"] > 0.95
    assert metrics["gmm_20_rms_10"]["population"]["homogeneity"] > 0.95
    # The control: the same settings but for the length of training. Not by the NMI of 20 clusters,
    # which six populations bound at about .79.
    rough = strict_json(quick_results / "metrics.json")
    for group, score in (
        ("label_silhouette_population", "silhouette"),
        ("label_silhouette_superpopulation", "silhouette"),
        ("fst_rank_correlation", "spearman"),
    ):
        assert metrics[group][score] > rough[group][score] + 0.05
    assert metrics["model"]["elbo_in_sample"] > rough["model"]["elbo_in_sample"]


def test_default_run_summary(default_run: Run) -> None:
    summary = dict(
        re.split(r"  +", line.strip(), maxsplit=1)
        for line in default_run.process.stdout.splitlines()
    )
    assert summary["samples"] == "150"
    rare = int(summary["left out: MAF below 0.01"])
    assert rare > 0
    assert summary["biallelic SNPs read"] == f"{2500 - rare:,}"
    assert int(summary["variants of the map"].replace(",", "")) > 1000
    assert int(summary["clusters"]) > 1
    assert 0 < float(summary["NMI, populations"]) < 1
    assert summary["written to"] == "cut.ddvi/"
    assert "embedding.csv" in summary["files"]


# Quick runs: on a terminal and in a pipe, which must give the same bytes.


@pytest.fixture(scope="module")
def piped(cut: Cut, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The reader of standard output leaves at once, as `| head -0` does."""
    folder = tmp_path_factory.mktemp("piped")
    args = command("embed", cut.vcf, *QUICK_OPTIONS, "-v")
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        args, cwd=folder, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    os.close(writer)
    return Run(folder / "cut.ddvi", process)


@pytest.fixture(scope="module")
def on_terminal(cut: Cut, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both streams are a pseudo-terminal."""
    folder = tmp_path_factory.mktemp("terminal")
    args = command("embed", cut.vcf, *QUICK_OPTIONS, "--seed", "0", "--out", "other/name")
    leader, follower = pty.openpty()
    environ = {**environment(), "TERM": "xterm", "COLUMNS": "100"}
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environ.pop(name, None)
    process = subprocess.Popen(args, cwd=folder, env=environ, stdout=follower, stderr=follower)
    os.close(follower)
    shown = bytearray()
    while True:
        try:
            shown += os.read(leader, 2**16)
        except OSError:  # Linux reports the end of a pseudo-terminal as an error
            break
    os.close(leader)
    ended = subprocess.CompletedProcess(args, process.wait(), shown.decode(), "")
    return Run(folder / "other" / "name", ended)


def test_a_reader_who_left_does_no_harm(piped: Run) -> None:
    assert piped.process.returncode == 0
    assert "Traceback" not in piped.process.stderr
    assert "Broken pipe" not in piped.process.stderr
    assert (piped.out / "embedding.csv").exists()


@pytest.mark.parametrize(
    ("redirect", "code"), [(">&-", 0), ("2>&-", 0), (">/dev/full", 2), ("2>/dev/full", 0)]
)
def test_results_do_not_need_a_listener(
    cut: Cut, quick_results: Path, tmp_path: Path, redirect: str, code: int
) -> None:
    if "full" in redirect and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    args = command("embed", cut.few, "--model", quick_results, "--out", tmp_path / "out")
    process = subprocess.run(
        ["sh", "-c", f"exec {shlex.join(args)} {redirect}"],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == code
    assert "Traceback" not in process.stderr
    assert strict_json(tmp_path / "out" / "run.json")["counts"]["samples"] == 10
    if code:
        assert process.stderr.splitlines()[-1].startswith("error: standard output: ")


def test_in_a_pipe_there_are_plain_lines(piped: Run) -> None:
    assert all(re.match(r"\[ *[\d.]+ s\] \S", line) for line in piped.process.stderr.splitlines())
    assert "\x1b" not in piped.process.stderr
    assert "\r" not in piped.process.stderr


def test_verbose_tells_of_every_filter(piped: Run) -> None:
    filters = strict_json(piped.out / "run.json")["counts"]["variants filtered"]
    assert len(filters) == 4
    for reason, n in filters.items():
        assert f"variants taken by the filter '{reason}': {n:,}\n" in piped.process.stderr


def test_on_a_terminal_there_is_a_bar(on_terminal: Run) -> None:
    shown = on_terminal.process.stdout
    assert on_terminal.process.returncode == 0
    assert "━" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0  # the cursor comes back
    assert "written to" in shown
    assert "Traceback" not in shown


def test_the_same_seed_gives_the_same_bytes(piped: Run, on_terminal: Run) -> None:
    one, other = tree(piped.out), tree(on_terminal.out)
    same = ("embedding.csv", "covariates.tsv", "model/model.safetensors", "model/variants.tsv")
    assert [name for name in same if one[name] != other[name]] == []
    assert one["metrics.json"] == other["metrics.json"]


def test_quiet_says_nothing(ancestry_ddvi_command: Command, cut: Cut, quick_results: Path) -> None:
    outcome = ancestry_ddvi_command("embed", cut.few, "--model", quick_results, "-q")
    assert outcome == Outcome(0, "", "")
    assert Path("few.ddvi/embedding.csv").exists()


def test_the_threads_are_recorded(cut: Cut, quick_results: Path, tmp_path: Path) -> None:
    # A process of its own: the count is read once, when the libraries are loaded.
    options = ("--model", quick_results, "--threads", "2", "--out", "out")
    assert run_cli("embed", cut.few, *options, cwd=tmp_path).returncode == 0
    assert strict_json(tmp_path / "out" / "run.json")["threads"] == 2


def test_force_is_asked_for(ancestry_ddvi_command: Command, cut: Cut, quick_results: Path) -> None:
    place = ("embed", cut.few, "--model", quick_results / "model", "--out", "out")
    assert ancestry_ddvi_command(*place).code == 0
    before = tree(Path("out"))
    check_refusal(ancestry_ddvi_command(*place, "--seed", "1"), "out", "--force")
    assert tree(Path("out")) == before
    assert ancestry_ddvi_command(*place, "--seed", "1", "--force").code == 0
    assert tree(Path("out"))["embedding.csv"] != before["embedding.csv"]
    assert os.listdir() == ["out"]


# Ctrl-C and a polite kill.


def interrupt_training(
    cut: Cut, out: Path, signum: int, times: int = 1, force: bool = False
) -> tuple[int, list[str]]:
    """Exit code and lines of a run that is interrupted once the training has begun."""
    args = command("embed", cut.vcf, "--out", out, *["--force"] * force)
    lines = []
    with subprocess.Popen(args, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "learn features:" in line:
                time.sleep(0.3)
                assert [p for p in out.parent.rglob(".*") if "partial" in p.name]
                for _ in range(times):
                    process.send_signal(signum)
                    time.sleep(0.01)
    return process.returncode, lines


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_no_trace(cut: Cut, tmp_path: Path, signum: int) -> None:
    out = tmp_path / "a" / "out"
    times = 5 if signum == signal.SIGINT else 1  # impatient fingers
    code, lines = interrupt_training(cut, out, signum, times)
    assert code == 130
    assert lines[-1].startswith("interrupted: ")
    assert "Traceback" not in "".join(lines)
    assert not list(tmp_path.iterdir())


def test_impatient_fingers_do_not_interrupt_the_cleaning_up(
    ancestry_ddvi_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    ancestry_ddvi_command("--version")
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "all is said: too late to interrupt"
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    _catch_signals()  # they stay, until the fixture ends
    now = iter([100.0, 100.5, 101.0, 110.0])
    monkeypatch.setattr("ancestry_ddvi.cli.time.monotonic", lambda: next(now))
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    # But whoever still waits seconds later means it.
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_leaves_earlier_results(cut: Cut, quick_results: Path) -> None:
    before = tree(quick_results.parent)
    code, _ = interrupt_training(cut, quick_results, signal.SIGINT, force=True)
    assert code == 130
    assert tree(quick_results.parent) == before


# Bad input: one line that names file, place, value and remedy; nothing is written.


@pytest.fixture(scope="module")
def genotypes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (25, 60)).astype(np.int8)


IDS = [f"S{i}" for i in range(25)]


def replaced(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def bad_genotypes(folder: Path, cut: Cut, genotypes: np.ndarray) -> dict[str, Path]:
    """One file for every kind of bad genotype input."""
    good = cut.vcf.read_bytes()
    header = vcf_header(IDS)
    sites = header.replace("\tFORMAT\t" + "\t".join(IDS), "")
    depth = "\t".join(["7"] * 25)
    files: dict[str, bytes | str] = {
        "empty.vcf": b"",
        "not.vcf": "sample,x\nS1,3\n",
        "cut_off.vcf.gz": good[: len(good) // 2],
        "damaged.vcf.gz": replaced(good, len(good) // 2, b"\0" * 8),
        "sites.vcf": sites + "1\t100\t.\tA\tC\t.\tPASS\t.\n",
        "no_gt.vcf": header + f"1\t100\t.\tA\tC\t.\tPASS\t.\tDP\t{depth}\n",
        "twice.vcf": vcf_header([*IDS[:24], "S3"]) + "1\t1\t.\tA\tC\t.\t.\t.\tGT" + "\t0/0" * 25,
    }
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    (folder / "folder.vcf").mkdir()
    write_vcf(folder / "rare.vcf", np.minimum(genotypes, 0) + np.eye(25, 60, dtype=np.int8), IDS)
    write_vcf(folder / "few.vcf", genotypes[:19], IDS[:19])
    write_vcf(folder / "gaps.vcf", np.where(genotypes == 0, np.int8(-1), genotypes), IDS)
    return {p.name: p for p in folder.iterdir()}


GENOTYPE_FAULTS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "nowhere.vcf": ([], ("nowhere.vcf", "no such file", "check the path")),
    "folder.vcf": ([], ("folder.vcf", "is a directory", "give the file inside")),
    "empty.vcf": ([], ("empty.vcf", "is empty", "again")),
    "not.vcf": ([], ("not.vcf", "no genotype file", "give a VCF")),
    "cut_off.vcf.gz": ([], ("cut_off.vcf.gz", "cut off", "byte", "again")),
    "damaged.vcf.gz": ([], ("damaged.vcf.gz", "damaged", "byte", "again")),
    "sites.vcf": ([], ("sites.vcf", "no samples", "export")),
    "no_gt.vcf": ([], ("no_gt.vcf", "GT", "export")),
    "twice.vcf": ([], ("twice.vcf", "'S3'", "occurs in columns 13 and 34", "rename")),
    "few.vcf": ([], ("few.vcf", "19 samples", "at least 20", "--model")),
    "gaps.vcf": ([], ("gaps.vcf", "0 of 25", "call rate", "0.9", "--mind")),
    "rare.vcf": (
        ["--maf", "0.3"],
        ("rare.vcf", "0 of 60 variants", "60 MAF below 0.3", "--maf"),
    ),
}


@pytest.mark.parametrize("name", GENOTYPE_FAULTS)
def test_bad_genotypes(
    ancestry_ddvi_command: Command, cut: Cut, genotypes: np.ndarray, tmp_path: Path, name: str
) -> None:
    files = bad_genotypes(tmp_path, cut, genotypes)
    options, words = GENOTYPE_FAULTS[name]
    outcome = ancestry_ddvi_command("embed", files.get(name, tmp_path / name), *options)
    check_refusal(outcome, *words)
    assert os.listdir() == []


@pytest.mark.parametrize(
    "name", ["nowhere.vcf", "not.vcf", "cut_off.vcf.gz", "few.vcf", "twice.vcf"]
)
def test_bad_genotypes_in_a_process_of_its_own(
    cut: Cut, genotypes: np.ndarray, tmp_path: Path, name: str
) -> None:
    bad_genotypes(tmp_path, cut, genotypes)
    work = tmp_path / "work"
    work.mkdir()
    process = run_cli("embed", f"../{name}", "--out", "a/out", cwd=work, strict=True)
    outcome = Outcome(process.returncode, process.stdout, process.stderr)
    check_refusal(outcome, *GENOTYPE_FAULTS[name][1])
    assert not list(work.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ("labels.tsv", "no such file")),
        ("", ("labels.tsv", "is empty")),
        ("name\tpop\nHG00171\tFIN\n", ("labels.tsv", "no column of sample ids", "'name'")),
        ("sample\tpop\nX1\tFIN\n", ("labels.tsv", "no sample id in common", "'X1'", "HG00171")),
        ("sample\tpop\nHG00171\n", ("labels.tsv", "line 2", "1 fields")),
        ("sample\npop\n", ("labels.tsv", "no label column")),
    ],
)
def test_bad_labels(
    ancestry_ddvi_command: Command, cut: Cut, text: str | None, words: tuple[str, ...]
) -> None:
    labels = Path("..") / "labels.tsv"
    if text is not None:
        labels.write_text(text)
    check_refusal(ancestry_ddvi_command("embed", cut.vcf, "--labels", labels), *words)
    assert os.listdir() == []


def test_an_id_column_that_is_not_there(ancestry_ddvi_command: Command, cut: Cut) -> None:
    outcome = ancestry_ddvi_command("embed", cut.vcf, "--labels", cut.panel, "--id-column", "iid")
    check_refusal(outcome, str(cut.panel), "'iid'", "'sample'")
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("../file", ("file", "is not a folder", "--out")),
        ("../file/out", ("file/out", "cannot be written", "--out")),
        ("../thesis", ("thesis", "thesis.tex", "did not write", "--out")),
        ("x" * 300, ("cannot be written", "--out")),
    ],
)
def test_bad_output_folders(
    ancestry_ddvi_command: Command, cut: Cut, tmp_path: Path, out: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("precious")
    before = tree(tmp_path)
    # Before the genotypes are read: nobody should wait a minute for this.
    check_refusal(ancestry_ddvi_command("embed", "nowhere.vcf", "--out", out, "--force"), *words)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", "-1"], ("--seed", "from 0 to 2147483647", "-1")),
        (["--seed", "2147483648"], ("--seed", "2147483648")),
        (["--n-latent", "0"], ("--n-latent", "at least 1", "0")),
        (["--n-latent", "21"], ("--n-latent 21", "20 principal components", "--n-pcs")),
        (["--holdout", "1.5"], ("--holdout", "1.5")),
        (["--holdout", "nan"], ("--holdout", "nan")),
        (["--maf", "nan"], ("--maf", "nan")),
        (["--maf", "0.6"], ("--maf", "from 0 to 0.5", "0.6")),
        (["--geno", "-0.1"], ("--geno", "-0.1")),
        (["--mind", "inf"], ("--mind", "inf")),
        (["--hwe", "1.1"], ("--hwe", "1.1")),
        (["--max-kinship", "0"], ("--max-kinship", "0.01")),
        (["--hard-call-threshold", "0.6"], ("--hard-call-threshold", "0.6")),
        (["--chr-set", "x"], ("--chr-set", "'x'", "any")),
        (["--region", "chr6-100"], ("chr6-100",)),
        (["--keep", "nowhere"], ("nowhere", "no such file")),
        (["--extract", "nowhere"], ("nowhere", "no such file")),
        (["--half-calls", "x"], ("--half-calls", "--help")),
        (["--ld-r2", "2"], ("--ld-r2", "from 0 to 1", "2")),
        (["--n-pcs", "0"], ("--n-pcs", "at least 1")),
        (["--n-clusters", "0"], ("--n-clusters", "at least 1")),
        (["--prior", "square", "--n-clusters", "3"], ("4 sides, not 3", "--n-clusters")),
        (["--map-steps", "0"], ("--map-steps", "at least 1")),
        (["--posterior-steps", "-5"], ("--posterior-steps", "-5")),
        (["--draws", "1"], ("--draws", "at least 2")),
        (["--threads", "0"], ("--threads", "at least 1")),
        (["-q", "-v"], ("--quiet", "--verbose", "one of them")),
        (["--holdout", "0.99"], ("cut.vcf.gz", "--holdout 0.99 leaves 2 of 150", "20 are needed")),
        (["--model", "m", "--holdout", "0.2", "--n-pcs", "9"], ("--holdout, --n-pcs", "--model")),
        (["--seed", "x"], ("--seed", "'x'", "--help")),
        (["--nonsense"], ("--nonsense", "--help")),
        (["a"], ("a: no such file", "check the path")),
    ],
)
def test_bad_options(
    ancestry_ddvi_command: Command, cut: Cut, options: list[str], words: tuple[str, ...]
) -> None:
    check_refusal(ancestry_ddvi_command("embed", cut.vcf, *options), *words)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("args", "word"), [(["embed"], "GENOTYPES"), (["nonsense"], "nonsense"), (["--nope"], "--nope")]
)
def test_bad_usage(ancestry_ddvi_command: Command, args: list[str], word: str) -> None:
    check_refusal(ancestry_ddvi_command(*args), word, "--help")


def test_more_latents_than_the_samples_span(
    ancestry_ddvi_command: Command, genotypes: np.ndarray, tmp_path: Path
) -> None:
    # 20 components were asked for, but copies of four people span three.
    vcf = write_vcf(tmp_path / "copies.vcf", np.tile(genotypes[:4], (6, 1)), IDS[:24])
    outcome = ancestry_ddvi_command("embed", vcf, "--n-latent", "4", "--ld-r2", "1")
    check_refusal(outcome, "4 latents", "3 principal components", "--n-latent", "--n-pcs")
    assert os.listdir() == []


def test_an_unknown_model(ancestry_ddvi_command: Command, cut: Cut) -> None:
    outcome = ancestry_ddvi_command("embed", cut.few, "--model", "../nowhere")
    check_refusal(outcome, "nowhere", "no such folder", "give the model/ folder")
    assert os.listdir() == []


def test_a_damaged_model(ancestry_ddvi_command: Command, cut: Cut, quick_results: Path) -> None:
    with (quick_results / "model" / "model.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"????")
    outcome = ancestry_ddvi_command("embed", cut.few, "--model", quick_results)
    check_refusal(outcome, "model.safetensors", "checksum", "again")
    assert os.listdir() == []


def test_no_variant_of_the_model_in_the_file(
    ancestry_ddvi_command: Command, genotypes: np.ndarray, quick_results: Path, tmp_path: Path
) -> None:
    variants = make_variants(60).assign(contig="17", position=range(1, 61))
    vcf = write_vcf(tmp_path / "other.vcf", genotypes, IDS, variants)
    outcome = ancestry_ddvi_command("embed", vcf, "--model", quick_results)
    check_refusal(outcome, "other.vcf", "0 of the", "genome build")
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ("--absent-is-ref", "give one with --model")),
        (
            ["--model", "results", "--exclude", "some.txt"],
            ("--absent-is-ref with --exclude", "one of them"),
        ),
    ],
)
def test_absent_is_ref_where_it_makes_no_sense(
    ancestry_ddvi_command: Command,
    cut: Cut,
    quick_results: Path,
    options: list[str],
    words: tuple[str, ...],
) -> None:
    given = [str(quick_results) if o == "results" else o for o in options]
    Path("some.txt").write_text("rs1\n")
    outcome = ancestry_ddvi_command("embed", cut.few, "--absent-is-ref", *given)
    check_refusal(outcome, *words)
    assert os.listdir() == ["some.txt"]


def test_too_few_variants_of_the_model(
    ancestry_ddvi_command: Command, cut: Cut, quick_results: Path, tmp_path: Path
) -> None:
    vcf = tmp_path / "panel.vcf"
    lines = cut.few.read_text().splitlines(keepends=True)
    header = [line for line in lines if line.startswith("#")]
    vcf.write_text("".join(header + lines[len(header) : len(header) + 5]))
    outcome = ancestry_ddvi_command("embed", vcf, "--model", quick_results)
    check_refusal(outcome, "panel.vcf: ", "variants of the map", "are needed", "check species")
    assert os.listdir() == []


def test_a_loss_that_is_not_finite(
    ancestry_ddvi_command: Command, cut: Cut, quick_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ancestry_ddvi.ddvi.networks.NormalDecoder.log_prob",
        lambda self, x, z, noise: torch.full(x.shape[:-1], torch.nan),
    )
    before = tree(quick_results)
    outcome = ancestry_ddvi_command("embed", cut.vcf, "--out", quick_results, "--force")
    check_refusal(outcome, "non-finite", "step 1", "reconstruction", "--seed")
    assert tree(quick_results) == before


def test_a_line_break_in_a_name_stays_on_one_line(ancestry_ddvi_command: Command) -> None:
    check_refusal(ancestry_ddvi_command("embed", "no\nsuch.vcf"), "no such.vcf")


def test_an_unexpected_error_is_ours(tmp_path: Path) -> None:
    code = (
        "from ancestry_ddvi import cli\n"
        "cli._check_ranges = lambda values: 1 / 0\n"
        "import sys; sys.argv[1:] = ['embed', 'a.vcf']; cli.main()\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 1
    assert "ZeroDivisionError" in process.stderr
    assert not list(tmp_path.iterdir())
