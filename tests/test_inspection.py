"""What inspect says, where it is known; and the command."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_helpers import command, environment, run_cli
from conftest import Cut
from helpers import make_variants, vcf_header, write_text, write_vcf

from ancestry_ddvi.errors import NotEnoughDataError
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.inspection import (
    COPIED,
    OTHER_ID,
    RENAMED,
    SWAPPED_IDS,
    Comparison,
    Inspection,
    compare_genotypes,
    frequency_spectrum,
    inspect_files,
    inspect_genotypes,
)
from ancestry_ddvi.loaders import read_genotypes
from ancestry_ddvi.preprocessing.concordance import agreement, discordance
from ancestry_ddvi.preprocessing.features import FeatureConfig, FeatureExtractor
from ancestry_ddvi.preprocessing.filters import VariantCounts
from ancestry_ddvi.preprocessing.relatedness import related_pairs
from ancestry_ddvi.reference_sites import GRCH37, GRCH38, UNKNOWN, reference_sites


def matrix(dosage: Any, ids: list[str] | None = None, **more: Any) -> GenotypeMatrix:
    dosage = np.asarray(dosage, dtype=np.int8)
    ids = ids or [f"s{i}" for i in range(len(dosage))]
    more.setdefault("variants", make_variants(dosage.shape[1]))
    return GenotypeMatrix(dosage, np.array(ids), **more)


def random_dosage(n_samples: int, n_variants: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.1, 0.9, n_variants)
    return rng.binomial(2, p, (n_samples, n_variants)).astype(np.int8)


def lifted(genotypes: GenotypeMatrix) -> GenotypeMatrix:
    """The same at GRCH38's positions, without what has none."""
    sites = reference_sites()
    at = {
        (c, p): q
        for c, p, q in zip(
            sites.contig, sites.position[GRCH37], sites.position[GRCH38], strict=True
        )
    }
    table = genotypes.variants
    new = np.array([at[c, p] for c, p in zip(table["contig"], table["position"], strict=True)])
    moved = replace(genotypes, variants=table.assign(position=new))
    return moved.select(variants=new > 0)


@pytest.fixture(scope="module")
def genotypes(cut: Cut) -> GenotypeMatrix:
    return read_genotypes(cut.vcf)


@pytest.fixture(scope="module")
def inspection(genotypes: GenotypeMatrix) -> Inspection:
    return inspect_genotypes(genotypes)


# The file.


def test_the_bundled_cut(inspection: Inspection, cut: Cut) -> None:
    assert inspection.source["path"] == str(cut.vcf)
    assert inspection.source["format"] == "VCF (bgzip)"
    assert (inspection.n_samples, inspection.n_variants) == (150, 2500)
    assert inspection.first_samples == tuple(cut.sample_id[:5])
    assert inspection.build.name == GRCH37
    assert inspection.missing.share == 0
    assert not inspection.missing.worst_samples
    assert sum(inspection.by_contig.values()) == sum(inspection.frequencies.values()) == 2500
    sites = inspection.overlap.sites
    assert sites["same"] + sites["ambiguous"] == 2500
    assert sites["absent"] == 23_770 - 2500


def test_the_cut_at_the_positions_of_grch38(genotypes: GenotypeMatrix) -> None:
    found = inspect_genotypes(lifted(genotypes))
    assert found.build.name == found.overlap.build == GRCH38
    sites = found.overlap.sites
    assert sites["same"] + sites["ambiguous"] == found.n_variants > 2400


def test_another_species(genotypes: GenotypeMatrix) -> None:
    variants = genotypes.variants.assign(contig="chr29")
    found = inspect_genotypes(replace(genotypes, variants=variants))
    assert found.build.name == UNKNOWN
    assert found.overlap.sites["absent"] == 23_770
    assert found.by_contig == {"chr29": 2500}
    assert found.embed.possible


def test_frequencies_by_hand() -> None:
    n = 100
    dosage = np.zeros((n, 7), dtype=np.int8)
    dosage[:1, 1] = 1  # .005
    dosage[:2, 2] = 1  # .01
    dosage[:10, 3] = 1  # .05
    dosage[:, 4] = 2
    dosage[:, 5] = 1  # all heterozygous: tells nobody apart
    dosage[:, 6] = -1
    spectrum = frequency_spectrum(VariantCounts.of(dosage))
    assert list(spectrum.values()) == [4, 1, 1, 1]


def test_missingness_by_hand() -> None:
    dosage = random_dosage(20, 40)
    dosage[3, :4] = -1  # .1: not above it
    dosage[7, :10] = -1
    missing = inspect_genotypes(matrix(dosage)).missing
    assert missing.share == 14 / 800
    assert missing.n_samples_above == 1
    assert missing.worst_samples == (("s7", 0.25), ("s3", pytest.approx(0.1)))
    assert missing.worst_variants[0] == ("1:1000", 0.1)


def test_families_rules_and_notes_are_said() -> None:
    found = inspect_genotypes(
        matrix(
            random_dosage(4, 30),
            family_id=np.array(["F1", "F1", "F2", "F3"]),
            by_rule={"half calls taken as missing": 7},
            left_out={"multiallelic": 3},
            notes=("put in order",),
        )
    )
    assert found.n_families == 3
    rows = dict(found.rows())
    assert rows["  families"] == "3"
    assert rows["  half calls taken as missing"] == "7 genotypes"
    assert rows["  left out: multiallelic"] == "3"
    assert rows["note"] == "put in order"


# What embed would do.


def test_preview_is_what_embed_chooses(inspection: Inspection, genotypes: GenotypeMatrix) -> None:
    assert not inspection.embed.relatives
    extractor = FeatureExtractor()
    extractor.fit_transform(genotypes)
    preview = inspection.embed
    assert preview.variants_filtered == extractor.funnel
    assert preview.n_variants == len(extractor.variants)
    assert preview.n_samples == extractor.trained_on.sum() == 150
    assert preview.n_variants == 2500 - sum(preview.variants_filtered.values())


def test_badly_called_samples_and_relatives_are_left_out() -> None:
    dosage = random_dosage(40, 3000)
    dosage[5] = dosage[4]  # the same person twice
    dosage[9, :600] = -1
    found = inspect_genotypes(matrix(dosage))
    assert found.embed.badly_called == ("s9",)
    assert found.embed.relatives == ("s5",)
    assert found.embed.n_samples == 38
    assert found.relatives is not None
    assert found.relatives.duplicates == (("s4", "s5", 0.5),)
    assert "s4 = s5" in found.table()
    alone = FeatureExtractor()
    keep = np.arange(40) != 5
    assert len(alone.select(matrix(dosage), train=keep)) == found.embed.n_variants


def test_few_variants_make_no_relatives_of_strangers(genotypes: GenotypeMatrix) -> None:
    few = genotypes.select(variants=np.arange(0, 2500, 3))
    found = inspect_genotypes(few)
    assert found.relatives is not None
    assert found.relatives.min_kinship > 0.0884
    assert not found.embed.relatives
    assert len(related_pairs(few.dosage, min_kinship=0.0884).kinship) > 3  # the control
    assert inspect_genotypes(genotypes.select(variants=np.arange(199))).relatives is None


@pytest.mark.parametrize("n_samples", [1, 2, 19])
def test_a_few_samples_are_told_of_the_model(n_samples: int) -> None:
    found = inspect_genotypes(matrix(random_dosage(n_samples, 800)))
    assert not found.embed.possible
    with pytest.raises(NotEnoughDataError) as fault:
        FeatureExtractor().fit_transform(matrix(random_dosage(n_samples, 800)))
    assert found.embed.message == str(fault.value)
    assert "at least 20" in found.embed.message
    assert "--model" in found.embed.message
    assert found.embed.n_samples is None
    assert (found.relatives is None) == (n_samples == 1)
    json.loads(found.as_json())


def test_too_few_variants_are_refused_in_the_words_of_embed() -> None:
    few = matrix(random_dosage(30, 12))
    found = inspect_genotypes(few)
    with pytest.raises(NotEnoughDataError) as fault:
        FeatureExtractor().fit_transform(few)
    assert found.embed.message == str(fault.value)
    assert found.embed.n_variants is None
    assert sum(found.embed.variants_filtered.values()) <= 12
    assert found.relatives is None


def test_settings_of_embed_are_taken() -> None:
    found = inspect_genotypes(matrix(random_dosage(30, 900)), config=FeatureConfig(min_maf=0.4))
    assert found.embed.variants_filtered["MAF below 0.4"] > 300


def test_relatives_that_leave_too_few_are_said() -> None:
    dosage = np.repeat(random_dosage(15, 3000), 2, axis=0)
    found = inspect_genotypes(matrix(dosage))
    assert not found.embed.possible
    assert len(found.embed.relatives) == 15
    assert found.embed.n_variants is None


# Concordance.


def test_agreement_and_discordance_by_hand() -> None:
    a = np.array([[0, 1, 2, -1], [2, 2, -1, -1]], dtype=np.int8)
    b = np.array([[0, 1, 1, 0], [2, 0, 1, -1]], dtype=np.int8)
    n, equal = agreement(a, b)
    assert (n.tolist(), equal.tolist()) == ([3, 2], [2, 1])
    ((rows, d),) = discordance(a, b, min_compared=3)
    assert rows == slice(0, 2)
    np.testing.assert_allclose(d, [[1 / 3, 1.0], [np.nan, np.nan]])


def by_kind(comparison: Comparison) -> dict[tuple[str, str], str]:
    return {(m.sample_id, m.other_id): m.kind for m in comparison.matches}


IDS = [f"s{i}" for i in range(30)]


def other_ids(**renamed: str) -> list[str]:
    return [renamed.get(i, i) for i in IDS]


def test_the_same_file_agrees_with_itself(genotypes: GenotypeMatrix) -> None:
    found = compare_genotypes(genotypes, genotypes, (GRCH37, GRCH37))
    assert found.n_shared == 150
    assert set(found.concordance.values()) == {1.0}
    assert not found.matches


def test_swapped_ids_are_found(genotypes: GenotypeMatrix) -> None:
    ids = genotypes.sample_id.copy()
    ids[[3, 90]] = ids[[90, 3]]
    found = compare_genotypes(genotypes, replace(genotypes, sample_id=ids))
    a, b = ids[90], ids[3]
    assert by_kind(found) == {(a, b): SWAPPED_IDS, (b, a): SWAPPED_IDS}
    assert found.matches[0].concordance == 1
    assert found.matches[0].own_concordance is not None
    assert found.matches[0].own_concordance < 0.8
    low = sorted(found.concordance, key=lambda s: found.concordance[s] or 0)[:2]
    assert set(low) == {a, b}


def test_order_noise_and_missing_do_not_hide_a_swap() -> None:
    dosage = random_dosage(30, 1000)
    rng = np.random.default_rng(1)
    noisy = np.where(rng.random(dosage.shape) < 0.05, random_dosage(30, 1000, 2), dosage)
    noisy[rng.random(dosage.shape) < 0.2] = -1
    order = rng.permutation(30)
    ids = np.array(other_ids(s3="s8", s8="s3"))[order]
    found = compare_genotypes(matrix(dosage), matrix(noisy[order], ids.tolist()))
    assert by_kind(found) == {("s3", "s8"): SWAPPED_IDS, ("s8", "s3"): SWAPPED_IDS}
    assert found.median is not None
    assert 0.95 < found.median < 1


def test_a_copy_under_another_id_is_found_in_either_file() -> None:
    dosage = random_dosage(30, 600)
    copied = dosage.copy()
    copied[8] = dosage[3]
    there = compare_genotypes(matrix(dosage), matrix(copied))
    assert by_kind(there) == {("s3", "s8"): COPIED}
    here = compare_genotypes(matrix(copied), matrix(dosage))
    assert by_kind(here) == {("s8", "s3"): COPIED}


def test_renamed_and_rotated_ids() -> None:
    dosage = random_dosage(30, 600)
    renamed = compare_genotypes(matrix(dosage), matrix(dosage, other_ids(s4="new")))
    assert by_kind(renamed) == {("s4", "new"): RENAMED}
    assert (renamed.n_shared, renamed.n_only_here, renamed.n_only_there) == (29, 1, 1)
    rotated = compare_genotypes(
        matrix(dosage), matrix(dosage, other_ids(s1="s2", s2="s3", s3="s1"))
    )
    assert by_kind(rotated) == dict.fromkeys([("s1", "s2"), ("s2", "s3"), ("s3", "s1")], OTHER_ID)


def test_strangers_match_nobody() -> None:
    found = compare_genotypes(
        matrix(random_dosage(30, 600)), matrix(random_dosage(30, 600, 9), [f"t{i}" for i in IDS])
    )
    assert not found.matches
    assert found.median is None
    assert not found.concordance


def test_one_sample_against_one() -> None:
    dosage = random_dosage(2, 600)
    same = compare_genotypes(matrix(dosage[:1], ["a"]), matrix(dosage[:1], ["b"]))
    assert by_kind(same) == {("a", "b"): RENAMED}
    assert not compare_genotypes(matrix(dosage[:1], ["a"]), matrix(dosage[1:], ["b"])).matches


def test_alleles_are_turned_before_they_are_compared() -> None:
    dosage = random_dosage(30, 400)
    turned = dosage.copy()
    turned[:, :200] = 2 - turned[:, :200]
    variants = make_variants(400)
    variants.loc[:99, ["ref", "alt"]] = ["C", "A"]
    variants.loc[100:199, ["ref", "alt"]] = ["G", "T"]  # swapped, of the other strand
    variants.loc[200:299, ["ref", "alt"]] = ["T", "G"]
    found = compare_genotypes(matrix(dosage), matrix(turned, variants=variants))
    assert found.n_sites == 400
    assert set(found.concordance.values()) == {1.0}


def test_sites_that_hide_a_flip_are_left_aside() -> None:
    variants = make_variants(60)
    variants.loc[:19, ["ref", "alt"]] = ["A", "T"]
    both = matrix(random_dosage(30, 60), variants=variants)
    assert compare_genotypes(both, both).n_sites == 40


def test_two_builds_are_compared_by_the_reference(genotypes: GenotypeMatrix) -> None:
    found = compare_genotypes(genotypes, lifted(genotypes), (GRCH37, GRCH38))
    assert found.by == "sites of 1kg"
    assert found.n_sites > 2000
    assert set(found.concordance.values()) == {1.0}


def test_too_few_shared_sites_are_refused() -> None:
    other = make_variants(100)
    other.loc[19:, "position"] += 1
    mine = matrix(random_dosage(5, 100))
    with pytest.raises(NotEnoughDataError, match=r"19 of its variants .* 20 are needed"):
        compare_genotypes(mine, replace(mine, variants=other))


def test_samples_never_called_together_have_no_concordance() -> None:
    dosage = random_dosage(30, 100)
    empty = dosage.copy()
    empty[2] = -1
    found = compare_genotypes(matrix(dosage), matrix(empty))
    assert found.concordance["s2"] is None
    assert not found.matches


# The table, and the command.


def test_table_is_aligned_and_keeps_its_width(inspection: Inspection) -> None:
    lines = inspection.table(80).splitlines()
    words = (inspection.source["path"], inspection.source["sha256"])  # too long to be broken
    assert max(len(line) for line in lines if not line.endswith(words)) <= 80
    column = lines[0].index(inspection.source["path"])
    for line in lines:
        assert not line or line[column - 2 : column] == "  "
        assert line == line.rstrip()


def test_table_lets_no_id_upset_the_terminal() -> None:
    found = inspect_genotypes(matrix(random_dosage(2, 30), ["\x1b[2J", "bad\udcff"]))
    assert "\\x1b[2J" in found.table()
    assert found.table().encode()
    assert json.loads(found.as_json())["first_samples"][0] == "\x1b[2J"


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_command_prints_the_table(cut: Cut, inspection: Inspection, tmp_path: Path) -> None:
    process = run_cli("inspect", cut.vcf, cwd=tmp_path, strict=True)
    assert process.returncode == 0
    assert process.stdout == inspection.table(100) + "\n"
    assert "read genotypes" in process.stderr
    assert not list(tmp_path.iterdir())


def test_command_prints_json(cut: Cut, inspection: Inspection, tmp_path: Path) -> None:
    process = run_cli("inspect", cut.vcf, "--json", "-q", cwd=tmp_path)
    assert strict(process.stdout) == strict(inspection.as_json())
    assert not process.stderr


def test_command_with_ten_samples(cut: Cut, tmp_path: Path) -> None:
    process = run_cli("inspect", cut.few, cwd=tmp_path)
    assert process.returncode == 0
    assert "embed would refuse" in process.stdout
    assert "--model" in process.stdout


def test_command_compares(tmp_path: Path) -> None:
    dosage = random_dosage(30, 300)
    mine = write_vcf(tmp_path / "mine.vcf", dosage, IDS)
    other = write_vcf(tmp_path / "other.vcf", dosage, other_ids(s3="s8", s8="s3"))
    process = run_cli("inspect", mine, "--compare", other, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("\n  swapped  ") == 1
    assert "s3 here has the genotypes of s8 there (concordance 1.000; with s3" in " ".join(
        process.stdout.split()
    )
    as_json = strict(run_cli("inspect", mine, "--compare", other, "--json", cwd=tmp_path).stdout)
    assert len(as_json["comparison"]["matches"]) == 2


def test_command_takes_several_files(tmp_path: Path) -> None:
    variants, dosage = make_variants(60), random_dosage(4, 60)
    paths = [
        write_vcf(
            tmp_path / f"chr{c}.vcf",
            dosage[:, variants["contig"] == c],
            IDS[:4],
            variants[variants["contig"] == c],
        )
        for c in ("1", "2")
    ]
    found = inspect_files(paths)
    assert found.by_contig == {"1": 30, "2": 30}
    assert run_cli("inspect", *paths, cwd=tmp_path).returncode == 0


def test_command_reads_standard_input(cut: Cut, tmp_path: Path) -> None:
    with cut.few.open("rb") as file:
        process = subprocess.run(
            command("inspect", "-", "--json"),
            cwd=tmp_path,
            env=environment(),
            stdin=file,
            capture_output=True,
            check=True,
        )
    found = strict(process.stdout.decode())
    assert found["source"]["path"] == "standard input"
    assert found["embed"]["message"].startswith("standard input: 10 samples")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere.vcf"], "nowhere.vcf"),
        (["notes.txt"], "no genotype file"),
        (["mine.vcf", "--compare", "far.vcf"], "20 are needed to compare"),
        (["mine.vcf", "--compare", "nowhere.vcf"], "nowhere.vcf"),
        (["mine.vcf", "mine.vcf", "--compare", "notes.txt"], "no genotype file"),
        ([], "FILES"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args: list[str], words: str, tmp_path: Path) -> None:
    write_text(tmp_path / "notes.txt", "hello\n")
    write_vcf(tmp_path / "mine.vcf", random_dosage(3, 30), IDS[:3])
    far = make_variants(30).assign(position=np.arange(30) + 7)
    write_vcf(tmp_path / "far.vcf", random_dosage(3, 30), IDS[:3], far)
    process = run_cli("inspect", *args, "-q", cwd=tmp_path)
    assert process.returncode == 2
    assert not process.stdout
    assert process.stderr.count("\n") == 1
    assert words in process.stderr


def test_header_tells_the_build_of_a_small_file(tmp_path: Path) -> None:
    rows = "".join(f"1\t{1000 + i}\t.\tA\tC\t.\tPASS\t.\tGT\t0/1\n" for i in range(3))
    header = vcf_header(["only"])
    contigs = '##contig=<ID=chr1,length=248956422,assembly="a,b">\n##contig=<ID=x>\n'
    at = header.index("#CHROM")
    path = write_text(tmp_path / "one.vcf", header[:at] + contigs + header[at:] + rows)
    found = inspect_files([path])
    assert found.build.name == GRCH38
    assert "contig lengths" in found.build.evidence


def test_a_frame_of_many_contigs_is_cut_short() -> None:
    variants = make_variants(50).assign(contig=[f"scaffold_{i}" for i in range(50)])
    found = inspect_genotypes(matrix(random_dosage(3, 50), variants=pd.DataFrame(variants)))
    assert len(found.by_contig) == 50
    assert "and 20 more" in found.table()
