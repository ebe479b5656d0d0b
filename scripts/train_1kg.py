"""Train the reference model `1kg` and put it into the package.

All 2,504 bundled samples, default settings, seed 0, one thread; close relatives are placed and not
learnt from. The same data, code and library versions give the same file.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 python scripts/train_1kg.py
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import click
import torch

from ancestry_ddvi import load_model, read_genotypes
from ancestry_ddvi.checkpoint import EmbeddingModel
from ancestry_ddvi.console import Console, Verbosity
from ancestry_ddvi.loaders import label_levels, read_labels
from ancestry_ddvi.pipeline import EmbedConfig, fit_embedding, level_values, with_calls
from ancestry_ddvi.reference_models import MODELS

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
FIGURES = ROOT / "benchmarks" / "results" / "reference.json"


def train(map_steps: int | None) -> EmbeddingModel:
    """The model and what calls ancestry."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise click.UsageError("set the three variables as above: threads change the rounding")
    torch.set_num_threads(1)
    console = Console(Verbosity.NORMAL)
    genotypes = read_genotypes(DATA / "1kg_phase3_24k.vcf.gz")
    labels = read_labels(DATA / "1kg_phase3.panel.tsv", genotypes.sample_id)
    config = EmbedConfig()
    if map_steps is not None:
        config = replace(config, training=replace(config.training, map_steps=map_steps))
    fitted = fit_embedding(genotypes, config, console=console)
    with console.stage("learn ancestry calls"):
        levels = level_values(labels, label_levels(labels))
        model = with_calls(fitted, genotypes, *levels, config.seed)
    source = dict(genotypes.source) | {"path": "data/1kg_phase3_24k.vcf.gz"}
    return replace(model, provenance=dict(model.provenance) | {"input": source})


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=MODELS / "1kg")
@click.option("--map-steps", type=int, help="Fewer steps: a test of the script only.")
@click.option(
    "--figures-only", is_flag=True, help="Keep the model; put the figures of the benchmark in anew."
)
def main(out: Path, map_steps: int | None, figures_only: bool) -> None:
    model = load_model(out) if figures_only else train(map_steps)
    if FIGURES.exists():
        figures = {"held-out figures": json.loads(FIGURES.read_text("utf-8"))["card"]}
        model = replace(model, provenance=dict(model.provenance) | figures)
    if out.exists():
        shutil.rmtree(out)
    model.save(out)
    size = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
