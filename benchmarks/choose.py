"""Compare settings without the labels of real data.

Two kinds of evidence: scores on simulations whose populations are known (`simulate.py`), and
criteria on the bundled data that need no label. The first of these is the kinship of neighbours:
features and map are learnt on every other chromosome, from 80 % of the samples, and each other
sample's 15 nearest training samples on the map are judged by their genetic relationship with it on
the chromosomes left out. It compares features of any kind, which the bound cannot. An entry already
measured with the same settings and the same code is not measured again.

    python benchmarks/choose.py --variant heavy:training.neighbour_weight=60,training.tau=.03
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import click
import common
import numpy as np
from simulate import simulate
from sklearn.neighbors import NearestNeighbors

from ancestry_ddvi import GenotypeMatrix, fit_embedding, read_genotypes
from ancestry_ddvi.fitting import EmbedConfig, FittedEmbedding, LearntFeatures
from ancestry_ddvi.genotypes import bare_contig
from ancestry_ddvi.preprocessing.fst import hudson_fst_matrix
from ancestry_ddvi.reporting.scores import (
    clustering_scores,
    fit_mixture,
    fst_rank_correlation,
    knn_accuracy,
    standardise,
)

FIRST_SIMULATION = 100
HOLDOUT = 0.2
N_NEIGHBOURS = 15
N_PAIRS = 20_000
MIN_FREQUENCY = 0.05
"""Relationships are judged by variants at least this common."""

SIMULATED = {
    "nmi": "NMI",
    "purity": "purity",
    "superpopulation_nmi": "NMI, groups",
    "knn_population": "kNN",
    "knn_superpopulation": "kNN, groups",
    "fst_rank_correlation": "FST rank corr.",
    "elbo": "ELBO",
}
BUNDLED = {
    "kinship": "relationship of neighbours on the map",
    "kinship_in_features": "in the features",
    "distance_correlation": "distance rank corr.",
    "elbo_held_out": "held-out ELBO",
    "mean_sd": "posterior sd",
    "cpu_seconds": "CPU s",
}


def parse_variant(text: str) -> tuple[str, EmbedConfig]:
    """`name:part.setting=value,...` as changes of the defaults; parts are fields of EmbedConfig."""
    name, _, changes = text.partition(":")
    config = EmbedConfig()
    for change in filter(None, changes.split(",")):
        path, _, value = change.partition("=")
        part, _, setting = path.strip().partition(".")
        known = part in {f.name for f in fields(config)} and setting
        if not known or setting not in {f.name for f in fields(getattr(config, part))}:
            raise click.BadParameter(f"{path!r} is not a setting, such as training.tau")
        old = getattr(config, part)
        parsed = type(getattr(old, setting))(float(value))
        config = replace(config, **{part: replace(old, **{setting: parsed})})
    return name, config


def score_simulation(
    simulation: int, config: EmbedConfig, seed: int, quick: bool
) -> dict[str, float]:
    """How well the map shows known populations; nothing is linked there and nobody related."""
    size = {"n_per_population": 24, "n_variants": 4000} if quick else {}
    made = simulate(simulation, **size)
    features = replace(config.features, ld_max_r2=1.0)
    config = replace(config, features=features, max_kinship=1.0, seed=seed)
    fitted = fit_embedding(made.genotypes, config)
    z = fitted.table.z
    scaled = standardise(z, 10)
    of_20 = clustering_scores(made.population, fit_mixture(scaled).clusters)
    few = fit_mixture(scaled, len(np.unique(made.superpopulation))).clusters
    fst = hudson_fst_matrix(made.genotypes, made.population)
    return {
        "nmi": of_20["nmi"],
        "purity": of_20["purity"],
        "superpopulation_nmi": clustering_scores(made.superpopulation, few)["nmi"],
        "knn_population": float(knn_accuracy(z, made.population, seed).mean()),
        "knn_superpopulation": float(knn_accuracy(z, made.superpopulation, seed).mean()),
        "fst_rank_correlation": fst_rank_correlation(z, made.population, fst)[0],
        "elbo": float(fitted.table.elbo.mean()),
    }


@cache
def halves(quick: bool) -> tuple[GenotypeMatrix, ...]:
    """The bundled genotypes of even and of odd chromosomes."""
    genotypes = read_genotypes(common.GENOTYPES)
    if quick:
        order = np.random.default_rng(0).permutation(genotypes.n_samples)
        genotypes = genotypes.select(samples=np.sort(order[:300]))
    chromosome = genotypes.variants["contig"].astype(str).map(bare_contig).astype(int).to_numpy()
    return tuple(genotypes.select(variants=chromosome % 2 == half) for half in (0, 1))


@cache
def relationship(half: int, quick: bool) -> np.ndarray:
    """(n, n) genetic relationship matrix of one half (Yang et al. 2011), self-relationship left."""
    dosage = halves(quick)[half].dosage
    frequency = dosage.mean(axis=0) / 2
    common_enough = np.minimum(frequency, 1 - frequency) >= MIN_FREQUENCY
    frequency = frequency[common_enough]
    x = (dosage[:, common_enough] - 2 * frequency) / np.sqrt(2 * frequency * (1 - frequency))
    x = x.astype(np.float32)
    product: np.ndarray = x @ x.T / x.shape[1]
    return product


def kinship(
    place: np.ndarray, fitted: FittedEmbedding | LearntFeatures, relationships: np.ndarray
) -> float:
    """1000 x the mean relationship of held-out samples with their nearest training samples."""
    train, new = np.flatnonzero(fitted.trained_on), np.flatnonzero(fitted.held_out)
    nearest = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(place[train])
    found = train[nearest.kneighbors(place[new], return_distance=False)]
    return 1000 * float(relationships[new[:, None], found].mean())


def distance_correlation(x: np.ndarray, z: np.ndarray) -> float:
    """Spearman correlation of distances in x and in z over random pairs."""
    from scipy.stats import spearmanr

    first, second = np.random.default_rng(0).integers(len(x), size=(2, N_PAIRS))
    distances = [np.linalg.norm(v[first] - v[second], axis=1) for v in (x, z)]
    return float(spearmanr(*distances).statistic)


def score_bundled(half: int, config: EmbedConfig, seed: int, quick: bool) -> dict[str, float]:
    """Criteria on real data that need no label, of a fit to the other half of the chromosomes."""
    start = time.process_time()
    config = replace(config, seed=seed, holdout=HOLDOUT)
    fitted = fit_embedding(halves(quick)[1 - half], config)
    seconds = time.process_time() - start
    x, table, relationships = fitted.features.x, fitted.table, relationship(half, quick)
    return {
        "kinship": kinship(table.z, fitted, relationships),
        "kinship_in_features": kinship(x, fitted, relationships),
        "distance_correlation": distance_correlation(x, table.z),
        "elbo_held_out": float(table.elbo[fitted.held_out].mean()),
        "mean_sd": float(table.z_sd.mean()),
        "cpu_seconds": seconds,
    }


def fingerprint(config: dict[str, Any], quick: bool) -> str:
    """Changes with the settings and with the code that the scores come out of."""
    key = [config, quick, common.code_digest("ddvi", "preprocessing")]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def write_markdown(path: Path, results: dict[str, Any], quick: bool) -> None:
    """Both tables; cells are means over simulations and model seeds. Stale runs are left out."""
    lines = ["# Settings compared without labels of real data", ""]
    for kind, columns, title in (
        ("simulation", SIMULATED, "Simulations with known populations"),
        ("bundled", BUNDLED, "Bundled data, no labels"),
    ):
        rows = []
        for name, variant in results["variants"].items():
            runs = [
                e["scores"]
                for k, e in variant["runs"].items()
                if k.startswith(kind) and e["fingerprint"] == fingerprint(variant["config"], quick)
            ]
            if runs:
                cells = [f"{mean(r[c] for r in runs):.3f}" for c in columns]
                rows.append([name, variant["changes"] or "defaults", str(len(runs)), *cells])
        if not rows:
            continue
        header = ["variant", "changes", "runs", *columns.values()]
        lines += [f"## {title}", "", common.table(header, rows), ""]
    lines += [
        "Means over runs (simulations x model seeds). Simulations: in-sample; a mixture of 20 on "
        "axes at RMS 10 against populations, a mixture with as many components as groups against "
        "groups, 15 nearest neighbours in 5 folds, centroid distances against Hudson FST, mean "
        "bound in nats. Bundled data: learnt on half of the chromosomes and 80 % of the samples; "
        "1000 x mean relationship, on the other half, of each held-out sample with its 15 nearest "
        "training samples; both halves in turn. Bounds of other features are not comparable.",
        "",
        "Command: `python benchmarks/choose.py --variant NAME:CHANGES ...`",
    ]
    common.write_text(path, "\n".join(lines) + "\n")


@click.command(help=__doc__)
@click.option("--variant", "variants", multiple=True, metavar="NAME:PART.SETTING=VALUE,...")
@click.option("--simulations", default=3, show_default=True)
@click.option("--seeds", default=1, show_default=True, help="Model seeds, from 0.")
@click.option("--bundled/--no-bundled", default=True, show_default=True)
@click.option("--defaults/--no-defaults", default=True, help="Measure the defaults too.")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--quick", is_flag=True, help="Small data and 50 steps: a test of the script only.")
def main(
    variants: tuple[str, ...],
    simulations: int,
    seeds: int,
    bundled: bool,
    defaults: bool,
    out: Path,
    quick: bool,
) -> None:
    path = out / "choose.json"
    for text in (("default",) if defaults else ()) + variants:
        name, config = parse_variant(text)
        if quick:
            config = replace(
                config, training=replace(config.training, map_steps=50, posterior_steps=50)
            )
        common.record(path, ["variants", name, "changes"], text.partition(":")[2])
        common.record(path, ["variants", name, "config"], asdict(config))
        jobs = [("simulation", s + FIRST_SIMULATION) for s in range(simulations)]
        jobs += [("bundled", half) for half in (0, 1)] if bundled else []
        for kind, which in jobs:
            for seed in range(seeds):
                key, mark = f"{kind} {which}, seed {seed}", fingerprint(asdict(config), quick)
                runs = common.read_json(path)["variants"][name].setdefault("runs", {})
                if runs.get(key, {}).get("fingerprint") == mark:
                    continue
                score = score_simulation if kind == "simulation" else score_bundled
                scored = score(which, config, seed, quick)
                entry = {"fingerprint": mark, "scores": scored}
                common.record(path, ["variants", name, "runs", key], entry)
                click.echo(f"{name}, {key}: " + " ".join(f"{k} {v:.3f}" for k, v in scored.items()))
    common.record(path, ["versions"], common.versions())
    write_markdown(out / "choose.md", common.read_json(path), quick)


if __name__ == "__main__":
    main()
