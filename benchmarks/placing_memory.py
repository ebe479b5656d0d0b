"""Memory and CPU seconds of placing ever more samples on the map of a model.

The samples are bundled ones, drawn with replacement under new names, with a few genotypes changed
and a few missing, in a PLINK .bed. `ancestry-ddvi embed FILE --model MODEL --no-pictures` runs in a
fresh process with one thread for each number of samples; a process of its own writes the file, so
that the memory of that is not counted.

    python benchmarks/placing_memory.py
    python benchmarks/placing_memory.py --size 50 --size 120  # a test of the script
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import common
from cost import measure

MODEL = "1kg"
SIZES = (1000, 10_000, 20_000, 40_000)
CHANGED, MISSED = 0.001, 0.001
"""Share of genotypes that are another dosage, and that are missing."""

TABLES = (".csv", ".tsv")


def write_samples(path: Path, n: int, seed: int) -> dict[str, int]:
    """Write n samples to a .bed; how many variants they have, and how many samples are placed at
    a time."""
    import numpy as np

    from ancestry_ddvi import read_genotypes
    from ancestry_ddvi.genotypes import MISSING
    from ancestry_ddvi.placing import AT_ONCE
    from ancestry_ddvi.writers import write_genotypes

    bundled = read_genotypes(common.GENOTYPES)
    rng = np.random.default_rng(seed)
    rows = rng.integers(bundled.n_samples, size=n)
    dosage = np.asfortranarray(bundled.dosage[rows])
    for share, value_of in (
        (CHANGED, lambda old: (old + rng.integers(1, 3, len(old))) % 3),
        (MISSED, lambda old: np.full(len(old), MISSING)),
    ):
        at = tuple(rng.integers(size, size=round(share * dosage.size)) for size in dosage.shape)
        dosage[at] = value_of(dosage[at])
    new = np.array([f"new{i}" for i in range(n)])
    write_genotypes(replace(bundled, dosage=dosage, sample_id=new), path)
    return {"variants": bundled.n_variants, "at_once": AT_ONCE}


def place(n: int, seed: int, model: str, folder: Path) -> dict[str, Any]:
    """Write n samples, place them, and what that took."""
    path, out = folder / f"{n}.bed", folder / "out"
    part = ["--part", str(path), "--size", str(n), "--seed", str(seed)]
    about = json.loads(common.run([sys.executable, __file__, *part]).said)
    command = [sys.executable, "-m", "ancestry_ddvi", "embed", str(path), "--model", model]
    cost = measure([*command, "--no-pictures", "--out", str(out), "--force"])
    for file in folder.glob(f"{n}.*"):
        file.unlink()
    written = [file.stat().st_size for file in out.iterdir() if file.suffix in TABLES]
    return {
        "samples": n,
        **about,
        **cost,
        "tables_mb": round(sum(written) / 2**20, 2),
        "stages": json.loads((out / "run.json").read_text())["cpu_seconds"],
    }


def told_of(model: Path) -> dict[str, Any]:
    """What results have to say of the model in a folder."""
    description = json.loads((model / "model.json").read_text())
    steps = description["provenance"]["config"]["training"]["map_steps"]
    return {"map_steps": steps, "sha256": description["sha256"]["model.json"]}


def genotypes_mb(run: dict[str, Any]) -> float:
    """Of the genotypes of all samples, a byte each."""
    return float(run["samples"] * run["variants"] / 2**20)


def growth(less: dict[str, Any], more: dict[str, Any], of: str) -> float:
    """MB a 1,000 samples that come on top."""
    return float(1000 * (more[of] - less[of]) / (more["samples"] - less["samples"]))


def in_words(runs: list[dict[str, Any]]) -> str:
    """How memory grows once there is more than one batch."""
    whole = [run for run in runs if run["samples"] >= run["at_once"]]
    if len(whole) < 2:
        return "No run has more samples than are placed at a time."
    less, more = whole[0], whole[-1]
    each = 1000 * genotypes_mb(more) / more["samples"]
    grows = growth(less, more, "peak_mb")
    verdict = "are not held" if grows < each / 2 else "**seem to be held**"
    return (
        f"From {less['samples']:,} to {more['samples']:,} samples memory grows by {grows:.1f} MB a "
        f"1,000 samples, whose\ngenotypes are {each:.1f} MB at a byte each: these {verdict}. The "
        f"tables that are written grow by\n{growth(less, more, 'tables_mb'):.2f} MB, as text."
    )


def markdown(results: dict[str, Any]) -> str:
    """The tables."""
    runs, model = results["runs"], results["model"]
    rows = [
        [
            f"{run['samples']:,}",
            f"{-(-run['samples'] // run['at_once'])}",
            f"{genotypes_mb(run):.0f}",
            f"{run['peak_mb']:.0f}",
            f"{run['cpu_seconds']:.1f}",
            f"{run['wall_seconds']:.1f}",
            f"{1000 * run['cpu_seconds'] / run['samples']:.2f}",
        ]
        for run in runs
    ]
    header = ["samples", "batches", "genotypes MB", "peak MB", "CPU s", "wall s"]
    stages = [
        [stage, *(f"{run['stages'][stage]:.1f}" for run in runs)] for stage in runs[0]["stages"]
    ]
    return f"""# Memory of placing many samples

Bundled samples (`{results["data"]}`) drawn with replacement, {100 * CHANGED:g} % of the genotypes
changed and {100 * MISSED:g} % missing, {runs[0]["variants"]:,} sites in a .bed. Read and placed are
{runs[0]["at_once"]:,} samples at a time. {results["machine"]}, one thread, fresh processes, imports
included. `ancestry-ddvi embed FILE --model {model["name"]} --no-pictures`; the model's map was
trained for {model["map_steps"]:,} steps, on which neither memory nor time depends.

{common.table([*header, "CPU s a 1,000 samples"], rows)}

{in_words(runs)}

CPU seconds are of these processes alone; in wall seconds is what else the machine did.

CPU seconds of the stages; loading the libraries is in none of them:

{common.table(["stage", *(f"{run['samples']:,}" for run in runs)], stages)}

Command: `{results["command"]}`
"""


@click.command(help=__doc__)
@click.option(
    "--model", default=MODEL, show_default=True, help="A name of the package, or a folder."
)
@click.option(
    "--size", "sizes", multiple=True, default=SIZES, show_default=True, type=click.IntRange(min=1)
)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--part", type=click.Path(path_type=Path), hidden=True, help="A file to write.")
def main(model: str, sizes: tuple[int, ...], seed: int, out: Path, part: Path | None) -> None:
    if part is not None:
        click.echo(json.dumps(write_samples(part, sizes[0], seed)))
        return
    given = model if model == MODEL else str(Path(model).resolve())
    options = [f" --model {Path(model).name}"] * (model != MODEL)
    options += [f" --size {n}" for n in sizes if sizes != SIZES]
    runs: list[dict[str, Any]] = []
    results: dict[str, Any] = {
        "data": common.relative(common.GENOTYPES),
        "data_sha256": common.digest(common.GENOTYPES),
        "seed": seed,
        "machine": common.machine(),
        "versions": common.versions(),
        "code": common.code_digest(),
        "command": f"python benchmarks/placing_memory.py --seed {seed}{''.join(options)}",
        "runs": runs,
    }
    with tempfile.TemporaryDirectory() as folder:
        for n in sorted(sizes):
            runs.append(place(n, seed, given, Path(folder)))
            click.echo(f"{n:,}: {runs[-1]['cpu_seconds']} CPU s, {runs[-1]['peak_mb']:.0f} MB")
        results["model"] = {"name": Path(model).name} | told_of(Path(folder) / "out" / "model")
    common.write_json(out / "placing_memory.json", results)
    text = markdown(results)
    common.write_text(out / "placing_memory.md", text)
    click.echo(text)


if __name__ == "__main__":
    main()
