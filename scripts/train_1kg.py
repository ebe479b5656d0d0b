"""Train the reference model `1kg` and put it into the package.

All 2,504 bundled samples, default settings, seed 0, one thread; close relatives are placed and not
learnt from. The same data, code and library versions give the same file. Its card has the figures
of `benchmarks/reference.py`, if these were measured with the same settings, code and data.

    python scripts/train_1kg.py
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import click
import common  # before torch: one thread, for threads change the rounding
import torch
from reference_tables import CODE

from ancestry_ddvi import GenotypeMatrix, load_model, read_genotypes
from ancestry_ddvi.checkpoint import EmbeddingModel
from ancestry_ddvi.console import Console, Verbosity
from ancestry_ddvi.fitting import EmbedConfig, fit_embedding, with_calls
from ancestry_ddvi.labelling import SampleLabels
from ancestry_ddvi.loaders import label_levels, read_labels
from ancestry_ddvi.reference_models import MODELS

FIGURES = common.RESULTS / "reference.json"
MIN_SEEDS = 5
MADE_FROM = "made from"


def made_from(genotypes: GenotypeMatrix, config: EmbedConfig) -> dict[str, Any]:
    """What figures and model have to agree on, named as in the settings of the benchmark."""
    return {
        "data_sha256": genotypes.source["sha256"],
        "panel_sha256": common.digest(common.PANEL),
        "n_samples": genotypes.n_samples,
        "config": common.stored(asdict(config)),
        "code": common.code_digest(*CODE),
    }


def held_out_figures(results: Mapping[str, Any], of: Mapping[str, Any]) -> dict[str, Any]:
    """The card that the benchmark made, if it is of models like that which `of` describes.

    Raises
    ------
    click.ClickException
        If it is not, or not complete.
    """
    settings = results.get("settings", {})
    wrong = [
        f"{name} differs"
        for name in ("data_sha256", "panel_sha256", "n_samples", "config", "code")
        if name not in of or settings.get(name) != of[name]
    ]
    runs = {"seeds": results.get("seeds", {}), **results.get("left_out", {})}
    wrong += [
        f"{len(of_run)} of {MIN_SEEDS} {name if name == 'seeds' else f'seeds without {name}'}"
        for name, of_run in runs.items()
        if len(of_run) < MIN_SEEDS
    ]
    wrong += [f"no {name}" for name in ("left_out", "card") if not results.get(name)]
    if wrong:
        raise click.ClickException(
            f"{common.relative(FIGURES)} is not of this model ({', '.join(wrong)}); measure again "
            "with `python benchmarks/reference.py --fresh`, or leave it out with --no-figures"
        )
    card: dict[str, Any] = results["card"]
    return card


def train(genotypes: GenotypeMatrix, config: EmbedConfig) -> EmbeddingModel:
    """The model and what calls ancestry."""
    torch.set_num_threads(1)
    console = Console(Verbosity.NORMAL)
    table = read_labels(common.PANEL, genotypes.sample_id)
    labels = SampleLabels(table, label_levels(table))
    fitted = fit_embedding(genotypes, config, console=console)
    with console.stage("learn ancestry calls"):
        known = labels.population, labels.superpopulation
        return with_calls(fitted, genotypes, *known, config.seed)


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=MODELS / "1kg")
@click.option("--map-steps", type=int, help="Fewer steps: a test of the script only.")
@click.option(
    "--figures-only", is_flag=True, help="Keep the model; put the figures of the benchmark in anew."
)
@click.option("--no-figures", is_flag=True, help="Leave the figures of the benchmark out.")
def main(out: Path, map_steps: int | None, figures_only: bool, no_figures: bool) -> None:
    # What it is made from is known before the minutes of training.
    model, genotypes, config = None, None, EmbedConfig()
    if figures_only:
        model = load_model(out)
        made: dict[str, Any] = dict(model.provenance.get(MADE_FROM, {}))
    else:
        if map_steps is not None:
            config = replace(config, training=replace(config.training, map_steps=map_steps))
        genotypes = read_genotypes(common.GENOTYPES)
        made = made_from(genotypes, config)
    figures = None if no_figures else held_out_figures(common.read_json(FIGURES), made)
    if model is None:
        model = train(genotypes, config)
        source = dict(genotypes.source) | {"path": common.relative(common.GENOTYPES)}
        model = replace(model, provenance=dict(model.provenance) | {"input": source})
    provenance = {k: v for k, v in model.provenance.items() if k != "held-out figures"}
    if made:  # not of a model from before it was recorded
        provenance[MADE_FROM] = made
    if figures is not None:
        provenance["held-out figures"] = figures
    if out.exists():
        shutil.rmtree(out)
    replace(model, provenance=provenance).save(out)
    size = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
