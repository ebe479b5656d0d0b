"""Compare settings of the model without the labels of real data.

Two kinds of evidence: scores on simulations whose populations are known (`simulate.py`), and
criteria on the bundled data that need no label: how many of the 15 nearest neighbours in the
features stay neighbours on the map, the rank correlation of distances, whether a mixture of 5 finds
the same groups in the first 10 components and on the map, and the evidence lower bound of held-out
samples. Features are kept in the temporary folder between runs. An entry already measured with the
same settings and the same code is not measured again.

    python benchmarks/choose.py --variant heavy:training.neighbour_weight=60,training.tau=.03
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import click
import common
import numpy as np
import pandas as pd
from simulate import simulate

from ancestry_ddvi import read_genotypes
from ancestry_ddvi.ddvi.model import AncestryModel
from ancestry_ddvi.ddvi.training import train
from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.pipeline import EmbedConfig
from ancestry_ddvi.preprocessing.features import FeatureConfig, FeatureExtractor
from ancestry_ddvi.preprocessing.fst import hudson_fst_matrix
from ancestry_ddvi.reporting.scores import (
    clustering_scores,
    fit_mixture,
    fst_rank_correlation,
    knn_accuracy,
    standardise,
)

CACHE = Path(tempfile.gettempdir()) / "ancestry-ddvi-choose"
FIRST_SIMULATION = 100
HOLDOUT = 0.2
N_PAIRS = 20_000
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
    "neighbour_recall": "recall of 15 neighbours",
    "distance_correlation": "distance rank corr.",
    "group_agreement": "NMI of mixtures of 5",
    "elbo": "ELBO",
    "elbo_held_out": "held-out ELBO",
    "mean_sd": "posterior sd",
    "training_cpu_seconds": "training CPU s",
}


@dataclass(frozen=True)
class Data:
    """Features, and labels where they are known because we made them."""

    x: np.ndarray
    noise: np.ndarray
    unit: float
    trained_on: np.ndarray
    population: np.ndarray | None = None
    superpopulation: np.ndarray | None = None
    fst: np.ndarray | None = None


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
        parsed = type(getattr(old, setting))(value)
        config = replace(config, **{part: replace(old, **{setting: parsed})})
    return name, config


def cached(name: str, key: list[Any], make: Any) -> Data:
    """Data from the temporary folder, or made and put there; a changed key makes it anew."""
    sources = [Path(__file__).with_name("simulate.py")]
    key = [*key, common.digest(*sources), common.code_digest("preprocessing")]
    path = CACHE / f"{name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        data: Data = make()
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **{k: v for k, v in vars(data).items() if v is not None})
        partial.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        arrays = {k: stored[k] for k in stored.files}
    return Data(**{**arrays, "unit": float(arrays["unit"])})


def simulated_data(seed: int, config: FeatureConfig, quick: bool) -> Data:
    """Features of one simulation; nothing is linked there, so nothing is pruned."""
    config = replace(config, ld_max_r2=1.0)

    def make() -> Data:
        size = {"n_per_population": 24, "n_variants": 4000} if quick else {}
        made = simulate(seed, **size)
        extractor = FeatureExtractor(config)
        features = extractor.fit_transform(made.genotypes)
        return Data(
            features.x,
            features.noise,
            extractor.unit,
            extractor.trained_on,
            made.population,
            made.superpopulation,
            hudson_fst_matrix(made.genotypes, made.population).to_numpy(),
        )

    return cached(f"simulation-{seed}", [asdict(config), quick], make)


@cache
def bundled_genotypes() -> GenotypeMatrix:
    return read_genotypes(common.GENOTYPES)


def bundled_data(holdout: float, config: FeatureConfig, quick: bool) -> Data:
    """Features of the bundled genotypes; a random share held out, the same in every call."""

    def make() -> Data:
        genotypes = bundled_genotypes()
        order = np.random.default_rng(0).permutation(genotypes.n_samples)
        if quick:
            genotypes = genotypes.select(samples=np.sort(order[:300]))
            order = np.random.default_rng(0).permutation(genotypes.n_samples)
        mask = np.ones(genotypes.n_samples, dtype=bool)
        mask[order[: round(holdout * len(order))]] = False
        extractor = FeatureExtractor(config)
        features = extractor.fit_transform(genotypes, train=mask)
        return Data(features.x, features.noise, extractor.unit, extractor.trained_on)

    key = [asdict(config), quick, holdout, common.digest(common.GENOTYPES)]
    return cached("bundled", key, make)


@dataclass(frozen=True)
class Fitted:
    """The map of all samples, the bound of each and what training took."""

    z: np.ndarray
    mean_sd: float
    elbo: np.ndarray
    training_cpu_seconds: float


def fit(data: Data, config: EmbedConfig, seed: int) -> Fitted:
    """What `fit_embedding` does once it has features."""
    x, noise = data.x[data.trained_on], data.noise[data.trained_on]
    start = time.process_time()
    model = AncestryModel(x.std(axis=0), config.model, seed)
    train(model, x, noise, data.unit, config.training, seed)
    seconds = time.process_time() - start
    draws = model.sample_posterior(data.x, data.noise, n_draws=config.n_draws, seed=seed)
    ids = np.arange(len(data.x)).astype(str)
    table = EmbeddingTable.from_draws(draws, ids, model.membership(draws), data.x)
    elbo = model.elbo(data.x, data.noise, seed=seed)
    return Fitted(table.z, float(table.z_sd.mean()), elbo, seconds)


def score_simulation(data: Data, config: EmbedConfig, seed: int) -> dict[str, float]:
    """How well the map shows populations that are known."""
    assert data.population is not None
    assert data.superpopulation is not None
    fitted = fit(data, config, seed)
    scaled = standardise(fitted.z, 10)
    names, groups = np.unique(data.population), np.unique(data.superpopulation)
    of_20 = clustering_scores(data.population, fit_mixture(scaled).clusters)
    few = fit_mixture(scaled, len(groups)).clusters
    fst = pd.DataFrame(data.fst, index=names, columns=names)
    return {
        "nmi": of_20["nmi"],
        "purity": of_20["purity"],
        "superpopulation_nmi": clustering_scores(data.superpopulation, few)["nmi"],
        "knn_population": float(knn_accuracy(fitted.z, data.population, seed).mean()),
        "knn_superpopulation": float(knn_accuracy(fitted.z, data.superpopulation, seed).mean()),
        "fst_rank_correlation": fst_rank_correlation(fitted.z, data.population, fst)[0],
        "elbo": float(fitted.elbo.mean()),
    }


def neighbour_recall(x: np.ndarray, z: np.ndarray, k: int = 15) -> float:
    """Share of each sample's k nearest neighbours in x that are among its k nearest in z."""
    from sklearn.neighbors import NearestNeighbors

    near = [
        NearestNeighbors(n_neighbors=k).fit(v).kneighbors(return_distance=False) for v in (x, z)
    ]
    return mean(len(np.intersect1d(a, b)) / k for a, b in zip(*near, strict=True))


def distance_correlation(x: np.ndarray, z: np.ndarray) -> float:
    """Spearman correlation of distances in x and in z over random pairs."""
    from scipy.stats import spearmanr

    first, second = np.random.default_rng(0).integers(len(x), size=(2, N_PAIRS))
    distances = [np.linalg.norm(v[first] - v[second], axis=1) for v in (x, z)]
    return float(spearmanr(*distances).statistic)


def score_bundled(full: Data, part: Data, config: EmbedConfig, seed: int) -> dict[str, float]:
    """Criteria on real data that need no label: of a full fit, and of one with samples held out."""
    fitted = fit(full, config, seed)
    on_map = fit_mixture(standardise(fitted.z, 10), 5).clusters
    in_features = fit_mixture(full.x[:, :10], 5).clusters
    elbo = fit(part, config, seed).elbo
    return {
        "neighbour_recall": neighbour_recall(full.x, fitted.z),
        "distance_correlation": distance_correlation(full.x, fitted.z),
        "group_agreement": clustering_scores(in_features, on_map)["nmi"],
        "elbo": float(fitted.elbo.mean()),
        "elbo_held_out": float(elbo[~part.trained_on].mean()),
        "mean_sd": fitted.mean_sd,
        "training_cpu_seconds": fitted.training_cpu_seconds,
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
        header = ["variant", "changes", "runs", *columns.values()]
        lines += [f"## {title}", "", common.table(header, rows), ""]
    lines += [
        "Means over runs (simulations x model seeds). Simulations: in-sample; a mixture of 20 on "
        "axes at RMS 10 against populations, a mixture with as many components as groups against "
        "groups, 15 nearest neighbours in 5 folds, centroid distances against Hudson FST, mean "
        "bound in nats. Bundled data: recall and correlation between the features and the map; "
        "the mixtures are those on the first 10 components and on the map; the bound of a fit to "
        "all samples, and of 20 % of samples held out from another fit.",
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
        jobs = [(f"simulation {s + FIRST_SIMULATION}", s) for s in range(simulations)]
        jobs += [("bundled", None)] if bundled else []
        for kind, simulation in jobs:
            for seed in range(seeds):
                key, mark = f"{kind}, seed {seed}", fingerprint(asdict(config), quick)
                runs = common.read_json(path)["variants"][name].setdefault("runs", {})
                if runs.get(key, {}).get("fingerprint") == mark:
                    continue
                if simulation is None:
                    full = bundled_data(0.0, config.features, quick)
                    part = bundled_data(HOLDOUT, config.features, quick)
                    scored = score_bundled(full, part, config, seed)
                else:
                    data = simulated_data(simulation + FIRST_SIMULATION, config.features, quick)
                    scored = score_simulation(data, config, seed)
                entry = {"fingerprint": mark, "scores": scored}
                common.record(path, ["variants", name, "runs", key], entry)
                click.echo(f"{name}, {key}: " + " ".join(f"{k} {v:.3f}" for k, v in scored.items()))
    common.record(path, ["versions"], common.versions())
    write_markdown(out / "choose.md", common.read_json(path), quick)


if __name__ == "__main__":
    main()
