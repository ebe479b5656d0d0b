"""The benchmark of calls by parts of the genome: its scores are those of the product's calls."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import importable
from simulate import balding_nichols

from ancestry_ddvi.ancestry import AncestryCaller
from ancestry_ddvi.ancestry.effective_sites import WINDOW
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
N_SITES = 1200


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script as a module; what it sets for its own process is undone."""
    with importable("benchmarks"):
        yield importlib.import_module("regional_panels")


@cache
def world() -> tuple[GenotypeMatrix, pd.DataFrame, np.ndarray]:
    """Four populations in two groups, sites on five chromosomes, many in one place; every fourth
    sample is held out."""
    genotypes, population = balding_nichols(40, N_SITES, 0.03, 4, 1)
    rng = np.random.default_rng(0)
    position = np.sort(rng.choice(np.arange(20_000_000, 70_000_000), N_SITES, replace=False))
    contig = np.resize(["1", "6", "11", "16", "22"], N_SITES)
    position = np.where(contig == "6", 26_000_000 + (position - 20_000_000) // 20, position)
    variants = genotypes.variants.assign(contig=contig, position=position)
    variants = variants.sort_values(["contig", "position"], ignore_index=True)
    group = np.where(np.isin(population, ["P0", "P1"]), "A", "B")
    panel = pd.DataFrame({"pop": population, "super_pop": group})
    return replace(genotypes, variants=variants), panel, np.arange(160) % 4 == 0


@pytest.fixture(scope="module")
def callers(script: ModuleType) -> dict[str, AncestryCaller]:
    genotypes, panel, held_out = world()
    found: dict[str, AncestryCaller] = script.learn(genotypes, panel, ~held_out, 0)
    return found


def test_scores_are_those_of_the_products_calls(
    script: ModuleType, callers: dict[str, AncestryCaller]
) -> None:
    genotypes, panel, held_out = world()
    caller = callers[script.TAKEN_OUT]
    new = genotypes.select(samples=np.flatnonzero(held_out))
    number = caller.counts.number_of(panel["pop"].to_numpy(object)[held_out])
    found = script.by_part(caller, new.dosage, number, np.random.default_rng(0))
    assert len(found) == 9
    sites = script.Sites.of(genotypes.variants).within("6", 25e6, 35e6)
    assert 100 < len(sites) < N_SITES
    called = caller.call(new.select(variants=sites))
    row = found[script.MHC]["by windows"]
    assert row["sites"] == len(sites)
    assert row["effective sites"] == pytest.approx(called.effective_sites.mean())
    assert row["outside"] == (called.typicality < 0.01).mean()
    for level, table in (("population", called.population), ("superpopulation", called.group)):
        p = table.to_numpy()
        truth = panel["pop" if level == "population" else "super_pop"].to_numpy(str)[held_out]
        right = table.columns.to_numpy(str)[p.argmax(axis=1)] == truth
        assert row[level]["accuracy"] == right.mean()
        assert row[level]["confidence"] == pytest.approx(p.max(axis=1).mean())
        assert row[level]["confidently wrong"] == ((p.max(axis=1) >= 0.9) & ~right).mean()
        of_truth = p[table.columns.to_numpy(str) == truth[:, None]]
        assert row[level]["log loss"] == pytest.approx(-np.log(of_truth).mean())
    # Counted one by one the same sites are as many as they are.
    alone = found[script.MHC]["one by one"]
    assert row["effective sites"] < 0.8 * len(sites)
    assert alone["effective sites"] == pytest.approx(len(sites), rel=1e-3)
    assert alone["population"]["confidence"] > row["population"]["confidence"]


def test_the_other_caller_differs_in_what_is_taken_out_alone(
    script: ModuleType, callers: dict[str, AncestryCaller]
) -> None:
    genotypes, panel, held_out = world()
    out, left = (callers[way] for way in script.WAYS)
    assert not any(level.near.shift.any() for level in left.levels)
    assert all(level.near.shift.any() for level in out.levels)
    for one, other in zip(out.levels, left.levels, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_array_equal(one.near.centre, other.near.centre)
    number = out.counts.number_of(panel["pop"].to_numpy(object))
    rng = np.random.default_rng(0)
    samples = script.belonging(genotypes.dosage, number, held_out, rng)
    rows = script.called_outside(callers, samples, genotypes.variants, rng)
    copies = rows["copies of training samples"]["all"]
    assert copies[script.TAKEN_OUT] < 0.06
    assert copies[script.LEFT_IN] > 0.2
    assert rows["held-out samples"]["samples"] == held_out.sum()
    assert len(rows) == 11


def test_panels_are_where_they_say(script: ModuleType) -> None:
    variants = world()[0].variants
    sites = script.Sites.of(variants)
    found = script.parts(sites, np.random.default_rng(0))
    whole = np.concatenate(found[script.CHROMOSOME])
    assert sorted(whole) == list(range(N_SITES))
    assert len(found[script.STRETCH]) == 5
    for stretch in found[script.STRETCH]:
        part = variants.iloc[stretch]
        assert part["contig"].nunique() == 1
        inside = part["position"].between(part["position"].min(), part["position"].max())
        assert np.ptp(part["position"]) < script.STRETCH_LENGTH
        # Nothing between its ends is left out.
        same = variants[variants["contig"] == part["contig"].iloc[0]]
        assert same["position"].between(*part["position"].iloc[[0, -1]]).sum() == inside.sum()
    (some,) = found["200 at random"]
    assert len(np.unique(some)) == 200
    few = script.Sites(np.array(["6"] * 40), np.arange(40))
    assert found[script.MHC]
    assert not script.parts(few, np.random.default_rng(0))[script.MHC]
    assert WINDOW in script.WIDTHS.values()


def test_errors_children_and_single_alleles(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    dosage = np.repeat(np.array([[0], [1], [2], [MISSING]], dtype=np.int8), 20_000, axis=1)
    np.testing.assert_array_equal(script.with_errors(dosage, 0.0, rng), dosage)
    turned = script.with_errors(dosage, 1.0, rng)
    np.testing.assert_array_equal(turned, np.where(dosage == MISSING, MISSING, 2 - dosage))
    some = script.with_errors(dosage, 0.1, rng)
    # Of binomial numbers of errors in two alleles.
    shares = [(some[row] == value).mean() for row, value in ((0, 1), (0, 2), (1, 1), (2, 0))]
    np.testing.assert_allclose(shares, [0.18, 0.01, 0.82, 0.01], atol=0.01)
    assert (some[3] == MISSING).all()

    once = script.one_allele(dosage, rng)
    assert (once[[0, 2, 3]] == dosage[[0, 2, 3]]).all()
    assert set(once[1]) == {0, 2}
    assert once[1].mean() == pytest.approx(1, abs=0.03)

    mixed = script.children(dosage[[0, 0, 1, 1]], dosage[[2, 1, 1, 3]], rng)
    assert (mixed[0] == 1).all()
    assert [(mixed[1] == x).mean() for x in (0, 1)] == pytest.approx([0.5, 0.5], abs=0.02)
    shares = [(mixed[2] == x).mean() for x in range(3)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    assert (mixed[3] == MISSING).all()


def test_means_are_over_seeds(script: ModuleType) -> None:
    def row(x: float) -> dict[str, Any]:
        return {"a": {"b": x}, "c": [{"d": 2 * x}]}

    assert script.averaged([row(1), row(3)]) == {"a": {"b": 2}, "c": [{"d": 4}]}


def test_the_committed_tables_are_of_the_committed_results(script: ModuleType) -> None:
    path = BENCHMARKS / "results" / "regional_panels.json"
    results = json.loads(path.read_text("utf-8"))
    assert script.markdown(results) == path.with_suffix(".md").read_text("utf-8")


def test_strangers_are_told_as_by_a_caller_that_has_not_learnt_them(script: ModuleType) -> None:
    genotypes, panel, held_out = world()
    found = script.strangers(genotypes, panel, held_out, 0, np.random.default_rng(0))
    new = (panel["super_pop"] == "A").to_numpy()
    caller = AncestryCaller.learn(genotypes, panel["pop"], None, ~held_out & ~new, 0)
    assert caller is not None
    for name, which in (("told", new), ("others", held_out & ~new)):
        called = caller.call(genotypes.select(samples=np.flatnonzero(which)))
        assert found["all"]["A"][name] == (called.typicality < 0.01).mean()
    assert found["all"]["A"]["told"] > found[script.MHC]["A"]["told"]
