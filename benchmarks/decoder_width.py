"""How narrow z is drawn in the decoder phase, compared from one and the same map.

The map phase is run once; from its end the decoder and the posterior phase are run at every width,
with the same random numbers. So the widths of a pair differ in nothing else, and the noise between
fits, which is larger than what the width does, drops out of their difference. Two kinds of pairs:
the kinship of neighbours on the bundled data, as in `choose.py` and without labels, and
simulations, whose populations are known. 20 % of the samples are held out of both.

A run that was interrupted goes on where it stopped; results of other settings, code or data are
refused (`--fresh` starts over).

    python benchmarks/decoder_width.py --seeds 2 --simulations 3
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import choose
import click
import common
import numpy as np
import simulate
import torch
from torch import nn

from ancestry_ddvi.console import Console, Verbosity
from ancestry_ddvi.ddvi import training
from ancestry_ddvi.ddvi.latent import BATCH, batches
from ancestry_ddvi.ddvi.loop import Phase, run_phases
from ancestry_ddvi.ddvi.model import AncestryModel
from ancestry_ddvi.ddvi.objective import iw_bound
from ancestry_ddvi.ddvi.streams import Streams
from ancestry_ddvi.fitting import EmbedConfig, LearntFeatures, learn_features
from ancestry_ddvi.genotypes import id_hash
from ancestry_ddvi.reporting import scores
from ancestry_ddvi.reporting.scores import clustering_scores, fit_mixture, standardise

WIDTHS = (1.0, 0.5, 0.25)
"""Differences are to the first: z as the encoder's Gaussian has it."""

FIRST_SIMULATION = 300
"""No earlier choice was made on these."""

MIXTURE_SEEDS = range(2, 7)
"""Of the mixture of 20, whose scores are averaged; the first is the protocol's."""

COLUMNS = {
    "kinship": ("relationship of neighbours", 2),
    "nmi": ("NMI", 4),
    "purity": ("purity", 4),
    "nmi_sd": ("sd of NMI over seeds", 4),
    "purity_sd": ("sd of purity over seeds", 4),
    "knn": ("kNN", 4),
    "knn_held_out": ("kNN, held out", 4),
    "log_p_train": ("log p(x), training", 3),
    "log_p_held_out": ("log p(x), held out", 3),
    "mean_sd": ("mean sd", 4),
}
"""Score -> title and decimals."""

CAPTION = """\
One map phase a pair; decoder and posterior phase from its end at every width, with the same random
numbers; {which}. 20 % of the samples are held out. Differences: mean over pairs ± its standard
error, and in how many pairs the narrower width has the higher value. Relationship: 1000 x the mean,
on one half of the chromosomes, of each held-out sample with its 15 nearest training samples on a
map learnt on the other half. NMI, purity: a mixture of 20 on axes at RMS 10 against the
simulation's populations, training samples, mean and standard deviation over {n_starts} seeds of the
mixture. kNN: 15 nearest, in 5 folds of the training samples, and of held-out samples among these.
log p(x): nats, by {n_draws} importance weights a sample. Mean sd: of the draws, in units of the
axes."""

Scores = dict[str, float]
Widths = dict[str, Scores]


def fits(
    learnt: LearntFeatures, config: EmbedConfig, widths: Sequence[float]
) -> Iterator[AncestryModel]:
    """The model at each width, as `fitting.train_model` makes it, from one map phase for all."""
    rows, settings = learnt.trained_on, config.training
    x, noise = learnt.features.x[rows], learnt.features.noise[rows]
    data = training._Data.of(
        x, noise, learnt.features.denoised, None, learnt.extractor.unit, settings, config.seed
    )
    model = AncestryModel(x.std(axis=0), config.model, config.seed)
    run_phases(
        model,
        [
            Phase(
                "map",
                settings.map_steps,
                settings.map_learning_rate,
                nn.ModuleList([model.prior, model.decoder, model.posterior.anchor]),
                lambda step: training._map_terms(model, data, settings, step),
            )
        ],
    )
    state = data.generator.get_state()
    for width in widths:
        data.generator.set_state(state)
        narrowed = replace(settings, decoder_width=width)
        yield _after_the_map(deepcopy(model), data, narrowed)


def _after_the_map(
    model: AncestryModel, data: training._Data, settings: training.TrainingConfig
) -> AncestryModel:
    """Run the decoder and the posterior phase."""
    decoder = Phase(
        "decoder",
        settings.map_steps // 4,
        settings.map_learning_rate,
        nn.ModuleList([model.prior, model.decoder]),
        lambda step: training._decoder_terms(model, data, settings),
    )
    posterior = Phase(
        "posterior",
        training.GUIDED_STEPS,
        settings.posterior_learning_rate,
        model.posterior,
        lambda step: training._posterior_terms(model, data, settings, step, guided=True),
    )
    run_phases(model, [decoder, posterior])
    model.prior.sort()
    return model


@torch.no_grad()
def places(
    model: AncestryModel, learnt: LearntFeatures, config: EmbedConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, D) means and standard deviations of the draws that the product shows, and (n,) log p(x)
    in nats by their importance weights."""
    key, parts = id_hash(learnt.sample_id), []
    x, noise, n_draws = learnt.features.x, learnt.features.noise, config.n_draws
    for rows, x_part, noise_part in batches(x, noise, max(1, BATCH // n_draws), model.dtype):
        source = Streams(key[rows], config.seed)
        chain = model.posterior.chain(x_part, noise_part, source, n_draws)
        log_joint = model.decoder.log_prob(x_part, chain.z, noise_part)
        log_joint = log_joint + model.prior.log_prob(chain.z)
        log_p = iw_bound((log_joint - chain.step_kl.sum(-1)).double())
        parts.append((chain.z.mean(0), chain.z.std(0, correction=0), log_p))
    z, sd, log_p = (torch.cat(part).double().numpy() for part in zip(*parts, strict=True))
    return z, sd, log_p


def examine(
    learnt: LearntFeatures, config: EmbedConfig, judge: Callable[[np.ndarray], Scores]
) -> Widths:
    """Scores at every width of one pair."""
    trained_on, held_out = learnt.trained_on, learnt.held_out
    found = {}
    for width, model in zip(WIDTHS, fits(learnt, config, WIDTHS), strict=True):
        z, sd, log_p = places(model, learnt, config)
        found[f"{width:g}"] = judge(z) | {
            "log_p_train": float(log_p[trained_on].mean()),
            "log_p_held_out": float(log_p[held_out].mean()),
            "mean_sd": float(sd.mean()),
        }
    return found


def bundled(half: int, config: EmbedConfig, quick: bool) -> Widths:
    """A pair of the bundled data: learnt on one half of the chromosomes, judged on the other."""
    learnt = learn_features(choose.halves(quick)[1 - half], config, Console(Verbosity.QUIET))
    relationships = choose.relationship(half, quick)
    return examine(learnt, config, lambda z: {"kinship": choose.kinship(z, learnt, relationships)})


def simulated(simulation: int, config: EmbedConfig, quick: bool) -> Widths:
    """A pair of a simulation, where nothing is linked and nobody related."""
    size = {"n_per_population": 24, "n_variants": 4000} if quick else {}
    made = simulate.simulate(simulation, **size)
    features = replace(config.features, ld_max_r2=1.0)
    config = replace(config, features=features, max_kinship=1.0)
    learnt = learn_features(made.genotypes, config, Console(Verbosity.QUIET))
    trained_on, held_out = learnt.trained_on, learnt.held_out
    population, new = made.population[trained_on], made.population[held_out]

    def judge(z: np.ndarray) -> Scores:
        train = z[trained_on]
        scaled = standardise(train, 10)
        of_20 = [
            clustering_scores(population, fit_mixture(scaled, seed=seed).clusters)
            for seed in MIXTURE_SEEDS
        ]
        nmi, purity = ([row[name] for row in of_20] for name in ("nmi", "purity"))
        return {
            "nmi": mean(nmi),
            "purity": mean(purity),
            "nmi_sd": stdev(nmi),
            "purity_sd": stdev(purity),
            "knn": float(scores.knn_accuracy(train, population, config.seed).mean()),
            "knn_held_out": scores.knn_transfer_accuracy(train, population, z[held_out], new),
        }

    return examine(learnt, config, judge)


def differences(pairs: dict[str, Widths], column: str, width: str) -> list[float]:
    """The score less that at the first width, in every pair that has it."""
    first = f"{WIDTHS[0]:g}"
    return [w[width][column] - w[first][column] for w in pairs.values() if column in w[first]]


def in_words(values: Sequence[float], digits: int) -> str:
    """Mean ± its standard error, and in how many pairs it is above 0."""
    text = f"{mean(values):+.{digits}f}"
    if len(values) > 1:
        text += f" ± {stdev(values) / math.sqrt(len(values)):.{digits}f}"
    return f"{text} ({sum(v > 0 for v in values)} of {len(values)})"


def markdown(results: dict[str, Any], command: str) -> str:
    """Differences over pairs, then every pair."""
    narrower = [f"{width:g}" for width in WIDTHS[1:]]
    blocks = []
    for kind, title in (("bundled", "Bundled data, no labels"), ("simulation", "Simulations")):
        pairs = {k: v["widths"] for k, v in results["pairs"].items() if k.startswith(kind)}
        if not pairs:
            continue
        shown = {c: t for c, t in COLUMNS.items() if differences(pairs, c, narrower[0])}
        over_pairs = [
            [title, *(in_words(differences(pairs, c, w), digits) for w in narrower)]
            for c, (title, digits) in shown.items()
        ]
        rows = [
            [name, width, *(f"{row[c]:.{digits}f}" for c, (_, digits) in shown.items())]
            for name, widths in pairs.items()
            for width, row in widths.items()
        ]
        header = ["pair", "width", *(title for title, _ in shown.values())]
        blocks += [
            f"## {title}: differences to width {WIDTHS[0]:g}",
            common.table(["", *(f"width {w}" for w in narrower)], over_pairs),
            f"## {title}: every pair",
            common.table(header, rows),
        ]
    which = common.settings_in_words(results["settings"]["config"], default_config())
    return "\n\n".join(
        [
            "# Width of z in the decoder phase",
            CAPTION.format(
                which=which, n_starts=len(MIXTURE_SEEDS), n_draws=default_config().n_draws
            ),
            *blocks,
            f"Command: `{command}`\n",
        ]
    )


def default_config() -> EmbedConfig:
    """What is measured, but for seed and width."""
    return EmbedConfig(holdout=choose.HOLDOUT)


@click.command(help=__doc__)
@click.option("--seeds", default=2, show_default=True, help="Of each half of the bundled data.")
@click.option("--simulations", default=3, show_default=True, help="One seed of the model each.")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--fresh", is_flag=True, help="Forget earlier results.")
@click.option("--quick", is_flag=True, help="Small data and 80 steps: a test of the script only.")
def main(seeds: int, simulations: int, out: Path, fresh: bool, quick: bool) -> None:
    torch.set_num_threads(1)
    path, config = out / "decoder_width.json", default_config()
    if quick:
        config = replace(config, training=replace(config.training, map_steps=80))
    settings = {
        "data_sha256": common.digest(common.GENOTYPES),
        "config": common.stored(asdict(config)),
        "widths": list(WIDTHS),
        "quick": quick,
        "code": common.code_digest("ddvi", "preprocessing"),
        "scripts": common.digest(*(Path(module.__file__) for module in (choose, simulate, scores))),
        "versions": common.versions(),
    }
    if not common.earlier_results(path, settings, fresh=fresh):
        common.write_json(path, {"settings": settings, "pairs": {}})
    jobs = [(bundled, "bundled, half", half, seed) for seed in range(seeds) for half in (0, 1)]
    jobs += [(simulated, "simulation", FIRST_SIMULATION + s, 0) for s in range(simulations)]
    for measure, kind, which, seed in jobs:
        name = f"{kind} {which}, seed {seed}"
        if name in common.read_json(path)["pairs"]:
            continue
        start = time.process_time()
        widths = measure(which, replace(config, seed=seed), quick)
        entry = {"widths": widths, "cpu_seconds": time.process_time() - start}
        common.record(path, ["pairs", name], entry)
        for width, row in widths.items():
            click.echo(f"{name}, {width}: " + " ".join(f"{k} {v:.4f}" for k, v in row.items()))
    command = f"python benchmarks/decoder_width.py --seeds {seeds} --simulations {simulations}"
    command += " --quick" if quick else ""
    common.write_text(out / "decoder_width.md", markdown(common.read_json(path), command))


if __name__ == "__main__":
    main()
