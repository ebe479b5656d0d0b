"""Samples placed in batches land where they land together, and few are held at a time."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_helpers import QUICK, strict_json
from conftest import Cut
from helpers import write_vcf

from ancestry_ddvi import placing, read_genotypes
from ancestry_ddvi.console import Console, Verbosity
from ancestry_ddvi.errors import NotEnoughDataError
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix
from ancestry_ddvi.loaders import ReadOptions, batches
from ancestry_ddvi.loaders.batches import GenotypeBatches
from ancestry_ddvi.loaders.lists import SampleList
from ancestry_ddvi.loaders.read import NONE_CALLED, Reading
from ancestry_ddvi.pipeline import embed_file
from ancestry_ddvi.placing import say_matched
from ancestry_ddvi.preprocessing import features
from ancestry_ddvi.preprocessing.alignment import Matched
from ancestry_ddvi.reference_sites import GRCH37, GRCH38, UNKNOWN
from ancestry_ddvi.writers import write_genotypes

N, AT_ONCE = 100, 34
ROWS = np.arange(N)
UNCALLED = 5
SAME = ("embedding.csv", "ancestry.csv", "covariates.tsv")


@pytest.fixture(scope="module")
def awkward(cut: Cut) -> GenotypeMatrix:
    """Samples of the cut under new ids; one has no call, and of some variants there are two copies
    that differ, of which the one is the better called in the first batch, the other in all."""
    genotypes = read_genotypes(cut.vcf).select(samples=ROWS)
    twice = np.arange(0, genotypes.n_variants, 3)
    copy = 2 - genotypes.dosage[:, twice]
    dosage = np.hstack([genotypes.dosage, copy])
    first = np.arange(N) < N // 3
    dosage[np.ix_(first, genotypes.n_variants + np.arange(len(twice)))] = MISSING
    dosage[np.ix_(~first, twice)] = MISSING
    dosage[np.random.default_rng(0).random(dosage.shape) < 0.02] = MISSING
    dosage[7, ::4] = MISSING
    dosage[UNCALLED] = MISSING
    table = pd.concat([genotypes.variants, genotypes.variants.iloc[twice]], ignore_index=True)
    order = table.sort_values(["contig", "position"], kind="stable").index.to_numpy()
    ids = np.array([f"new{i}" for i in range(N)])
    matrix = GenotypeMatrix(np.asfortranarray(dosage), ids, table)
    return matrix.select(variants=order)


def panel_of(cut: Cut, path: Path) -> Path:
    """Populations of the samples of `awkward`."""
    known = [cut.population[cut.sample_id[i]] for i in ROWS]
    rows = [f"new{i}\t{name}\n" for i, name in enumerate(known)]
    path.write_text("sample\tpop\n" + "".join(rows))
    return path


def placed(
    paths: Path | list[Path], out: Path, model: Path, at_once: int | None, **settings: Any
) -> tuple[Path, Any]:
    """A run with batches of so many samples; its folder and its run.json."""
    with pytest.MonkeyPatch.context() as patch:
        if at_once is not None:
            patch.setattr(placing, "AT_ONCE", at_once)
        embed_file(paths, out_dir=out, model_path=model, config=QUICK, pictures=False, **settings)
    return out, strict_json(out / "run.json")


def assert_same(one: Path, other: Path) -> None:
    """The same rows, words and counts; numbers to the rounding of products of other sizes, which
    differs between processors."""
    for name in SAME:
        tables = [pd.read_csv(out / name, sep=None, engine="python") for out in (one, other)]
        pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "absent_is_ref"), [("x.vcf.gz", True), ("x.bed", True), ("x.pgen", False)]
)
def test_places_and_calls_do_not_depend_on_the_batches(
    awkward: GenotypeMatrix,
    cut: Cut,
    tmp_path: Path,
    quick_results: Path,
    name: str,
    absent_is_ref: bool,
) -> None:
    # A file that lacks every fifth variant, for something to be absent.
    there = np.arange(awkward.n_variants) % 5 > 0
    write_genotypes(awkward.select(variants=there), tmp_path / name)
    removed = SampleList("removed.txt", ((None, "new2"), (None, "new91")))
    settings = {
        "absent_is_ref": absent_is_ref,
        "labels_path": panel_of(cut, tmp_path / "panel.tsv"),
        "reading": ReadOptions(remove=removed, mind=1.0 if absent_is_ref else 0.9),
    }
    together, one = placed(tmp_path / name, tmp_path / "one", quick_results, None, **settings)
    apart, many = placed(tmp_path / name, tmp_path / "many", quick_results, AT_ONCE, **settings)
    assert_same(apart, together)
    scores = [pd.json_normalize(strict_json(out / "metrics.json")) for out in (apart, together)]
    pd.testing.assert_frame_equal(*scores)  # sums of so many numbers, to their rounding
    assert any("fst_rank_correlation" in name for name in scores[0])
    assert many["counts"] == one["counts"]
    assert many["input"] == one["input"]
    assert many["warnings"] == one["warnings"]
    assert any("--mind" in w for w in many["warnings"]) == (not absent_is_ref)
    n = many["counts"]["samples"]
    assert n == N - 2 - (not absent_is_ref)
    said = re.findall(r"placed (\d+) of \d+ samples", (apart / "run.log").read_text())
    assert len(said) == -(-n // AT_ONCE)
    assert said[-1] == str(n)
    assert not re.search(r"placed \d+ of", (together / "run.log").read_text())


def test_of_copies_the_best_called_in_all_batches_is_used(
    awkward: GenotypeMatrix, tmp_path: Path, quick_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_genotypes(awkward, tmp_path / "x.vcf")
    whole, _ = placed(path, tmp_path / "whole", quick_results, None)
    apart, _ = placed(path, tmp_path / "apart", quick_results, AT_ONCE)
    # Control: each batch by itself would take another copy.
    monkeypatch.setattr(batches, "_any_repeated", lambda genotypes: False)
    alone, _ = placed(path, tmp_path / "alone", quick_results, AT_ONCE)
    assert_same(apart, whole)
    with pytest.raises(AssertionError):
        assert_same(alone, whole)


def test_no_more_samples_are_held_than_asked_for(
    awkward: GenotypeMatrix, tmp_path: Path, quick_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_genotypes(awkward, tmp_path / "x.vcf")
    held: list[int] = []
    read = Reading.read

    def spied(*args: Any) -> GenotypeMatrix:
        genotypes = read(*args)
        held.append(genotypes.n_samples)
        return genotypes

    blocks, sums_of = features.column_blocks, []

    def spied_blocks(n_rows: int, n_columns: int) -> list[slice]:
        sums_of.append(n_rows)
        return blocks(n_rows, n_columns)

    monkeypatch.setattr(Reading, "read", spied)
    monkeypatch.setattr(features, "column_blocks", spied_blocks)
    placed(path, tmp_path / "apart", quick_results, AT_ONCE)
    assert held == [33, 33, 34]
    assert sums_of == [N, N, N]  # which rounds them as it would those of all samples


def test_what_each_batch_counts_is_said_in_all(
    awkward: GenotypeMatrix, tmp_path: Path, quick_results: Path
) -> None:
    (path,) = write_genotypes(awkward, tmp_path / "x.vcf")
    text = path.read_text()
    path.write_text(text.replace("0/1", "./1").replace("1/1", "1"))
    said = []
    for name, at_once in (("one", None), ("many", AT_ONCE)):
        out, _ = placed(path, tmp_path / name, quick_results, at_once)
        log = (out / "run.log").read_text()
        said.append(sorted(re.findall(r"\] ((?:half|haploid) calls .*: [\d,]+)\n", log)))
    assert said[0] == said[1]
    assert len(said[0]) == 2


@pytest.mark.parametrize("called", [False, True])
def test_samples_without_a_call_are_said_to_be_all_only_if_they_are(
    awkward: GenotypeMatrix, tmp_path: Path, quick_results: Path, called: bool
) -> None:
    dosage = awkward.dosage.copy()
    dosage[: N - called] = MISSING
    path = write_vcf(tmp_path / "x.vcf", dosage, awkward.sample_id, awkward.variants)
    _, described = placed(path, tmp_path / "many", quick_results, AT_ONCE)
    assert (NONE_CALLED in described["warnings"]) == (not called)


@pytest.mark.parametrize("at", [0, N - 1])
def test_a_record_left_out_for_one_sample_is_left_out_for_all(
    awkward: GenotypeMatrix, tmp_path: Path, quick_results: Path, at: int
) -> None:
    (path,) = write_genotypes(awkward, tmp_path / "x.vcf")
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("#CHROM")) + 1
    for i in range(start, start + 40):
        fields = lines[i].split("\t")
        fields[9 + at] = "0/1/1"
        lines[i] = "\t".join(fields)
    path.write_text("\n".join(lines) + "\n")
    whole, one = placed(path, tmp_path / "whole", quick_results, None)
    apart, many = placed(path, tmp_path / "apart", quick_results, AT_ONCE)
    assert_same(apart, whole)
    assert many["counts"] == one["counts"]
    assert one["counts"]["records left out"]["neither diploid nor haploid"] > 20
    (warning,) = set(many["warnings"]) - set(one["warnings"])
    assert warning.startswith(f"{path}: a record is left out for some samples' genotypes")


def test_several_files_with_samples_in_another_order(
    awkward: GenotypeMatrix, tmp_path: Path, quick_results: Path
) -> None:
    half = np.arange(awkward.n_variants) < awkward.n_variants // 2
    (one,) = write_genotypes(awkward.select(variants=half), tmp_path / "one.vcf")
    other = awkward.select(variants=~half, samples=np.arange(N)[::-1])
    two = write_genotypes(other, tmp_path / "two.bed")[0]
    whole, _ = placed([one, two], tmp_path / "whole", quick_results, None)
    apart, _ = placed([one, two], tmp_path / "apart", quick_results, AT_ONCE)
    assert_same(apart, whole)


def test_what_cannot_be_read_in_batches_is_read_at_once(
    awkward: GenotypeMatrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_genotypes(awkward, tmp_path / "x.vcf")
    assert len(GenotypeBatches([path], ReadOptions(), AT_ONCE)) == 3
    for options in (ReadOptions(maf=0.01), ReadOptions(geno=0.5), ReadOptions(hwe=1e-9)):
        assert len(GenotypeBatches([path], options, AT_ONCE)) == 1
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    piped = GenotypeBatches([Path("-")], ReadOptions(), AT_ONCE)
    assert len(piped) == 1
    ((_, genotypes),) = piped
    assert genotypes.sample_id.tolist() == awkward.sample_id.tolist()
    assert piped.about.name == "-"


def test_covariates_of_one_sample_are_a_row_of_those_of_many(
    cut: Cut, tmp_path: Path, quick_results: Path
) -> None:
    genotypes, tables = read_genotypes(cut.few), []
    for name, rows in (("all", range(10)), ("one", [3])):
        (path,) = write_genotypes(genotypes.select(samples=rows), tmp_path / f"{name}.vcf")
        out, _ = placed(path, tmp_path / name, quick_results, None)
        tables.append(pd.read_csv(out / "covariates.tsv", sep="\t"))
    whole, one = tables
    assert len(one.columns) == 2 + 20 + 2
    pd.testing.assert_frame_equal(one, whole[3:4].reset_index(drop=True), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("build", "own", "words"),
    [
        (GRCH37, GRCH37, "positions are those of GRCh37, as the model's"),
        (GRCH38, GRCH37, "positions are those of GRCh38, and the model's of GRCh37; variants that"),
        (UNKNOWN, GRCH38, "positions are of a genome build that is not known, and the model's"),
        (GRCH38, UNKNOWN, "positions are those of GRCh38, and the model's of a genome build that"),
        (UNKNOWN, UNKNOWN, "positions are of a genome build that is not known, and the model's of"),
    ],
)
def test_the_build_of_the_file_is_said_beside_the_models(
    awkward: GenotypeMatrix, build: str, own: str, words: str
) -> None:
    console = Console(Verbosity.QUIET)
    matched = Matched(60, 0, 0, build=build, model_build=own)
    say_matched(console, awkward, matched, None, absent_is_ref=False)
    assert f"{awkward.name}: {words}" in console.lines[0]
    assert ("taken as the model's" in console.lines[0]) == (UNKNOWN in (build, own))
    assert len(console.lines) == 2


def test_too_few_variants_are_refused_at_the_first_batch(
    awkward: GenotypeMatrix, tmp_path: Path, quick_results: Path
) -> None:
    (path,) = write_genotypes(awkward.select(variants=np.arange(3)), tmp_path / "x.vcf")
    with pytest.raises(NotEnoughDataError, match="are needed to place a sample"):
        placed(path, tmp_path / "apart", quick_results, AT_ONCE)
    assert not (tmp_path / "apart").exists()
