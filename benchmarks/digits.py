"""DDVI and its rivals on a model that is not genetic: scikit-learn's digits, 8 x 8 pixels.

A pixel counts the black ones of 4 x 4 dots, hence p(x | z) = Binomial(16, p(z)). Latents are in the
plane and their prior is a shape: pinwheel, swiss roll or square. All methods have the same decoder,
width, learning rate and number of gradient steps of the decoder; what differs is the posterior and
its objective. Four fifths of the digits are learnt from, and all scores but kNN's reference are of
the last fifth. Results are kept after each fit; a second run goes on where the first one stopped
(--fresh starts over; after a change of code --recheck keeps what it has not changed).

    python benchmarks/digits.py --seeds 5
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import common
import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import softplus

from ancestry_ddvi.baselines import POSTERIORS, Adversarial, Posterior
from ancestry_ddvi.ddvi.blind import BlindPosterior
from ancestry_ddvi.ddvi.engine import fit
from ancestry_ddvi.ddvi.latent import LatentModel
from ancestry_ddvi.ddvi.networks import FeatureInput, mlp
from ancestry_ddvi.ddvi.posterior import DiffusionPosterior, GaussianAnchor
from ancestry_ddvi.ddvi.priors import make_prior
from ancestry_ddvi.ddvi.wake_sleep import (
    JointWakeSleep,
    Objective,
    Simplified,
    Unregularised,
    WakeSleep,
    n_turns,
)
from ancestry_ddvi.reporting.scores import knn_transfer_accuracy

PRIORS = {"pinwheel": "pinwheel", "swiss-roll": "swiss roll", "square": "square"}
N_DOTS = 16
N_HIDDEN = 64
N_DIFFUSION = 6
"""Steps of the chain, of DDVI and of the path integral sampler."""

STEPS = 400
BATCH = 128
LEARNING_RATE = 1e-2
HOLDOUT = 0.2
N_DRAWS = 4
"""Posterior draws of each digit that stand for the aggregated posterior."""

N_BOUND = 50
N_PRIOR = 1000
BANDWIDTHS = tuple(np.geomspace(0.02, 0.5, 8).round(3))
COLUMNS = {
    "elbo": ("ELBO", 2),
    "iw_bound": (f"IW-{N_BOUND} bound", 2),
    "latent_nll": ("latent NLL", 3),
    "mmd": ("MMD² x 1000", 2),
    "knn": ("kNN", 3),
    "cpu_seconds": ("CPU s", 1),
}


class BinomialDecoder(nn.Module):
    """p(x | z) = prod_k Binomial(x_k; N_DOTS, sigmoid(f_k(z)))."""

    log_ways: Tensor

    def __init__(self, n_latent: int, n_features: int, n_hidden: int) -> None:
        super().__init__()
        self.logit = mlp(n_latent, n_features, n_hidden)
        ways = torch.tensor([math.comb(N_DOTS, x) for x in range(N_DOTS + 1)])
        self.register_buffer("log_ways", ways.log(), persistent=False)

    def log_prob(self, x: Tensor, z: Tensor, noise: Tensor) -> Tensor:
        """log p(x | z) in nats, (...,) for counts x (..., K); counts have no noise."""
        logit = self.logit(z)
        ways = self.log_ways[x.long()]
        return (ways + x * logit - N_DOTS * softplus(logit)).sum(-1)

    def sample(self, z: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Counts (..., K)."""
        p = torch.sigmoid(self.logit(z))
        return torch.binomial(torch.full_like(p, N_DOTS), p, generator=generator)


def diffusion(inputs: FeatureInput, n_latent: int, n_hidden: int) -> Posterior:
    """DDVI's posterior."""
    return DiffusionPosterior(GaussianAnchor(inputs, n_latent, n_hidden), N_DIFFUSION, n_hidden)


@dataclass(frozen=True)
class Method:
    """A posterior, made of (inputs, n_latent, n_hidden), and what it is trained by."""

    make: Callable[[FeatureInput, int, int], Posterior]
    objective: Objective


METHODS = {
    "AEVB": Method(POSTERIORS["gaussian"], Unregularised()),
    "AEVB-IAF": Method(POSTERIORS["iaf"], Unregularised()),
    "AAEB": Method(POSTERIORS["adversarial"], Adversarial()),
    "H-AEVB": Method(POSTERIORS["hierarchical"], Unregularised()),
    "PIS": Method(partial(POSTERIORS["pis"], n_steps=N_DIFFUSION), Unregularised()),
    "DDVI": Method(diffusion, WakeSleep()),
    "DDVI, joint": Method(diffusion, JointWakeSleep()),
    "DDVI, unregularised": Method(diffusion, Unregularised()),
    "DDVI, simplified": Method(partial(BlindPosterior, n_steps=N_DIFFUSION), Simplified()),
    "neural spline flow": Method(POSTERIORS["nsf"], Unregularised()),
}
OPTIONAL = ("neural spline flow",)
"""Not a row of the paper's table."""


def make_model(method: Method, prior: str, n_features: int, seed: int) -> LatentModel:
    """Untrained; the decoder starts from the same weights whatever the method."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = BinomialDecoder(2, n_features, N_HIDDEN)
        inputs = FeatureInput(torch.full((n_features,), N_DOTS / 2))
        posterior = method.make(inputs, 2, N_HIDDEN)
    return LatentModel(make_prior(prior, 2, generator), decoder, posterior)


@dataclass(frozen=True)
class Digits:
    """One split: counts (n, 64) and digits (n,)."""

    train: np.ndarray
    test: np.ndarray
    train_label: np.ndarray
    test_label: np.ndarray

    @classmethod
    def split(cls, seed: int) -> Digits:
        """At random, without a look at the labels."""
        x, label = load_digits(return_X_y=True)
        train, test, train_label, test_label = train_test_split(
            x, label, test_size=HOLDOUT, random_state=seed
        )
        return cls(train, test, train_label, test_label)


def score(model: LatentModel, digits: Digits, seed: int) -> dict[str, float]:
    """Every column but the seconds; those of the bound only where there is one."""
    row = {}
    if not isinstance(model.posterior, POSTERIORS["adversarial"]):
        row["elbo"] = float(model.elbo(digits.test, n_draws=N_BOUND, seed=seed).mean())
        bound = model.iw_bound(digits.test, k=N_BOUND, n_repeats=1, seed=seed)
        row["iw_bound"] = float(bound.mean())
    train, test = (
        model.sample_posterior(x, n_draws=N_DRAWS, seed=seed + i)
        for i, x in enumerate((digits.train, digits.test))
    )
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        prior = model.prior.sample(N_PRIOR, generator).numpy()
    row["latent_nll"] = latent_nll(train, test.reshape(-1, 2), prior)
    # One draw of each digit at a time: draws of one digit are not independent of each other.
    row["mmd"] = 1000 * float(np.mean([squared_mmd(one, prior) for one in test]))
    row["knn"] = knn_transfer_accuracy(
        train.mean(0), digits.train_label, test.mean(0), digits.test_label
    )
    return row


def latent_nll(train: np.ndarray, test: np.ndarray, prior: np.ndarray) -> float:
    """Minus the mean log density of the aggregated posterior at draws of the prior, in nats.

    The density is a Gaussian kernel estimate from test (n, D). Its bandwidth is the one that, among
    the training draws (n_draws, n_samples, D), makes one draw a sample likeliest under another.
    """
    of_training = [kernel_density(train[0], train[1][: N_PRIOR // 2], b).mean() for b in BANDWIDTHS]
    bandwidth = BANDWIDTHS[int(np.argmax(of_training))]
    return -float(kernel_density(test, prior, bandwidth).mean())


def kernel_density(points: np.ndarray, at: np.ndarray, bandwidth: float) -> np.ndarray:
    """(m,) log density at `at` (m, D) of equal Gaussians around points (n, D)."""
    n, d = points.shape
    log_kernel = cdist(at, points, "sqeuclidean") / (-2 * bandwidth**2)
    constant = np.log(n) + 0.5 * d * np.log(2 * np.pi * bandwidth**2)
    density: np.ndarray = logsumexp(log_kernel, axis=1) - constant
    return density


def squared_mmd(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012) of (n, D) and (m, D).

    The kernel is the mean of Gaussians of sd .1, .3 and 1, the scales of the priors.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        half = cdist(a, b, "sqeuclidean") / -2
        return np.mean([np.exp(half / sd**2) for sd in (0.1, 0.3, 1.0)], axis=0)

    def within(a: np.ndarray) -> float:
        return (kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1))

    return float(within(first) + within(second) - 2 * kernel(first, second).mean())


PROVENANCE = ("code", "script", "versions")
"""Settings of which other ones need not mean other figures."""


def settings(n_steps: int) -> dict[str, Any]:
    """What results have to agree on to stand in one table."""
    return {
        "n_steps": n_steps,
        "batch": BATCH,
        "learning_rate": LEARNING_RATE,
        "n_hidden": N_HIDDEN,
        "n_diffusion": N_DIFFUSION,
        "holdout": HOLDOUT,
        "code": common.code_digest("ddvi", "baselines"),
        "script": common.digest(Path(__file__)),
        "versions": common.versions(),
    }


def train(
    model: LatentModel, digits: Digits, objective: Objective, n_steps: int, seed: int
) -> None:
    """With the settings that all methods share: as many steps of the decoder, whatever there is
    between them."""
    fit(
        model,
        digits.train,
        objective=objective,
        n_steps=n_steps * n_turns(objective),
        batch=BATCH,
        learning_rate=LEARNING_RATE,
        seed=seed,
    )


def fit_and_score(prior: str, name: str, seed: int, n_steps: int) -> dict[str, float]:
    """The row of one fit."""
    digits = Digits.split(seed)
    model = make_model(METHODS[name], prior, digits.train.shape[1], seed)
    start = time.process_time()
    train(model, digits, METHODS[name].objective, n_steps, seed)
    return {"cpu_seconds": time.process_time() - start} | score(model, digits, seed)


def recheck(path: Path, n_steps: int) -> None:
    """Forget all rows of each method of which the first seed of any prior comes out otherwise with
    the code of today, and take that for the code of the others."""
    results = common.read_json(path)
    mine = settings(n_steps)
    if not results or any(
        results["settings"].get(name) != mine[name] for name in mine if name not in PROVENANCE
    ):
        return
    changed = set()
    for prior, methods in results["priors"].items():
        for name, rows in methods.items():
            if name not in changed and rows:
                seed = min(rows, key=int)
                again = fit_and_score(prior, name, int(seed), n_steps)
                if again | {"cpu_seconds": 0} != rows[seed] | {"cpu_seconds": 0}:
                    changed.add(name)
    for name in changed:
        click.echo(f"{name}: comes out otherwise now, and is fitted again")
    kept = {
        prior: {name: rows for name, rows in methods.items() if name not in changed}
        for prior, methods in results["priors"].items()
    }
    common.write_json(path, {"settings": mine, "priors": kept})


def run(path: Path, prior: str, name: str, seed: int, n_steps: int) -> None:
    """Fit, score and record one method, unless that has been done."""
    done = common.read_json(path)["priors"].get(prior, {}).get(name, {})
    if str(seed) in done:
        return
    row = fit_and_score(prior, name, seed, n_steps)
    common.record(path, ["priors", prior, name, str(seed)], row)
    shown = " ".join(f"{key} {value:.3f}" for key, value in row.items())
    click.echo(f"seed {seed}, {prior}, {name}: {shown}")


def markdown(results: dict[str, Any], command: str) -> str:
    """A table for each prior: mean over seeds and its 95 % interval."""
    methods = results["priors"]
    done = sorted({int(s) for rows in methods.values() for seeds in rows.values() for s in seeds})
    of = results["settings"]
    tables = []
    for prior, title in PRIORS.items():
        rows = []
        for name in [name for name in METHODS if name in methods.get(prior, {})]:
            seeds = methods[prior][name]
            cells = [name]
            for column, (_, decimals) in COLUMNS.items():
                values = [row[column] for row in seeds.values() if column in row]
                cells.append(common.interval(values, decimals) if values else "none")
            rows.append(cells)
        header = ["method", *(title for title, _ in COLUMNS.values())]
        tables.append(f"## Prior: {title}\n\n{common.table(header, rows)}\n")
    is_default = of["n_steps"] == STEPS
    test = "" if is_default else " Settings of a test, not the default ones."
    body = "\n".join(tables)
    return f"""# Digits: any model, not only ours

scikit-learn's digits, 64 counts from 0 to {N_DOTS}, binomial likelihood, latents in the plane.
Seeds {", ".join(map(str, done))}: each decides the split, the start and the training. Cells: mean
over seeds ± half of its 95 % interval.{test} Every method: {of["n_steps"]:,} gradient steps of the
decoder on {BATCH} digits, learning rate {LEARNING_RATE:g}, networks of two layers of {N_HIDDEN},
chains of {N_DIFFUSION} steps.

{body}
ELBO, IW-{N_BOUND} bound: nats of a test digit, {N_BOUND} draws, higher is better; an adversarial
posterior has none. Latent NLL: minus log density of the aggregated posterior of the test digits
({N_DRAWS} draws each, Gaussian kernels, bandwidth chosen on training draws) at {N_PRIOR:,} draws of
the prior, lower is better. MMD²: between one draw of each test digit and the same draws of the
prior, unbiased, lower is better. kNN: share of test digits whose 15 nearest training digits, by
posterior means, vote for the right one. CPU s: of training.

DDVI takes a sleep step after each of these wake steps, as in the paper; "joint" is wake and sleep
in one step, "unregularised" wake alone, "simplified" a denoiser that sees no x.

Command: `{command}`
"""


@click.command(help=__doc__)
@click.option("--seeds", default=5, show_default=True, help="Seeds from 0.")
@click.option("--spline/--no-spline", default=False, help="The neural spline flow as well.")
@click.option("--only", multiple=True, type=click.Choice(list(METHODS)), help="These methods.")
@click.option("--steps", default=STEPS, show_default=True, help="Gradient steps of each fit.")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--fresh", is_flag=True, help="Forget earlier results.")
@click.option(
    "--recheck",
    "rechecked",
    is_flag=True,
    help="After a change of code: keep the methods whose first fits still come out the same.",
)
def main(
    seeds: int,
    spline: bool,
    only: tuple[str, ...],
    steps: int,
    out: Path,
    fresh: bool,
    rechecked: bool,
) -> None:
    path = out / "digits.json"
    torch.set_num_threads(1)
    if rechecked:
        recheck(path, steps)
    if not common.earlier_results(path, settings(steps), fresh=fresh):
        common.write_json(path, {"settings": settings(steps), "priors": {}})
    # What torch loads on its first steps is not a cost of the method that comes first.
    for method in METHODS.values():
        train(make_model(method, "square", 64, 0), Digits.split(0), method.objective, 2, 0)
    names = only or [name for name in METHODS if spline or name not in OPTIONAL]
    for seed in range(seeds):
        for prior in PRIORS:
            for name in names:
                run(path, prior, name, seed, steps)
    command = f"python benchmarks/digits.py --seeds {seeds}"
    command += " --spline" if spline else ""
    command += "".join(f' --only "{name}"' for name in only)
    command += f" --steps {steps}" if steps != STEPS else ""
    common.write_text(out / "digits.md", markdown(common.read_json(path), command))


if __name__ == "__main__":
    main()
