"""The reference model of the package, `1kg`, on files as others write them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_helpers import run_cli
from conftest import DATA
from helpers import write_vcf

from ancestry_ddvi import EmbeddingTable, load_model, read_genotypes
from ancestry_ddvi.ancestry import AncestryCalls
from ancestry_ddvi.checkpoint import EmbeddingModel
from ancestry_ddvi.errors import NotEnoughDataError
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix
from ancestry_ddvi.reference_models import MODELS, card, shipped
from ancestry_ddvi.reference_sites import BASES, reference_sites

N = 60
"""Samples, of all populations: the model has learnt from them, but for its calls they are new."""


@cache
def model() -> EmbeddingModel:
    return load_model(MODELS / "1kg")


@cache
def samples() -> tuple[GenotypeMatrix, pd.DataFrame]:
    """Every 42nd sample under a name of its own, with its labels."""
    genotypes = read_genotypes(DATA / "1kg_phase3_24k.vcf.gz")
    rows = np.arange(0, genotypes.n_samples, genotypes.n_samples // N)[:N]
    panel = pd.read_csv(DATA / "1kg_phase3.panel.tsv", sep="\t", index_col="sample")
    labels = panel.loc[genotypes.sample_id[rows]]
    few = genotypes.select(samples=rows)
    return replace(few, sample_id=np.array([f"new{i}" for i in range(N)])), labels


@cache
def placed() -> tuple[EmbeddingTable, AncestryCalls]:
    genotypes, _ = samples()
    return embedded(genotypes)


def embedded(genotypes: GenotypeMatrix) -> tuple[EmbeddingTable, AncestryCalls]:
    caller = model().caller
    assert caller is not None
    return model().embed(genotypes, n_draws=100), caller.call(genotypes)


def on_grch38(genotypes: GenotypeMatrix) -> GenotypeMatrix:
    """The same at GRCh38 positions, names with `chr`; sites that are not there are left out."""
    sites = reference_sites()
    place = {
        (contig, old): new
        for contig, old, new in zip(
            sites.contig, sites.position["GRCh37"], sites.position["GRCh38"], strict=True
        )
    }
    variants = genotypes.variants.copy()
    at = zip(variants["contig"].astype(str), variants["position"], strict=True)
    variants["position"] = [place.get(key, 0) for key in at]
    variants["contig"] = "chr" + variants["contig"].astype(str)
    kept = variants["position"].to_numpy() > 0
    moved = genotypes.select(variants=kept)
    return replace(moved, variants=variants[kept].reset_index(drop=True))


def on_the_other_strand(genotypes: GenotypeMatrix) -> GenotypeMatrix:
    other = dict(zip(BASES, reversed(BASES), strict=True))
    variants = genotypes.variants.copy()
    for allele in ("ref", "alt"):
        variants[allele] = variants[allele].map(other)
    return replace(genotypes, variants=variants)


def swapped(genotypes: GenotypeMatrix) -> GenotypeMatrix:
    variants = genotypes.variants.rename(columns={"ref": "alt", "alt": "ref"})
    dosage = np.where(genotypes.dosage == MISSING, MISSING, 2 - genotypes.dosage)
    return replace(genotypes, variants=variants, dosage=np.asfortranarray(dosage.astype(np.int8)))


def distances(first: EmbeddingTable, second: EmbeddingTable) -> np.ndarray:
    """(n,) on the map, in mean standard deviations of a place."""
    apart: np.ndarray = np.linalg.norm(first.z - second.z, axis=1) / first.z_sd.mean()
    return apart


def test_it_is_there_small_and_names_no_machine() -> None:
    assert "1kg" in shipped()
    files = list((MODELS / "1kg").iterdir())
    assert sum(path.stat().st_size for path in files) < 8e6
    about = card("1kg")
    assert about["trained on"]["file"] == "data/1kg_phase3_24k.vcf.gz"
    assert about["trained on"]["samples"] == 2490
    assert sum(about["ancestry calls"]["populations"].values()) == 2490
    assert len(about["ancestry calls"]["populations"]) == 26
    rows = about["held-out figures"]["table"]
    assert [row["sites"] for row in rows] == [23770, 2377, 238, 128]
    assert rows[0]["superpopulation accuracy"] > 0.99
    assert "Not for deciding about people" in about["must not be used"][0]


def test_its_own_samples_are_where_they_belong() -> None:
    _, labels = samples()
    table, calls = placed()
    superpopulation = calls.group.columns.to_numpy()[calls.group.to_numpy().argmax(axis=1)]
    assert (superpopulation == labels["super_pop"]).mean() > 0.98
    places = model().places
    assert places is not None
    # Each lies among the reference samples of its superpopulation.
    near = ((table.z[:, None] - places.z) ** 2).sum(axis=2).argsort(axis=1)[:, 1:6]
    assert (places.superpopulation[near] == labels["super_pop"].to_numpy()[:, None]).mean() > 0.95


@pytest.mark.parametrize("change", [on_grch38, on_the_other_strand, swapped])
def test_build_strand_and_orientation_do_not_matter(change: object) -> None:
    """Some sites are lost: without a place in GRCh38, or A/T and C/G on a strand in doubt."""
    assert callable(change)
    genotypes, _ = samples()
    changed = change(genotypes)
    table, calls = embedded(changed)
    before, first = placed()
    assert (calls.n_sites > 0.8 * first.n_sites).all()
    assert np.median(distances(before, table)) < 0.5
    assert np.abs(calls.group.to_numpy() - first.group.to_numpy()).max() < 0.3
    if change is swapped:
        np.testing.assert_array_equal(calls.n_sites, first.n_sites)
        np.testing.assert_allclose(calls.population, first.population, atol=1e-9)


def test_genotypes_of_another_build_under_positions_of_this_one_are_refused() -> None:
    """A control: with positions of neither build nothing is found."""
    genotypes, _ = samples()
    variants = genotypes.variants.assign(position=genotypes.variants["position"] + 7)
    with pytest.raises(Exception, match="are needed"):
        embedded(replace(genotypes, variants=variants))


def test_sites_that_the_map_does_not_use_are_said_to_be_there() -> None:
    """The build is the model's and so are the sites, but for most of them not of its map."""
    genotypes, _ = samples()
    sites, pruned = (
        pd.MultiIndex.from_frame(of[["contig", "position"]])
        for of in (genotypes.variants, model().extractor.variants)
    )
    others = np.flatnonzero(~sites.isin(pruned))[::4][:900]
    few = np.flatnonzero(sites.isin(pruned))[:20]
    part = genotypes.select(variants=np.sort(np.concatenate([others, few])))
    with pytest.raises(NotEnoughDataError) as caught:
        model().embed(part)
    said = str(caught.value)
    assert re.search(r"\d+ of the 15,802 variants of the map were matched in the file", said)
    assert "other variants" not in said
    assert "give a file with more of them" in said
    assert "of the 23,770 sites of the ancestry calls it has 920" in said
    with pytest.raises(NotEnoughDataError) as caught:
        model().embed(genotypes.select(variants=[]))
    assert "ancestry calls" not in str(caught.value)


def test_fewer_sites_make_everything_less_sure() -> None:
    genotypes, labels = samples()
    order = np.random.default_rng(0).permutation(genotypes.n_variants)
    sd, sure, right = [placed()[0].z_sd.mean()], [placed()[1].group.to_numpy().max(1).mean()], []
    for n in (2000, 128):
        table, calls = embedded(genotypes.select(variants=np.sort(order[:n])))
        assert (calls.n_sites == n).all()
        sd.append(table.z_sd.mean())
        p = calls.group.to_numpy()
        sure.append(p.max(axis=1).mean())
        right.append((calls.group.columns.to_numpy()[p.argmax(1)] == labels["super_pop"]).mean())
    assert sd[0] < sd[1] < sd[2]
    assert sure[0] > sure[1] > sure[2]
    assert right[0] > 0.97
    assert right[1] > 0.8


def test_the_command_places_one_sample(tmp_path: Path) -> None:
    genotypes, labels = samples()
    one = on_grch38(genotypes.select(samples=np.array([7])))
    path = write_vcf(tmp_path / "one.vcf", one.dosage, ["patient"], one.variants)
    done = run_cli("embed", path, "--model", "1kg", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = pd.read_csv(tmp_path / "out" / "ancestry.csv").iloc[0]
    assert row["sample_id"] == "patient"
    assert row["superpopulation"] == labels["super_pop"].iloc[7]
    assert "GRCh38" in done.stderr
    assert "patient" in (tmp_path / "out" / "report.html").read_text("utf-8")
