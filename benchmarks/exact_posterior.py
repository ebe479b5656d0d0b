"""Every posterior family against the exact posterior of the same model.

Decoder and prior come out of one default fit of the bundled data and stay; their exact posterior is
summed on a grid. Each rival is trained for equally many CPU seconds on draws of that model, and
judged on simulated samples at 0 to 99.5 % missing SNPs. A run that was interrupted goes on where it
stopped; results of other settings, code or data are refused (`--fresh` starts over). No label is
read.

    python benchmarks/exact_posterior.py --seeds 5
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import common
import numpy as np
import rivals
from rivals import MISSING, RATES, REGIONS, RIVALS, Exam, Theta

from ancestry_ddvi import read_genotypes
from ancestry_ddvi.baselines.discrepancy import N_BLOCKS
from ancestry_ddvi.fitting import EmbedConfig

EXACT = "draws of the exact posterior"
DEFAULT = "product default"
GAUSSIAN = "gaussian"
GOALS = dict(zip(map("{:g}".format, MISSING), (0.05, 0.05, 0.08, 0.10, 0.20), strict=True))
TITLES = {
    "kl_exact_q": "KL(exact ‖ q), nats",
    "kl_q_exact": "KL(q ‖ exact), nats",
    "total_variation": "Total variation",
}


class Bench:
    """Theta, settings and the file that results go to."""

    def __init__(self, out: Path, config: EmbedConfig, n_samples: int | None) -> None:
        self.path = out / "exact_posterior.json"
        self.config = config
        genotypes = read_genotypes(common.GENOTYPES)
        if n_samples:
            order = np.random.default_rng(0).permutation(genotypes.n_samples)
            genotypes = genotypes.select(samples=np.sort(order[:n_samples]))
        self.data = {
            "data": common.relative(common.GENOTYPES),
            "data_sha256": genotypes.source["sha256"],
            "n_samples": genotypes.n_samples,
            "n_variants": genotypes.n_variants,
        }
        self.theta: Theta = rivals.fitted_theta(genotypes, config, out)

    def settings(self, budget: float, pairs: int, coverage: int, draws: int) -> dict[str, Any]:
        """What results have to agree on to stand in one table."""
        return {
            **self.data,
            "config": common.stored(asdict(self.config)),
            "budget": budget,
            "pairs": pairs,
            "coverage_pairs": coverage,
            "draws": draws,
            "code": common.code_digest("ddvi", "preprocessing", "baselines"),
            "rivals": common.digest(Path(rivals.__file__)),
            "fit_cpu_seconds": self.theta.cpu_seconds,
            "versions": common.versions(),
            "machine": common.machine(),
        }

    def rate(self, method: str, budget: float) -> tuple[float, float]:
        """The learning rate with the least held-out loss in short trainings, and that loss; found
        once."""
        done = common.read_json(self.path)["rates"]
        if method not in done:
            short = rivals.RATE_SHARE * budget
            losses = {
                f"{rate:g}": rivals.trial_loss(RIVALS[method], self.theta, rate, short)
                for rate in RATES
            }
            if not any(map(math.isfinite, losses.values())):
                raise click.ClickException(f"{method} diverges at every learning rate")
            best = min(losses, key=losses.__getitem__)
            # JSON has no infinity.
            shown = {k: v if math.isfinite(v) else None for k, v in losses.items()}
            entry = {"chosen": float(best), "held_out_loss": shown}
            common.record(self.path, ["rates", method], entry)
            click.echo(f"{method}, learning rate {best}: {shown}")
            return float(best), losses[best]
        chosen = done[method]["chosen"]
        return chosen, done[method]["held_out_loss"][f"{chosen:g}"]

    def run(self, seed: int, methods: list[str], exam: Callable[[], Exam], budget: float) -> None:
        """Train, examine and record whatever of one seed is missing."""
        done = common.read_json(self.path)["methods"]
        missing = [m for m in methods if str(seed) not in done.get(m, {})]
        if not missing:
            return
        examination = exam()
        for method in missing:
            if method == EXACT:
                entry = examination.mark_exact()
            else:
                rival = RIVALS[method]
                rate, worst = self.rate(method, budget) if rival.loss else (0.0, math.inf)
                try:
                    trained, rate = (
                        rivals.train_well(rival, self.theta, rate, budget, seed, worst)
                        if rival.loss
                        else (rivals.train(rival, self.theta, rate, budget, seed), rate)
                    )
                except FloatingPointError as error:
                    raise click.ClickException(f"{method}, seed {seed}: {error}") from error
                entry = examination.mark(trained.posterior)
                entry |= {"cpu_seconds": trained.cpu_seconds, "steps": trained.steps, "rate": rate}
            common.record(self.path, ["methods", method, str(seed)], entry)
            click.echo(
                f"seed {seed}, {method}: KL(exact ‖ q) "
                + " ".join(f"{net('kl_exact_q')(row):.3f}" for row in entry["levels"].values())
            )


Cell = Callable[[dict[str, float]], float]


def net(measure: str) -> Cell:
    """The measure less what draws of the exact posterior score."""
    return lambda row: row[measure] - row[f"{measure}_bias"]


def over_seeds(seeds: dict[str, Any], level: str, cell: Cell) -> list[float]:
    """One value a seed."""
    return [cell(entry["levels"][level]) for _, entry in sorted(seeds.items())]


def by_level(results: dict[str, Any], cell: Cell) -> str:
    """A table: a row a method, a column a level."""
    rows = [
        [name, *(common.interval(over_seeds(seeds, f"{m:g}", cell)) for m in MISSING)]
        for name, seeds in results["methods"].items()
    ]
    return common.table(["", *(f"{100 * m:g} % missing" for m in MISSING)], rows)


def cost(results: dict[str, Any]) -> str:
    """What training and drawing took."""
    rows = []
    for name, seeds in results["methods"].items():
        if name == EXACT:
            continue
        entries = [entry for _, entry in sorted(seeds.items())]
        trained = bool(entries[0]["steps"])
        rows.append(
            [
                name,
                common.interval([e["cpu_seconds"] for e in entries], 0)
                if trained
                else "in the fit",
                common.interval([e["steps"] for e in entries], 0) if trained else "",
                ", ".join(f"{rate:g}" for rate in sorted({e["rate"] for e in entries}))
                if trained
                else "",
                common.interval([e["cpu_seconds_per_million_draws"] for e in entries], 2),
            ]
        )
    header = ["", "training CPU s", "steps", "learning rate", "CPU s for a million draws"]
    return common.table(header, rows)


def verdicts(results: dict[str, Any]) -> str:
    """The product's default beside floors and goals, unrounded when compared."""
    methods = results["methods"]
    if not {DEFAULT, GAUSSIAN} <= set(methods):
        return ""

    def mean_of(method: str, level: str, cell: Cell) -> float:
        return float(np.mean(over_seeds(methods[method], level, cell)))

    rows = []
    for missing in MISSING:
        level = f"{missing:g}"
        kl = mean_of(DEFAULT, level, net("kl_exact_q"))
        floor = mean_of(GAUSSIAN, level, net("kl_exact_q")) * (1 if missing < 0.9 else 2 / 3)
        covered = mean_of(DEFAULT, level, lambda row: row["coverage_0.9"])
        said = [(kl <= floor), (kl <= GOALS[level])]
        said += [0.85 <= covered <= 0.95, abs(covered - 0.9) <= 0.02]
        figures = (f"{kl:.3f}", f"{floor:.3f}", f"{GOALS[level]:.2f}", f"{covered:.3f}")
        rows.append([f"{100 * missing:g} %", *figures, *("yes" if met else "no" for met in said)])
    header = ["missing", "KL(exact ‖ q)", "floor", "goal", "coverage of 90 % regions"]
    header += ["KL floor met", "KL goal met", ".85 to .95", ".88 to .92"]
    table = common.table(header, rows)
    return f"""## Floors and goals of the product's default

{table}

KL floor: the sleep-trained Gaussian, two thirds of it from 90 % missing on. KL: means over seeds,
bias subtracted.
"""


def markdown(results: dict[str, Any], command: str) -> str:
    """Every table: mean over seeds, and half of its 95 % interval."""
    settings = results["settings"]
    seeds = sorted({int(s) for entries in results["methods"].values() for s in entries})
    which = common.settings_in_words(settings["config"], EmbedConfig())
    sections = []
    for measure, title in TITLES.items():
        sections += [
            f"## {title}: bias subtracted",
            by_level(results, net(measure)),
            f"## {title}: as measured",
            by_level(results, lambda row, m=measure: row[m]),
            f"The bias: what {settings['draws']:,} draws of the exact posterior score.",
            common.table(
                [f"{100 * m:g} % missing" for m in MISSING],
                [biases(results, f"{measure}_bias")],
            ),
        ]
    sections += [
        "## Standard deviation of q over that of the exact posterior",
        by_level(results, lambda row: row["sd_ratio"]),
    ]
    for region in REGIONS:
        sections += [
            f"## Coverage of {100 * region:g} % regions",
            by_level(results, lambda row, r=region: row[f"coverage_{r:g}"]),
        ]
    body = "\n\n".join(sections)
    rates = common.table(
        ["", *(f"{rate:g}" for rate in RATES)],
        [
            [name, *(_loss(entry["held_out_loss"][f"{rate:g}"]) for rate in RATES)]
            for name, entry in results["rates"].items()
        ],
    )
    return f"""# Posteriors against the exact one

Decoder and prior of one fit of `{settings["data"]}` ({settings["n_samples"]:,} samples,
{settings["n_variants"]:,} SNPs, {which}, seed {settings["config"]["seed"]}), then fixed. At each
share of missing SNPs {settings["pairs"]} samples are simulated from that model, the same for all
methods of a seed; their exact posterior is summed on a grid. Rivals: the same features, fresh
weights, hidden layers of {settings["config"]["model"]["n_hidden"]}, {settings["budget"]:g} CPU
seconds of training each on draws of the model, noise levels from complete to
{settings["config"]["training"]["min_kept"]:g} of the SNPs kept. "{DEFAULT}" is what the fit itself
trained (the whole fit: {settings["fit_cpu_seconds"]:.0f} CPU seconds, of which its posterior
phase: {results["posterior_phase_cpu_seconds"]:.1f}). Seeds
{", ".join(map(str, seeds))} of the rivals' weights, training and simulated samples. Cells:
mean over seeds ± half of its 95 % interval (t).

{verdicts(results)}
{body}

Divergences: {settings["draws"]:,} draws of q counted in {N_BLOCKS} x {N_BLOCKS} blocks of the box
that holds all but a millionth of the exact posterior, and outside of it. Coverage: share of
{max(settings["coverage_pairs"], settings["pairs"])} simulated samples (of the exact posterior:
{settings["pairs"]}) whose true z lies in the highest-density region of q. Ratio of standard
deviations: geometric mean over axes and samples.

## Cost

{cost(results)}

One thread. {settings["machine"]}.

## Learning rates

Held-out loss of each rival's own objective, nats, after {rivals.RATE_SHARE:.0%} of the budget, mean
over {len(rivals.RATE_SEEDS)} seeds of their own; the least is taken, once for all seeds. A run with
the whole budget that ends above that loss is made again at half the rate: its last attempt is what
is examined. Losses of different families are not of one kind: bounds, of different tightness.

{rates}

Command: `{command}`
"""


def biases(results: dict[str, Any], column: str) -> list[str]:
    """The bias by level; it is the same for every method of a seed."""
    seeds = next(iter(results["methods"].values()))
    return [common.interval(over_seeds(seeds, f"{m:g}", lambda row: row[column])) for m in MISSING]


def _loss(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.3f}"


@click.command(help=__doc__)
@click.option("--seeds", default=5, show_default=True, help="Seeds from 0.")
@click.option("--methods", help="Of these only, separated by semicolons; all if left out.")
@click.option("--budget", default=60.0, show_default=True, help="CPU seconds of training.")
@click.option("--pairs", default=60, show_default=True, help="Simulated samples a level.")
@click.option(
    "--coverage", default=400, show_default=True, help="Simulated samples a level for coverage."
)
@click.option("--draws", default=4000, show_default=True, help="Draws for each sample.")
@click.option("--samples", type=int, help="A random cut of the data: a test of the script only.")
@click.option(
    "--steps", type=int, help="Steps of each phase of the fit: a test of the script only."
)
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--fresh", is_flag=True, help="Forget earlier results.")
def main(
    seeds: int,
    methods: str | None,
    budget: float,
    pairs: int,
    coverage: int,
    draws: int,
    samples: int | None,
    steps: int | None,
    out: Path,
    fresh: bool,
) -> None:
    chosen = [EXACT, *RIVALS] if methods is None else [m.strip() for m in methods.split(";")]
    if unknown := [m for m in chosen if m not in (EXACT, *RIVALS)]:
        raise click.BadParameter(f"{unknown[0]!r} is none of: {'; '.join([EXACT, *RIVALS])}")
    config = EmbedConfig()
    if steps is not None:
        training = replace(config.training, map_steps=steps, posterior_steps=steps)
        config = replace(config, training=training)
    bench = Bench(out, config, samples)
    settings = bench.settings(budget, pairs, coverage, draws)
    if not common.earlier_results(bench.path, settings, fresh=fresh):
        seconds = rivals.posterior_phase_seconds(bench.theta)
        empty = {"rates": {}, "methods": {}, "posterior_phase_cpu_seconds": seconds}
        common.write_json(bench.path, {"settings": settings, **empty})
    for seed in range(seeds):
        bench.run(seed, chosen, lambda s=seed: Exam(bench.theta, pairs, coverage, draws, s), budget)
    context = click.get_current_context()
    given = [
        f"--{name} {shlex.quote(str(context.params[name]))}"
        for name in ("methods", "budget", "pairs", "coverage", "draws", "samples", "steps")
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
    ]
    command = " ".join(["python benchmarks/exact_posterior.py", f"--seeds {seeds}", *given])
    text = markdown(common.read_json(bench.path), command)
    common.write_text(out / "exact_posterior.md", text)


if __name__ == "__main__":
    main()
