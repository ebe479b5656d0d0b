"""The learning rate of the rivals in `ancestry-ddvi compare`: the best bound, and no label.

Every latent variable model of the comparison is fitted to the features of all samples at several
peak rates of its one-cycle schedule, in as many steps as there; what is compared is the mean
evidence lower bound of these samples. AAEB has no bound and takes .008.

    python benchmarks/rates.py --seeds 1
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import common
import numpy as np
import torch

from ancestry_ddvi import __version__, read_genotypes
from ancestry_ddvi.comparison.methods import LEARNING_RATES, METHODS, Task
from ancestry_ddvi.comparison.run import N_STEPS
from ancestry_ddvi.console import Console, Verbosity
from ancestry_ddvi.errors import TrainingDivergedError
from ancestry_ddvi.fitting import EmbedConfig, learn_features

RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2)
RIVALS = (
    *("gaussian", "iaf", "nsf", "hierarchical", "pis"),
    *("ddvi-unregularised", "ddvi-wake-sleep", "ddvi-simplified"),
)


def markdown(results: dict[str, Any], command: str) -> str:
    """Mean bound over seeds, a row a method."""
    rows = [
        [
            METHODS[name].title,
            *(_mean(rates.get(f"{rate:g}", {})) for rate in RATES),
            f"{LEARNING_RATES[name]:g}",
        ]
        for name, rates in results["methods"].items()
    ]
    settings = results["settings"]
    return f"""# Learning rates of the comparison

Mean evidence lower bound in nats of the {settings["n_samples"]:,} samples of `{settings["data"]}`
that were learnt from, {settings["n_steps"]:,} steps, mean over seeds; by peak of the rate, and the
rate that `ancestry-ddvi compare` takes.

{common.table(["", *(f"{rate:g}" for rate in RATES), "taken"], rows)}

Command: `{command}`
"""


def _mean(seeds: dict[str, float | None]) -> str:
    values = list(seeds.values())
    if not values:
        return ""
    return "diverged" if None in values else f"{np.mean(values):.2f}"


@click.command(help=__doc__)
@click.option("--seeds", default=1, show_default=True, help="Seeds from 0.")
@click.option("--methods", default=",".join(RIVALS), help="Of these only, joined by commas.")
@click.option("--steps", default=N_STEPS, show_default=True, help="Gradient steps.")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--fresh", is_flag=True, help="Forget earlier results.")
def main(seeds: int, methods: str, steps: int, out: Path, fresh: bool) -> None:
    torch.set_num_threads(1)
    path = out / "rates.json"
    genotypes = read_genotypes(common.GENOTYPES)
    settings = {
        "data": common.relative(common.GENOTYPES),
        "data_sha256": genotypes.source["sha256"],
        "n_samples": genotypes.n_samples,
        "n_steps": steps,
        "version": __version__,
        "code": common.code_digest("ddvi", "preprocessing", "baselines"),
        "versions": common.versions(),
    }
    if not common.earlier_results(path, settings, fresh=fresh):
        common.write_json(path, {"settings": settings, "methods": {}})
    results = common.read_json(path)
    config = EmbedConfig()
    learnt = learn_features(genotypes, config, Console(Verbosity.QUIET))
    for name in methods.split(","):
        for rate in RATES:
            for seed in range(seeds):
                if str(seed) in results["methods"].get(name, {}).get(f"{rate:g}", {}):
                    continue
                task = Task(learnt, replace(config, seed=seed), steps, learning_rate=rate)
                bound = _bound(name, task)
                common.record(path, ["methods", name, f"{rate:g}", str(seed)], bound)
                click.echo(f"{name}, {rate:g}, seed {seed}: {bound}")
    command = f"python benchmarks/rates.py --seeds {seeds}"
    command += f" --steps {steps}" if steps != N_STEPS else ""
    common.write_text(out / "rates.md", markdown(common.read_json(path), command))


def _bound(name: str, task: Task) -> float | None:
    """Of the training samples; None if training diverges."""
    try:
        fit = METHODS[name].fit(task)
    except TrainingDivergedError:
        return None
    assert fit.elbo is not None
    return float(fit.elbo()[task.learnt.trained_on].mean())


if __name__ == "__main__":
    main()
