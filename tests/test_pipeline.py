"""The whole story on a small real cut: every file of the contract, and what it must say."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from bed_reader import to_bed
from cli_helpers import QUICK, strict_json, tree
from conftest import Cut
from helpers import spoil_map_phase, write_vcf

from ancestry_ddvi import fit_embedding, load_model, read_genotypes
from ancestry_ddvi.ddvi.model import ModelConfig
from ancestry_ddvi.errors import OptionError, OutputError, TrainingDivergedError
from ancestry_ddvi.fitting import EmbedConfig, training_mask
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix
from ancestry_ddvi.loaders import ReadOptions
from ancestry_ddvi.loaders.lists import read_samples
from ancestry_ddvi.loaders.regions import RegionSet
from ancestry_ddvi.pipeline import embed_file
from ancestry_ddvi.preprocessing.features import FeatureConfig
from ancestry_ddvi.reference_sites import Sites, align, reference_sites

FILES = {
    *("embedding.csv", "covariates.tsv", "map.png", "map.pdf", "report.html", "metrics.json"),
    *("model/model.json", "model/model.safetensors", "model/variants.tsv", "run.json", "run.log"),
    *("model/ancestry.safetensors", "model/sites.tsv"),
}
UNLABELLED = FILES - {"model/ancestry.safetensors", "model/sites.tsv"}
LABELS = ["pop", "super_pop", "gender"]


def table_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "embedding.csv", dtype={"sample_id": str}, keep_default_na=False)


def latent_columns(n_latent: int) -> list[str]:
    axes = range(1, n_latent + 1)
    names = ["sample_id", *(f"z{d}" for d in axes), *(f"z{d}_sd" for d in axes)]
    names += ["cluster", "cluster_probability"]
    names += [f"z{d}_{end}" for d in axes for end in ("low", "high")]
    return [*names, "region_area", "n_modes"]


def check_numbers(frame: pd.DataFrame, n_latent: int = 2) -> None:
    """What holds for every embedding."""
    numbers = frame[latent_columns(n_latent)[1:-2]].to_numpy(float)
    regions = frame[["region_area", "n_modes"]]
    if n_latent > 2:
        assert (regions == "").all(axis=None)
    else:
        assert (regions["region_area"] > 0).all()
        assert (regions["n_modes"] >= 1).all()
        assert (frame["z1_low"] < frame["z1_high"]).all()
    assert np.isfinite(numbers).all()
    assert (frame[[f"z{d + 1}_sd" for d in range(n_latent)]] > 0).all(axis=None)
    assert frame["cluster_probability"].between(0, 1).all()
    assert frame["cluster"].between(1, 30).all()


# The files of one run with labels.


def test_every_file_of_the_contract(quick_results: Path) -> None:
    found = {name for name, data in tree(quick_results).items() if data != b"folder"}
    assert found == FILES
    assert set(strict_json(quick_results / "run.json")["files"]) == FILES
    assert all(data for data in tree(quick_results).values())


def test_embedding_csv(quick_results: Path, cut: Cut) -> None:
    frame = table_of(quick_results)
    assert list(frame.columns) == [*latent_columns(2), *LABELS]
    assert frame["sample_id"].tolist() == cut.sample_id
    check_numbers(frame)


def test_labels_are_joined_by_id(quick_results: Path, cut: Cut) -> None:
    # The panel is shuffled, lacks the first two samples, and has 2,354 others.
    frame = table_of(quick_results)
    expected = ["", "", *(cut.population[i] for i in cut.sample_id[2:])]
    assert frame["pop"].tolist() == expected
    panel = pd.read_csv(cut.panel, sep="\t").set_index("sample")
    assert frame["super_pop"].tolist()[2:] == panel.loc[cut.sample_id[2:], "super_pop"].tolist()


def test_missing_and_extra_labels_are_reported(quick_results: Path, cut: Cut) -> None:
    missing = re.compile(rf"no row for 2 of 150 samples \({cut.sample_id[0]}, {cut.sample_id[1]}\)")
    log = (quick_results / "run.log").read_text()
    assert re.search(r"warning: .*" + missing.pattern, log)
    assert "2,354 rows have no genotypes" in log
    assert missing.search((quick_results / "report.html").read_text())
    run = strict_json(quick_results / "run.json")
    assert [w for w in run["warnings"] if missing.search(w)]
    assert run["counts"]["samples without labels"] == 2
    assert run["counts"]["label rows without genotypes"] == 2354
    assert "label rows without genotypes" in (quick_results / "report.html").read_text()


def test_metrics_json(quick_results: Path) -> None:
    metrics = strict_json(quick_results / "metrics.json")
    assert {"gmm_20_rms_10", "knn_population", "fst_rank_correlation", "model"} <= set(metrics)
    for name, group in metrics.items():
        assert {"data", "scorer", "seed"} <= set(group), name
        assert name == "model" or "in-sample" in group["split"]
    assert metrics["knn_population"]["n_samples"] == 148  # two have no label
    assert metrics["embedding"]["n_samples"] == 150
    assert metrics["model"]["n_in_sample"] == 150
    assert "elbo_held_out" not in metrics["model"]


def test_run_json(quick_results: Path, cut: Cut) -> None:
    run = strict_json(quick_results / "run.json")
    assert run["input"]["sha256"] == hashlib.sha256(cut.vcf.read_bytes()).hexdigest()
    assert run["input"]["path"] == str(cut.vcf)
    parameters = json.loads(json.dumps(asdict(QUICK)))  # tuples are lists there
    assert run["parameters"] == parameters | {"reading": {}, "supervise": None}
    assert run["seed"] == 0
    assert run["libraries"]["torch"]
    assert set(run["seconds"]) == set(run["cpu_seconds"])
    assert list(run["seconds"]) == [
        *("read genotypes", "find relatives", "learn features", "train the model"),
        *("draw from the posterior", "learn ancestry calls", "score the embedding"),
        "write the results",
    ]
    assert all(seconds >= 0 for seconds in run["seconds"].values())
    assert 50 < run["peak_memory_mb"] < 10_000


def test_counts_add_up(quick_results: Path, cut: Cut) -> None:
    counts = strict_json(quick_results / "run.json")["counts"]
    assert counts["samples"] == counts["samples trained on"] == 150
    assert counts["biallelic SNPs read"] == 2500 - sum(counts["records left out"].values())
    filtered = counts["variants filtered"]
    assert counts["biallelic SNPs read"] == sum(filtered.values()) + counts["variants of the map"]
    dosage = read_genotypes(cut.vcf).dosage
    frequency = dosage.mean(axis=0) / 2
    rare = int((np.minimum(frequency, 1 - frequency) < 0.01).sum())
    assert counts["records left out"] == {"MAF below 0.01": rare}
    assert rare > 0


def test_covariates(quick_results: Path, cut: Cut) -> None:
    frame = pd.read_csv(quick_results / "covariates.tsv", sep="\t", dtype={"IID": str})
    assert list(frame.columns[:3]) == ["FID", "IID", "PC1"]
    assert frame["IID"].tolist() == cut.sample_id
    assert np.isfinite(frame.iloc[:, 2:].to_numpy()).all()


def test_pictures_and_page(quick_results: Path) -> None:
    image = matplotlib.image.imread(quick_results / "map.png")
    assert min(image.shape[:2]) > 500
    few = image[::7, ::7].reshape(-1, image.shape[2])
    assert len(np.unique(few, axis=0)) > 50
    pdf = (quick_results / "map.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    page = (quick_results / "report.html").read_text()
    # Self-contained: nothing is fetched. Plotly's source names addresses, so look at tags only.
    assert not re.search(r"<(script|img|link|iframe)[^>]*(src|href)\s*=\s*[\"']?(https?:)?//", page)


# Runs of other kinds.


def run(cut: Cut, tmp_path: Path, vcf: Path | None = None, **settings: Any) -> tuple[Path, Any]:
    """A quick run; its folder and its run.json."""
    out = tmp_path / "out"
    settings.setdefault("config", QUICK)
    embed_file(vcf or cut.vcf, out_dir=out, **settings)
    return out, strict_json(out / "run.json")


def test_without_labels(cut: Cut, tmp_path: Path, quick_results: Path) -> None:
    out, described = run(cut, tmp_path)
    assert list(table_of(out).columns) == latent_columns(2)
    metrics = strict_json(out / "metrics.json")
    assert "silhouette" in metrics["gmm_20_rms_10"]
    assert not [name for name in metrics if "population" in name or "fst" in name]
    assert described["labels"] is None
    assert described["counts"]["samples without labels"] is None
    # Labels colour and score; they must not move a sample.
    pd.testing.assert_frame_equal(table_of(out), table_of(quick_results).drop(columns=LABELS))
    same = ("covariates.tsv", "model/model.safetensors", "model/variants.tsv")
    assert [tree(out)[name] for name in same] == [tree(quick_results)[name] for name in same]
    assert set(described["files"]) == UNLABELLED
    unlabelled, labelled = (strict_json(f / "model" / "model.json") for f in (out, quick_results))
    assert labelled.pop("ancestry")
    assert unlabelled.pop("ancestry") is None
    del labelled["sha256"], unlabelled["sha256"]
    assert unlabelled == labelled


def test_another_seed_and_more_latents(cut: Cut, tmp_path: Path, quick_results: Path) -> None:
    config = replace(QUICK, seed=1, model=ModelConfig(n_latent=3))
    out, described = run(cut, tmp_path, config=config)
    frame = table_of(out)
    assert list(frame.columns) == latent_columns(3)
    check_numbers(frame, 3)
    assert described["seed"] == 1
    assert np.abs(frame["z1"] - table_of(quick_results)["z1"]).max() > 0.01


def test_held_out_samples(cut: Cut, tmp_path: Path) -> None:
    config = replace(QUICK, holdout=0.2)
    out, described = run(cut, tmp_path, config=config, labels_path=cut.panel)
    assert described["counts"]["samples trained on"] == 120
    metrics = strict_json(out / "metrics.json")
    assert 0 <= metrics["held_out_knn_population"]["accuracy"] <= 1
    assert metrics["model"]["n_held_out"] == 30
    assert metrics["model"]["n_in_sample"] == 120
    assert metrics["model"]["split"] == {
        "elbo_in_sample": "in-sample",
        "elbo_held_out": "held-out",
    }
    assert metrics["embedding"]["n_samples"] == 120


def test_nothing_is_learnt_from_held_out_samples(cut: Cut) -> None:
    genotypes = read_genotypes(cut.vcf)
    config = replace(QUICK, holdout=0.2)
    fitted = fit_embedding(genotypes, config)
    hidden = ~fitted.trained_on
    spoilt = genotypes.dosage.copy()
    spoilt[hidden] = 2 - spoilt[hidden]
    other = fit_embedding(GenotypeMatrix(spoilt, genotypes.sample_id, genotypes.variants), config)
    np.testing.assert_array_equal(fitted.table.z[~hidden], other.table.z[~hidden])
    assert np.abs(fitted.table.z[hidden] - other.table.z[hidden]).max() > 0.1
    # And they are placed as a model that is loaded later would place them.
    alone = fitted.model.extractor.transform(genotypes.select(samples=hidden))
    np.testing.assert_allclose(alone.x, fitted.features.x[hidden], rtol=1e-4, atol=1e-5)


def test_even_a_tiny_share_holds_somebody_out(cut: Cut) -> None:
    fitted = fit_embedding(read_genotypes(cut.vcf), replace(QUICK, holdout=0.001))
    assert (~fitted.trained_on).sum() == 1


def rewritten(cut: Cut, path: Path, names: dict[int, str], **changes: Any) -> Path:
    """The ten samples in a file of their own, some under other names."""
    genotypes = read_genotypes(cut.few)
    ids = [names.get(i, name) for i, name in enumerate(genotypes.sample_id)]
    dosage = changes.get("dosage", genotypes.dosage)
    return write_vcf(path, dosage, ids, changes.get("variants", genotypes.variants))


NEW = {i: f"new{i}" for i in range(10)}


def test_placing_new_samples(cut: Cut, tmp_path: Path, quick_results: Path) -> None:
    vcf = rewritten(cut, tmp_path / "new.vcf", NEW)
    out, described = run(cut, tmp_path, vcf=vcf, model_path=quick_results)
    frame = table_of(out)
    assert frame["sample_id"].tolist() == list(NEW.values())
    assert not [w for w in described["warnings"] if "share an id" in w]
    check_numbers(frame)
    assert described["counts"]["samples trained on"] == 0
    assert described["training"] is None
    # Settings of a training that did not happen would mislead.
    assert described["parameters"] == {
        **{"n_draws": 50, "seed": 0},
        "absent_is_ref": False,
        "reading": {},
    }
    assert described["model"]["config"]["training"]["map_steps"] == 60
    metrics = strict_json(out / "metrics.json")
    assert metrics["embedding"]["split"].startswith("held-out")
    assert metrics["model"]["n_held_out"] == 10
    weights = "model/model.safetensors"
    assert tree(out)[weights] == tree(quick_results)[weights]


def test_samples_of_the_training_are_no_held_out_ones(
    cut: Cut, tmp_path: Path, quick_results: Path
) -> None:
    some_new = {i: NEW[i] for i in range(4)}
    vcf = rewritten(cut, tmp_path / "some.vcf", some_new)
    out, described = run(cut, tmp_path, vcf=vcf, model_path=quick_results, labels_path=cut.panel)
    metrics = strict_json(out / "metrics.json")
    assert metrics["model"]["n_held_out"] == metrics["embedding"]["n_samples"] == 4
    assert "n_in_sample" not in metrics["model"]
    assert metrics["embedding"]["split"].startswith("held-out")
    assert described["counts"]["samples not scored"]["known to the model"] == 6
    (warning,) = (w for w in described["warnings"] if "share an id" in w)
    assert warning.startswith("6 samples share an id with samples the model was trained on (")
    assert "left out of the metrics; give other people other ids" in warning
    assert ", ".join(cut.sample_id[4:9]) + ", and 1 more" in warning
    assert warning in (out / "run.log").read_text()


def test_a_file_of_training_samples_is_scored_in_sample(
    cut: Cut, tmp_path: Path, quick_results: Path
) -> None:
    out, described = run(cut, tmp_path, vcf=cut.few, model_path=quick_results)
    metrics = strict_json(out / "metrics.json")
    assert metrics["model"]["n_in_sample"] == metrics["embedding"]["n_samples"] == 10
    assert metrics["embedding"]["split"].startswith("in-sample")
    assert any("scored as in-sample" in warning for warning in described["warnings"])


def test_only_samples_that_were_learnt_from_are_remembered(cut: Cut) -> None:
    fitted = fit_embedding(read_genotypes(cut.vcf), replace(QUICK, holdout=0.2))
    known = fitted.model.was_trained_on(fitted.table.sample_id)
    np.testing.assert_array_equal(known, fitted.trained_on)
    assert known.sum() == 120


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_what_a_file_has_of_the_models_variants_is_reported(
    cut: Cut, tmp_path: Path, quick_results: Path, share: float
) -> None:
    used = load_model(quick_results).extractor.variants
    n_found = round(share * len(used))
    genotypes = read_genotypes(cut.few)
    site = ["contig", "position", "ref", "alt"]
    wanted = pd.MultiIndex.from_frame(used[site][:n_found])
    found = pd.MultiIndex.from_frame(genotypes.variants[site]).isin(wanted)
    assert found.sum() == n_found
    genotypes = genotypes.select(variants=found)
    swap = np.arange(n_found) < 30
    ref, alt = genotypes.variants["ref"], genotypes.variants["alt"]
    variants = genotypes.variants.assign(ref=ref.where(~swap, alt), alt=alt.where(~swap, ref))
    dosage = np.where(swap & (genotypes.dosage >= 0), 2 - genotypes.dosage, genotypes.dosage)
    vcf = rewritten(cut, tmp_path / "new.vcf", NEW, dosage=dosage, variants=variants)
    out, described = run(cut, tmp_path, vcf=vcf, model_path=quick_results)
    counts = described["counts"]
    assert counts["variants of the map"] == len(used)
    stand = counts["variants of the map, by what the file has"]
    assert stand["matched as they are"] == n_found - 30
    assert stand["with swapped alleles"] == 30
    assert stand["absent"] == len(used) - n_found
    assert described["positions translated to"] is None
    # The calls have more sites than the map has variants, and a name of their own.
    sites = counts["sites of the ancestry calls, by what the file has"]
    n_sites = counts["sites of the ancestry calls"]
    assert n_sites == sites["matched as they are"] + sites["absent"] + 30 > len(used)
    log, page = (out / "run.log").read_text(), (out / "report.html").read_text()
    for name, n, found in (
        ("variants of the map", len(used), stand),
        ("sites of the ancestry calls", n_sites, sites),
    ):
        as_they_are = f"{found['matched as they are']:,} matched as they are"
        assert f"{n:,} {name}: {as_they_are}, 30 with swapped alleles, " in log
        assert f"<tr><th>{name}</th><td>{n}" in page
        assert f"<tr><th>{name}, by what the file has</th>" in page
    data = strict_json(out / "metrics.json")["embedding"]["data"]
    assert data == f"new.vcf: 10 samples, {n_found:,} variants"
    words = rf"new.vcf: only {n_found:,} of the {len(used):,} variants of the map \(40%\) are in"
    assert bool([w for w in described["warnings"] if re.search(words, w)]) == (share < 0.5)
    assert bool([w for w in described["warnings"] if ": only " in w]) == (share < 0.5)


def test_a_file_of_the_other_build_and_strand_is_placed_as_it_would_be_on_the_models(
    cut: Cut, tmp_path: Path, quick_results: Path
) -> None:
    genotypes = read_genotypes(cut.few)
    sites = reference_sites()
    at = align(sites.at("GRCh37"), Sites.of(genotypes.variants)).column
    moved = sites.position["GRCh38"][at]
    assert (at >= 0).all()
    genotypes = genotypes.select(variants=moved > 0)
    variants = genotypes.variants
    plain = ~(variants["ref"] + variants["alt"]).isin(["AT", "TA", "CG", "GC"]).to_numpy()
    genotypes, variants = genotypes.select(variants=plain), variants[plain]
    other = variants.assign(position=moved[moved > 0][plain])
    for column in ("ref", "alt"):
        other[column] = other[column].map(dict(zip("ACGT", "TGCA", strict=True)))
    tables = []
    for name, table in (("same", variants), ("other", other)):
        # A VCF is sorted, and lift-over does not keep the order everywhere.
        order = np.lexsort((table["position"], table["contig"].astype(int)))
        folder = tmp_path / name
        folder.mkdir()
        vcf = rewritten(
            cut,
            folder / "new.vcf",
            NEW,
            dosage=genotypes.dosage[:, order],
            variants=table.iloc[order].reset_index(drop=True),
        )
        out, described = run(cut, folder, vcf=vcf, model_path=quick_results)
        translated = None if name == "same" else "GRCh38"
        assert described["positions translated to"] == translated
        build = translated or "GRCh37"
        assert described["genome build"] == {"file": build, "model": "GRCh37"}
        beside = "as the model's" if name == "same" else "and the model's of GRCh37"
        said = f"new.vcf: positions are those of {build}, {beside}"
        assert said in (out / "run.log").read_text()
        tables.append(table_of(out))
    counts = described["counts"]["variants of the map, by what the file has"]
    assert counts["on the other strand"] > 100
    assert counts["matched as they are"] == 0
    pd.testing.assert_frame_equal(*tables)


def called_variants(cut: Cut, path: Path, *, without: tuple[str, ...] = ()) -> tuple[Path, Path]:
    """One new sample as a caller of whole genomes writes it, and the same with all its records.

    The former has records where the sample is not homozygous for REF; some of them have a further
    ALT allele, and one of them comes twice, first without a call.
    """
    genotypes = read_genotypes(cut.few).select(samples=np.array([3]))
    contig = genotypes.variants["contig"]
    genotypes = genotypes.select(variants=~contig.isin(without).to_numpy())
    variants, dosage = genotypes.variants, genotypes.dosage
    whole = write_vcf(path / "whole.vcf", dosage, ["new"], variants)
    there = dosage[0] > 0
    assert 100 < there.sum() < 0.5 * len(there)
    variants, dosage = variants[there].reset_index(drop=True), dosage[:, there]
    third = [next(b for b in "ACGT" if b not in pair) for pair in variants["ref"] + variants["alt"]]
    more = np.arange(len(variants)) % 3 == 0
    variants["alt"] = variants["alt"].where(~more, variants["alt"] + "," + np.array(third))
    variants = pd.concat([variants[:1], variants])
    dosage = np.hstack([np.full((1, 1), MISSING, dtype=np.int8), dosage])
    return whole, write_vcf(path / "new.vcf", dosage, ["new"], variants)


def test_absent_variants_may_be_homozygous_ones(
    cut: Cut, tmp_path: Path, quick_results: Path
) -> None:
    whole, called = called_variants(cut, tmp_path)
    settings = {"model_path": quick_results, "absent_is_ref": True}
    # A gVCF that has looked at nothing else.
    header, _, records = called.read_text().partition("\tnew\n")
    uncalled = "{}\t1\t.\tA\t<NON_REF>\t.\t.\tEND=300000000\tGT\t./.\n"
    blocks = "".join(map(uncalled.format, {line.split("\t")[0] for line in records.splitlines()}))
    gvcf = tmp_path / "new.g.vcf"
    gvcf.write_text(f"{header}\tnew\n{blocks}{records}")
    # One that has looked at a part of the genome.
    contigs = load_model(quick_results).extractor.variants["contig"].unique()
    targets = ReadOptions(regions=RegionSet.parse([f"{c}:1-60,000,000" for c in contigs]))
    tables, runs = {}, {}
    for name, vcf, more in (
        ("whole", whole, {"absent_is_ref": False}),
        ("called", called, {}),
        ("missing", called, {"absent_is_ref": False}),
        ("uncalled", gvcf, {}),
        ("skipped", called, {"reading": ReadOptions(multiallelic="skip")}),
        ("exome", called, {"reading": targets}),
        ("exome, whole", whole, {"reading": targets, "absent_is_ref": False}),
    ):
        folder = tmp_path / name
        folder.mkdir()
        out, runs[name] = run(cut, folder, vcf=vcf, **(settings | more))
        tables[name] = [pd.read_csv(out / f) for f in ("embedding.csv", "ancestry.csv")]
    same = ("whole", "called"), ("missing", "uncalled"), ("exome, whole", "exome")
    for name, other in same:
        for one, two in zip(tables[name], tables[other], strict=True):
            pd.testing.assert_frame_equal(one, two)
    # Controls: without them the sample, of which only ALT is seen, lands elsewhere; and what was
    # left out is not absent.
    z = {name: table[["z1", "z2"]].to_numpy()[0] for name, (table, _) in tables.items()}
    sd = tables["whole"][0][["z1_sd", "z2_sd"]].to_numpy()[0]
    assert np.abs((z["missing"] - z["whole"]) / sd).max() > 1
    n_sites = {name: table["n_sites"][0] for name, (_, table) in tables.items()}
    assert n_sites["missing"] < 0.5 * n_sites["whole"]
    assert n_sites["missing"] < n_sites["skipped"] < n_sites["whole"]
    assert n_sites["exome"] < 0.9 * n_sites["whole"]
    stand = "variants of the map, by what the file has"
    counts = {name: described["counts"][stand] for name, described in runs.items()}
    filled, repeated = list(counts["called"])[-2:]
    assert (filled, repeated.split(" (")[0]) == (
        "absent, taken as homozygous for REF",
        "of those matched, there more than once",
    )
    assert counts["called"][filled] == counts["missing"]["absent"] > 100
    assert counts["called"]["absent"] == counts["missing"][filled] == 0
    sites = runs["called"]["counts"]["sites of the ancestry calls, by what the file has"]
    assert sites[repeated] == 1
    assert runs["called"]["parameters"]["absent_is_ref"]
    assert not runs["missing"]["parameters"]["absent_is_ref"]
    assert not [w for w in runs["called"]["warnings"] if "absent-is-ref" in w]


def test_what_speaks_against_homozygous_ones_is_said(
    cut: Cut, tmp_path: Path, quick_results: Path
) -> None:
    contigs = list(dict.fromkeys(load_model(quick_results).extractor.variants["contig"]))
    _, called = called_variants(cut, tmp_path, without=tuple(contigs[1:]))
    lines = called.read_text().splitlines(keepends=True)
    # A panel of one chromosome, and REF and ALT of another tool.
    few = [line for line in lines if line.startswith("#")] + lines[-60:]
    for i, line in enumerate(few[-60:]):
        fields = line.split("\t")
        fields[3:5] = fields[4].split(",")[0], fields[3]
        few[i - 60] = "\t".join(fields)
    vcf = tmp_path / "few.vcf"
    vcf.write_text("".join(few))
    out, described = run(cut, tmp_path, vcf=vcf, model_path=quick_results, absent_is_ref=True)
    unseen, swapped = (
        next(w for w in described["warnings"] if words in w)
        for words in ("no record on contig", "are swapped at")
    )
    assert ", ".join(contigs[1:4]) in unseen
    assert "stay missing" in unseen
    assert "leave the option out" in swapped
    stand = described["counts"]["variants of the map, by what the file has"]
    variants = load_model(quick_results).extractor.variants
    assert stand["absent"] == (variants["contig"] != contigs[0]).sum()
    assert pd.read_csv(out / "ancestry.csv")["n_sites"][0] < 0.5 * len(variants)


@pytest.mark.parametrize("with_model", [False, True])
def test_ids_that_no_gwas_tool_reads_cost_the_covariates_only(
    cut: Cut, tmp_path: Path, quick_results: Path, with_model: bool
) -> None:
    genotypes = read_genotypes(cut.vcf)
    ids = [*genotypes.sample_id[:2], "two words", "0", *genotypes.sample_id[4:]]
    vcf = write_vcf(tmp_path / "ids.vcf", genotypes.dosage, ids, genotypes.variants)
    settings = {"model_path": quick_results} if with_model else {}
    out, described = run(cut, tmp_path, vcf=vcf, **settings)
    files = FILES | {"ancestry.csv"} if with_model else UNLABELLED
    assert set(described["files"]) == files - {"covariates.tsv"}
    assert not (out / "covariates.tsv").exists()
    assert table_of(out)["sample_id"].tolist() == ids
    (warning,) = (w for w in described["warnings"] if "covariates.tsv" in w)
    assert warning.startswith(
        f"covariates.tsv is left out: {vcf}: sample id 'two words' holds whitespace"
    )
    assert "bcftools reheader" in warning
    assert "sample id &#39;two words&#39; holds whitespace" in (out / "report.html").read_text()
    log = (out / "run.log").read_text()
    # Whoever watches can mend it before the training has cost anything.
    assert log.index(warning) < log.index("place the samples" if with_model else "learn features")


def test_a_sample_is_placed_alike_in_any_company(cut: Cut, quick_results: Path) -> None:
    model, genotypes = load_model(quick_results), read_genotypes(cut.vcf)
    together = model.embed(genotypes, n_draws=400)
    few = model.embed(genotypes.select(samples=np.arange(10)), n_draws=400)
    # Draws may be others, so two means differ by sqrt(2) standard errors; 5 of these are plenty.
    tolerance = 5 * np.sqrt(2 / 400) * together.z_sd[:10]
    assert (np.abs(few.z - together.z[:10]) <= tolerance).all()
    np.testing.assert_allclose(few.pcs, together.pcs[:10], rtol=1e-4, atol=1e-5)


def test_a_sample_without_a_call_is_kept_and_named(cut: Cut, tmp_path: Path) -> None:
    genotypes = read_genotypes(cut.vcf)
    dosage = genotypes.dosage.copy()
    dosage[3] = MISSING
    dosage[5, ::5] = MISSING
    vcf = write_vcf(tmp_path / "gaps.vcf", dosage, genotypes.sample_id, genotypes.variants)
    out, described = run(cut, tmp_path, vcf=vcf, labels_path=cut.panel)
    frame = table_of(out)
    check_numbers(frame)
    assert frame["z1_sd"][3] > 2 * frame["z1_sd"].median()
    # Neither asked to be held out nor learnt from: no score rests on them.
    metrics = strict_json(out / "metrics.json")
    assert metrics["model"]["n_in_sample"] == metrics["embedding"]["n_samples"] == 148
    assert "n_held_out" not in metrics["model"]
    assert not [name for name in metrics if name.startswith("held_out")]
    assert described["counts"]["samples not scored"] == {
        "no called genotype": 1,
        "close relative": 0,
        "low call rate": 1,
    }
    warnings = "\n".join(described["warnings"])
    assert "1 sample has no called genotype at the variants of the map" in warnings
    assert "2 samples have a call rate below 0.9" in warnings
    assert cut.sample_id[3] in warnings
    assert cut.sample_id[3] in (out / "report.html").read_text()
    assert described["counts"]["samples trained on"] == 148


def test_a_low_call_rate_does_not_hold_out(cut: Cut) -> None:
    genotypes = read_genotypes(cut.vcf)
    dosage = genotypes.dosage.copy()
    dosage[:5, ::5] = MISSING
    spoilt = GenotypeMatrix(dosage, genotypes.sample_id, genotypes.variants)
    fitted = fit_embedding(spoilt, replace(QUICK, holdout=0.2))
    assert fitted.held_out.sum() == 30
    assert not (fitted.held_out & fitted.trained_on).any()
    neither = np.flatnonzero(~fitted.held_out & ~fitted.trained_on)
    assert len(neither) > 0
    assert set(neither) <= set(range(5))
    assert not fit_embedding(spoilt, QUICK).held_out.any()


def test_samples_without_a_call_have_no_score(
    cut: Cut, tmp_path: Path, quick_results: Path
) -> None:
    dosage = read_genotypes(cut.few).dosage.copy()
    dosage[:] = MISSING
    vcf = rewritten(cut, tmp_path / "new.vcf", NEW, dosage=dosage)
    out, described = run(cut, tmp_path, vcf=vcf, model_path=quick_results)
    check_numbers(table_of(out))
    metrics = strict_json(out / "metrics.json")
    assert set(metrics) == {"model"}
    assert not [name for name in metrics["model"] if "elbo" in name]
    assert described["counts"]["samples not scored"]["no called genotype"] == 10


def test_a_label_column_may_be_named_as_one_of_ours(cut: Cut, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    rows = [f"{s},{cut.population[s]},x{i % 3},y{i % 2},v" for i, s in enumerate(cut.sample_id)]
    header = "iid,z1,cluster,label_cluster,sample_id"
    labels.write_text("\n".join([header, *rows]) + "\n")
    out, _ = run(cut, tmp_path, labels_path=labels, id_column="iid")
    frame = table_of(out)
    ours = ["label_z1", "label_label_cluster", "label_cluster", "label_sample_id"]
    assert list(frame.columns) == [*latent_columns(2), *ours]
    assert frame["label_z1"].tolist() == [cut.population[s] for s in cut.sample_id]
    assert frame["label_label_cluster"].tolist()[:4] == ["x0", "x1", "x2", "x0"]
    assert frame["label_cluster"].tolist()[:4] == ["y0", "y1", "y0", "y1"]


def test_family_ids_of_a_plink_set_are_kept(cut: Cut, tmp_path: Path) -> None:
    genotypes = read_genotypes(cut.vcf)
    prefix = tmp_path / "set.v1"
    values = np.where(genotypes.dosage == MISSING, np.int8(-127), genotypes.dosage)
    families = [f"fam{i % 7}" for i in range(genotypes.n_samples)]
    properties = {
        "fid": families,
        "iid": genotypes.sample_id,
        "chromosome": genotypes.variants["contig"].to_list(),
        "bp_position": genotypes.variants["position"].to_list(),
        "allele_1": genotypes.variants["alt"].to_list(),
        "allele_2": genotypes.variants["ref"].to_list(),
    }
    to_bed(f"{prefix}.bed", values, properties=properties, num_threads=1)
    out, described = run(cut, tmp_path, vcf=prefix)
    covariates = pd.read_csv(out / "covariates.tsv", sep="\t", dtype=str)
    assert covariates["FID"].tolist() == families
    assert covariates["IID"].tolist() == genotypes.sample_id.tolist()
    assert described["input"]["format"] == "PLINK 1"
    Path(f"{prefix}.fam").write_text(Path(f"{prefix}.fam").read_text().replace("fam3", "#3"))
    marked, described = run(cut, tmp_path / "marked", vcf=prefix)
    assert not (marked / "covariates.tsv").exists()
    assert any("family id '#3' opens with #" in warning for warning in described["warnings"])
    from_vcf, _ = run(cut, tmp_path / "vcf")
    assert (out / "embedding.csv").read_bytes() == (from_vcf / "embedding.csv").read_bytes()


def test_the_columns_of_the_labels_are_said(cut: Cut, tmp_path: Path) -> None:
    out, described = run(cut, tmp_path, labels_path=cut.panel, population_column="super_pop")
    labels = described["labels"]
    assert labels["columns"] == {"population": "super_pop", "superpopulation": None}
    assert labels["sha256"] == hashlib.sha256(cut.panel.read_bytes()).hexdigest()
    metrics = strict_json(out / "metrics.json")
    assert metrics["knn_population"]["data"].endswith("population = column 'super_pop'")
    assert (
        metrics["knn_population"]["n_labels"]
        == table_of(out)["super_pop"].replace("", None).nunique()
    )
    assert "population = column 'super_pop'" in (out / "run.log").read_text()


@pytest.mark.parametrize("option", ["id_column", "population_column", "superpopulation_column"])
def test_a_label_column_without_labels(cut: Cut, tmp_path: Path, option: str) -> None:
    with pytest.raises(OptionError, match="give --labels"):
        run(cut, tmp_path, **{option: "pop"})
    assert not (tmp_path / "out").exists()


def test_labels_without_a_level_score_nothing(cut: Cut, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("sample,age\n" + "".join(f"{s},{i}\n" for i, s in enumerate(cut.sample_id)))
    out, described = run(cut, tmp_path, labels_path=labels)
    assert any("--population-column" in warning for warning in described["warnings"])
    assert not [name for name in strict_json(out / "metrics.json") if "population" in name]


def test_a_folder_name_need_not_be_unicode(cut: Cut, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    panel = folder / "panel.tsv"
    panel.write_bytes(cut.panel.read_bytes())
    out = folder / "out"
    embed_file(cut.vcf, out_dir=out, labels_path=panel, config=QUICK)
    assert strict_json(out / "run.json")["labels"]["path"] == str(panel)


def test_a_failure_while_writing_leaves_the_old_results(
    cut: Cut, quick_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(quick_results.parent)

    def full(*args: Any, **settings: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ancestry_ddvi.pipeline.EmbeddingModel.save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        embed_file(cut.vcf, out_dir=quick_results, config=QUICK, force=True)
    assert tree(quick_results.parent) == before


def test_a_diverged_training_leaves_its_last_good_model_beside_the_folder(
    cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_map_phase(monkeypatch, "reconstruction", 8)
    for _ in range(2):  # the second time in the place of what the first left
        with pytest.raises(TrainingDivergedError) as error:
            run(cut, tmp_path)
        assert re.search(r"step 8, epoch \d+, of the map phase \(term: recon", str(error.value))
        assert str(tmp_path / "out.diverged" / "model") in str(error.value)
        assert [path.name for path in tmp_path.iterdir()] == ["out.diverged"]
    out, _ = run(cut, tmp_path, model_path=tmp_path / "out.diverged" / "model")
    check_numbers(table_of(out))


# Settings.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"holdout": 1.0}, "--holdout"),
        ({"holdout": -0.1}, "--holdout"),
        ({"holdout": float("nan")}, "--holdout"),
        ({"n_draws": 1}, "--draws"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**31}, "--seed"),
        ({"model": ModelConfig(n_latent=21)}, "--n-latent 21 is more than the 20 principal"),
        ({"features": FeatureConfig(n_pcs=1)}, "--n-latent 2 is more than the 1 principal"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        EmbedConfig(**settings)


# Relatives, filters and models in the reading.


def with_a_copy(cut: Cut, path: Path) -> Path:
    """The cut with its fourth sample once more, under another id."""
    genotypes = read_genotypes(cut.vcf)
    dosage = np.vstack([genotypes.dosage, genotypes.dosage[3]])
    return write_vcf(path, dosage, [*genotypes.sample_id, "again"], genotypes.variants)


def test_a_sample_given_twice_is_named_and_learnt_from_once(cut: Cut, tmp_path: Path) -> None:
    out, described = run(cut, tmp_path, vcf=with_a_copy(cut, tmp_path / "twice.vcf"))
    (warning,) = (w for w in described["warnings"] if "duplicate or twin" in w)
    assert warning.startswith(f"{cut.sample_id[3]} and again: ")
    # 1,876 common variants do not tell second degree.
    assert [w for w in described["warnings"] if "tell relatives only from kinship" in w]
    relatives = described["relatives"]
    assert relatives["pairs"][0] == [cut.sample_id[3], "again", 0.5]
    assert relatives["left_out"] == ["again"]
    assert described["counts"]["samples trained on"] == 150
    assert described["counts"]["samples not scored"]["close relative"] == 1
    frame = table_of(out).set_index("sample_id")
    assert len(frame) == 151
    # Placed afterwards, and near its copy: nothing else is so close to where it belongs.
    place = frame.loc["again", ["z1", "z2"]].to_numpy(float)
    others = frame.drop(index="again")[["z1", "z2"]].to_numpy(float)
    distance = np.linalg.norm(others - place, axis=1)
    assert np.argsort(distance).tolist().index(3) < 15


def test_relatives_may_be_learnt_from(cut: Cut, tmp_path: Path) -> None:
    config = replace(QUICK, max_kinship=1.0)
    vcf = with_a_copy(cut, tmp_path / "twice.vcf")
    _, described = run(cut, tmp_path, vcf=vcf, config=config)
    assert described["relatives"] is None
    assert described["counts"]["samples trained on"] == 151
    with pytest.raises(OptionError, match="--max-kinship"):
        replace(QUICK, max_kinship=0)


def test_a_relative_that_is_held_out_leaves_nobody_out(cut: Cut, tmp_path: Path) -> None:
    vcf = with_a_copy(cut, tmp_path / "twice.vcf")
    for seed in range(20):
        config = replace(QUICK, holdout=0.3, seed=seed)
        mask = training_mask(151, config, "x")
        if mask[3] != mask[150]:
            break
    fitted = fit_embedding(read_genotypes(vcf), config)
    assert fitted.relatives is not None
    assert len(fitted.relatives.pairs.kinship) == 1
    assert not fitted.relatives.left_out.any()
    np.testing.assert_array_equal(fitted.trained_on, mask)
    # Its score would flatter: it is in neither split.
    held_out = ~mask
    held_out[150 if mask[3] else 3] = False
    np.testing.assert_array_equal(fitted.held_out, held_out)


def test_rare_variants_are_judged_by_the_samples_learnt_from(cut: Cut, tmp_path: Path) -> None:
    """A variant that only held-out samples carry is not held, whatever its frequency in all."""
    config = replace(QUICK, holdout=0.3)
    held_out = np.flatnonzero(~training_mask(150, config, "x"))
    genotypes = read_genotypes(cut.vcf)
    dosage = genotypes.dosage.copy()
    dosage[:, 7] = 0
    dosage[held_out, 7] = 2
    vcf = write_vcf(tmp_path / "x.vcf", dosage, genotypes.sample_id, genotypes.variants)
    run(cut, tmp_path, vcf=vcf, config=config)
    variants = pd.read_csv(tmp_path / "out" / "model" / "variants.tsv", sep="\t")
    assert genotypes.variants["position"][7] not in set(variants["position"])


def test_the_options_of_reading_are_recorded(cut: Cut, tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("\n".join(cut.sample_id[:100]))
    reading = ReadOptions(keep=read_samples(tmp_path / "keep"), half_calls="haploid", hwe=1e-6)
    out, described = run(cut, tmp_path, reading=reading)
    assert described["counts"]["samples"] == 100
    assert described["parameters"]["reading"] == {
        "keep": {"path": str(tmp_path / "keep"), "entries": 100},
        "half_calls": "haploid",
        "hwe": 1e-6,
    }
    assert table_of(out)["sample_id"].tolist() == cut.sample_id[:100]


def test_several_files_are_one_run(cut: Cut, tmp_path: Path, quick_results: Path) -> None:
    genotypes = read_genotypes(cut.vcf)
    parts = np.array_split(np.arange(genotypes.n_variants), 3)
    paths = []
    for number, part in enumerate(parts):
        some = genotypes.select(variants=part)
        path = tmp_path / f"part{number}.vcf"
        paths.append(write_vcf(path, some.dosage, some.sample_id, some.variants))
    out = tmp_path / "out"
    embed_file(paths, out_dir=out, config=QUICK)
    assert (out / "embedding.csv").read_bytes() != b""
    columns = list(table_of(out).columns)
    pd.testing.assert_frame_equal(table_of(out), table_of(quick_results)[columns])
