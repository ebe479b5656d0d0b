"""Models by name, their cards, and the calls and maps of samples that are placed with one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from cli_helpers import QUICK, run_cli, strict_json
from conftest import POPULATIONS, Cut
from helpers import write_vcf

from ancestry_ddvi import load_model, read_genotypes
from ancestry_ddvi.ancestry import NO_DATA, CallConfig, calls
from ancestry_ddvi.ancestry.effective_sites import effective_sites
from ancestry_ddvi.errors import ModelFileError
from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.pipeline import embed_file
from ancestry_ddvi.reference_models import (
    CROSS_VALIDATED,
    MODELS,
    card,
    card_of,
    card_text,
    figure_table,
    find_model,
    shipped,
)
from ancestry_ddvi.writers import write_genotypes


@pytest.fixture
def new(cut: Cut, tmp_path: Path) -> Path:
    """The ten samples under names of their own, the last without a call."""
    genotypes = read_genotypes(cut.few)
    dosage = genotypes.dosage.copy()
    dosage[9] = MISSING
    ids = [f"new{i}" for i in range(10)]
    return write_vcf(tmp_path / "new.vcf", dosage, ids, genotypes.variants)


def test_a_model_is_found_by_name_or_folder(quick_results: Path) -> None:
    assert find_model(quick_results) == quick_results
    for name in shipped():
        assert find_model(name) == MODELS / name
    with pytest.raises(ModelFileError, match="no such folder, and no model of the package"):
        find_model("atlantis")


def test_a_name_of_the_package_is_no_folder_that_happens_to_be_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = shipped()[0]
    Path(name).mkdir()
    assert find_model(name) == MODELS / name
    for folder in (f"./{name}", Path(name), tmp_path / name):
        assert find_model(folder) == Path(folder)
    for said, code, words in (
        (name, 0, f"model: {name}"),
        (f"./{name}", 2, f"error: {name}: no model here"),
    ):
        done = run_cli("models", "show", said, cwd=tmp_path)
        assert done.returncode == code
        assert (done.stdout + done.stderr).startswith(words)
    done = run_cli("embed", "none.vcf", "--model", f"./{name}", cwd=tmp_path)
    assert done.returncode == 2
    assert "no model here" in done.stderr


def test_the_card_says_what_it_was_trained_on_and_what_it_is_not_for(quick_results: Path) -> None:
    about = card(quick_results)
    assert about["trained on"]["samples"] == 150
    assert set(about["ancestry calls"]["populations"]) == set(POPULATIONS)
    figures = about["ancestry calls"][CROSS_VALIDATED]
    sites = [row["sites"] for row in figures]
    assert sites == sorted(sites)
    # FIN and TSI, CHB, GIH, PEL and YRI: what 2,500 variants tell apart.
    assert figures[-1]["superpopulation accuracy"] > 0.95
    assert figures[-1]["population accuracy"] > 0.8
    assert "none of this model" in about["held-out figures"]
    assert any("Not for deciding about people" in words for words in about["must not be used"])
    assert json.loads(json.dumps(about)) == about
    text = card_text(about)
    assert "TSI 25" in text
    assert "    superpopulation accuracy " in text  # a line of a table
    assert "trained on:\n  file: " in text


def test_a_card_fits_the_terminal(quick_results: Path) -> None:
    figures = {"from": "there", "table": [{"sites": 10**i, "accuracy": 0.5} for i in range(9)]}
    model = load_model(quick_results)
    model = replace(model, provenance=model.provenance | {"held-out figures": figures})
    about = card_of(model, "m")
    about["trained on"] = {"samples": 150}  # a path is not broken
    for columns in (60, 100):
        text = card_text(about, columns)
        assert max(map(len, text.splitlines())) <= columns
        # Every figure, however often the table goes on below itself.
        assert text.count("0.500") == 9
        assert "100,000,000" in text
        # A population and its number stay in one line.
        size = about["ancestry calls"]["populations"]
        assert all(f"{name} {size[name]}" in text for name in POPULATIONS)
        assert " ".join(text.split()).count("Not for deciding about people: no diagnosis") == 1


def test_rows_that_lack_figures_are_shown() -> None:
    rows = [{"sites": 1500, "a": 0.25}, {"sites": 9, "b": 0.5}, {"sites": 3, "a": None}]
    assert figure_table(rows) == [
        ["sites", "1,500", "9", "3"],
        ["a", "0.250", "–", "–"],
        ["b", "–", "0.500", "–"],
    ]
    text = card_text({"of others": [{"x": 1}, "mixed", {}], "of nobody": [], "rows": rows})
    assert "- mixed" in text
    assert "of nobody" not in text
    assert "  a      0.250  –  –" not in text  # values are below each other
    assert "  a      0.250      –      –" in text


def test_new_samples_are_called_and_drawn_on_the_reference(
    cut: Cut, new: Path, quick_results: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    embed_file(new, out_dir=out, model_path=quick_results, config=QUICK, save_draws=True)
    frame = pd.read_csv(out / "ancestry.csv", dtype={"sample_id": str})
    assert frame["sample_id"].tolist() == [f"new{i}" for i in range(10)]
    true = [cut.population[name] for name in cut.sample_id[:9]]
    called = frame[[f"p_{name}" for name in sorted(set(true) | set(POPULATIONS))]][:9]
    assert (called.columns.str[2:].to_numpy()[called.to_numpy().argmax(axis=1)] == true).all()
    assert frame.iloc[9][["population", "superpopulation"]].tolist() == [NO_DATA] * 2
    assert frame.iloc[9].filter(like="p_").isna().all()
    n_sites = len(pd.read_csv(quick_results / "model" / "sites.tsv", sep="\t"))
    assert frame["n_sites"].tolist() == [n_sites] * 9 + [0]
    described = strict_json(out / "run.json")
    matched = described["counts"]["sites of the ancestry calls, by what the file has"]
    assert matched["matched as they are"] == n_sites
    assert {"ancestry.csv", "draws.npz", "model/sites.tsv"} <= set(described["files"])
    with np.load(out / "draws.npz") as file:
        assert file["draws"].shape == (QUICK.n_draws, 10, 2)
        assert file["sample_id"].tolist() == frame["sample_id"].tolist()
        table = pd.read_csv(out / "embedding.csv")
        np.testing.assert_allclose(file["draws"].mean(axis=0)[:, 0], table["z1"], atol=1e-4)
    page = (out / "report.html").read_text("utf-8")
    assert "The 150 faint ones behind are labelled samples of the model" in page
    assert f"<td>{quick_results}" in page.split("<h2>The model</h2>")[1].split("<h2>")[0]
    assert "Not for deciding about people" in page
    drawn = json.loads(page.split('<script id="points" type="application/json">')[1].split("</")[0])
    assert drawn["calls"]["n_sites"] == frame["n_sites"].tolist()
    assert not set(drawn["reference"]) - {"z", "population"}  # no ids
    assert not [name for name in cut.sample_id if f'"{name}"' in page]
    picture = matplotlib.image.imread(out / "map.png")
    # Dots of new samples are black, and the reference is not.
    dark = (picture[..., :3] < 0.2).all(axis=-1).sum()
    assert dark > 500
    assert len(np.unique(picture[::3, ::3, :3].reshape(-1, 3).round(1), axis=0)) > 40


def test_why_samples_get_no_call_is_counted(cut: Cut, quick_results: Path, tmp_path: Path) -> None:
    genotypes = read_genotypes(cut.few)
    dosage = genotypes.dosage.copy()
    dosage[8, 25:] = dosage[9] = MISSING  # fewer sites than anything is called from; no site
    # The first two have no label, so they are in no population that is counted.
    ids = [*cut.sample_id[:5], *(f"new{i}" for i in range(5, 10))]
    path = write_vcf(tmp_path / "new.vcf", dosage, ids, genotypes.variants)
    out = tmp_path / "out"
    embed_file(path, out_dir=out, model_path=quick_results, config=QUICK)
    described = strict_json(out / "run.json")
    assert described["counts"]["samples without an ancestry call"] == {
        "in the reference": 3,
        "no data": 1,
        "too few sites": 1,
    }
    log = (out / "run.log").read_text()
    reasons = "3 in the reference, 1 no data, 1 too few sites"
    assert f"5 samples get no ancestry call: {reasons}\n" in log
    (calls,) = re.findall(r"ancestry calls \(population, .*\): (.*)\n", log)
    assert sum(int(n) for n in re.findall(r"(\d+) ", calls)) == 5
    assert "reference" not in calls.replace("outside reference", "")
    assert "samples without an ancestry call" in (out / "report.html").read_text()


def test_one_sample_is_spoken_of_as_one(cut: Cut, quick_results: Path, tmp_path: Path) -> None:
    genotypes = read_genotypes(cut.few).select(samples=[3])
    said = {}
    for name, sample, step in (("known", cut.sample_id[3], 1), ("few", "new", 20)):
        part = replace(genotypes, sample_id=np.array([sample]))
        (path,) = write_genotypes(
            part.select(variants=np.arange(0, part.n_variants, step)), tmp_path / f"{name}.vcf"
        )
        out = tmp_path / name
        embed_file(path, out_dir=out, model_path=quick_results, config=QUICK)
        page = (out / "report.html").read_text().split('<script id="points"')[0]
        said[name] = (out / "run.log").read_text() + page
        assert "1 sample. Each point is one sample" in page
    assert "1 sample shares an id with samples" in said["known"]
    assert "1 sample gets no ancestry call: 1 in the reference" in said["known"]
    assert "1 sample has fewer than 500 of the" in said["few"]
    assert "1 sample has so few sites" in said["few"]
    for words in said.values():
        assert not re.search(r"\b1 (samples|variants|SNPs|biallelic SNPs)\b", words)


def test_tables_only(new: Path, quick_results: Path, tmp_path: Path) -> None:
    settings = {"model_path": quick_results, "config": QUICK}
    embed_file(new, out_dir=tmp_path / "all", **settings)
    embed_file(new, out_dir=tmp_path / "tables", pictures=False, **settings)
    whole, tables = (
        {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "all", tmp_path / "tables")
    )
    assert whole - tables == {"map.png", "map.pdf", "report.html"}
    for name in ("embedding.csv", "ancestry.csv"):
        assert (tmp_path / "tables" / name).read_bytes() == (tmp_path / "all" / name).read_bytes()


def test_held_out_calls_are_scored(
    cut: Cut, new: Path, quick_results: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.tsv"
    rows = [f"new{i}\t{cut.population[cut.sample_id[i]]}" for i in range(9)]
    labels.write_text("sample\tpop\n" + "\n".join(rows) + "\n")
    out = tmp_path / "out"
    calling = CallConfig(threshold=0.5)
    embed_file(
        new,
        out_dir=out,
        model_path=quick_results,
        config=QUICK,
        labels_path=labels,
        population_column="pop",
        calling=calling,
    )
    metrics = strict_json(out / "metrics.json")
    assert metrics["calls_population"]["accuracy"] == 1
    assert metrics["calls_population"]["n_samples"] == 9
    assert strict_json(out / "run.json")["ancestry calls"]["threshold"] == 0.5


def test_a_model_that_was_given_no_labels_calls_nothing(cut: Cut, tmp_path: Path) -> None:
    embed_file(cut.vcf, out_dir=tmp_path / "ref", config=QUICK)
    assert load_model(tmp_path / "ref").caller is None
    embed_file(cut.few, out_dir=tmp_path / "out", model_path=tmp_path / "ref", config=QUICK)
    assert not (tmp_path / "out" / "ancestry.csv").exists()
    assert "ancestry calls" not in card(tmp_path / "ref")


def test_the_card_of_a_model_that_others_wrote(quick_results: Path) -> None:
    about = card_of(replace(load_model(quick_results), provenance={"input": "x"}), "theirs")
    assert about["trained on"]["file"] is None
    assert about["trained on"]["samples"] == 150


def test_a_run_shows_the_card_where_it_learnt_to_call(quick_results: Path) -> None:
    page = (quick_results / "report.html").read_text("utf-8")
    assert "of this run" in page.split("<h2>The model</h2>")[1].split("<h2>")[0]


def test_the_command_lists_and_shows_models(quick_results: Path, tmp_path: Path) -> None:
    listed = run_cli("models", cwd=tmp_path)
    assert listed.returncode == 0
    for name in shipped():
        assert f"{name}  " in listed.stdout
    shown = run_cli("models", "show", quick_results, cwd=tmp_path)
    assert shown.returncode == 0
    assert "samples: 150" in shown.stdout
    as_json = run_cli("models", "show", quick_results, "--json", cwd=tmp_path)
    assert json.loads(as_json.stdout)["trained on"]["samples"] == 150
    for words in (["models", "show", "atlantis"], ["embed", "a.vcf", "--model", "atlantis"]):
        refused = run_cli(*words, cwd=tmp_path)
        assert refused.returncode == 2
        assert "no model of the package" in refused.stderr
    refused = run_cli("embed", "a.vcf", "--call-threshold", "1.5", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--call-threshold" in refused.stderr


def test_a_run_says_which_calls_are_worth_little(
    cut: Cut, quick_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genotypes = read_genotypes(cut.vcf).select(samples=np.arange(0, 150, 15))
    new = replace(genotypes, sample_id=np.array([f"new{i}" for i in range(10)]))
    # Every allele twice in one sample; few sites in all.
    once = new.dosage.copy()
    once[3][once[3] == 1] = 2
    warnings = {}
    for name, matrix in (
        ("all", new),
        ("haploid", replace(new, dosage=once)),
        ("few", new.select(variants=np.arange(0, new.n_variants, 20))),
        ("linked", new),
        ("alt only", new.select(samples=[0], variants=new.dosage[0] > 0)),
        (
            "alt only of two",
            new.select(samples=[0, 9], variants=new.dosage[[0, 9]].max(axis=0) > 0),
        ),
    ):
        (path,) = write_genotypes(matrix, tmp_path / f"{name}.vcf")
        out = tmp_path / name
        with monkeypatch.context() as patch:
            if name == "linked":  # the sites of the cut lie far apart
                patch.setattr(calls, "effective_sites", lambda *of: effective_sites(*of) / 2)
            embed_file(path, out_dir=out, model_path=quick_results, config=QUICK, pictures=False)
        warnings[name] = "\n".join(strict_json(out / "run.json")["warnings"])
    power = {
        name: pd.read_csv(tmp_path / name / "ancestry.csv")["typicality_power"] for name in warnings
    }
    assert "1 sample has hardly a heterozygous genotype (new3)" in warnings["haploid"]
    assert power["haploid"][3] < power["haploid"][2]
    assert "10 samples have so few sites" in warnings["few"]
    assert (power["few"] < 0.5).all()
    assert (power["all"] > 0.5).all()
    assert "heterozygous" not in warnings["all"] + warnings["few"]
    assert "so few sites" not in warnings["all"]
    assert "10 of the samples are called by sites that are linked" in warnings["linked"]
    assert power["linked"].isna().all()
    assert "linked, of a part" not in warnings["all"] + warnings["few"]
    assert "too few populations" not in "".join(warnings.values())
    for name, said in warnings.items():
        assert ("--absent-is-ref" in said) == name.startswith("alt only")
    # Taken as what they are they are placed as by all.
    out = tmp_path / "again"
    settings = {"model_path": quick_results, "config": QUICK, "pictures": False}
    embed_file(tmp_path / "alt only.vcf", out_dir=out, absent_is_ref=True, **settings)
    assert "of the genotypes without ALT" not in "".join(strict_json(out / "run.json")["warnings"])
