"""CPU seconds and memory of the whole command beside PCA + UMAP from the same file.

Every run is a fresh process with one thread; ours and the peers take turns. A first round that is
not counted lets libraries write their caches.

    python benchmarks/cost.py --repeats 3
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click
import common

OURS = "ancestry-ddvi embed"
PEERS = {
    "PCA + UMAP": [],
    "exact PCA + UMAP": ["--exact"],
    "LD pruning + PCA + UMAP": ["--prune"],
}
CPU_FLOOR, RATIO_FLOOR, MEMORY_FLOOR_MB = 90, 3, 1500


def measure(command: list[str]) -> dict[str, float]:
    """Run a command to its end; its cost, rounded for the table."""
    done = common.run(command)
    peak = done.max_rss / (2**20 if sys.platform == "darwin" else 2**10)
    return {
        "cpu_seconds": round(done.cpu_seconds, 2),
        "wall_seconds": round(done.wall_seconds, 2),
        "peak_mb": round(peak, 1),
    }


def run_ours(genotypes: Path, folder: Path) -> dict[str, Any]:
    out = folder / "ours"
    command = [sys.executable, "-m", "ancestry_ddvi", "embed", str(genotypes)]
    result: dict[str, Any] = measure(
        [*command, "--labels", str(common.PANEL), "--out", str(out), "--force"]
    )
    result["stages"] = json.loads((out / "run.json").read_text())["cpu_seconds"]
    return result


def run_peer(genotypes: Path, folder: Path, options: list[str]) -> dict[str, Any]:
    script = str(Path(__file__).with_name("peer_pca_umap.py"))
    out = folder / "peer.csv"
    return dict(measure([sys.executable, script, str(genotypes), str(out), *options]))


def markdown(results: dict[str, Any], command: str) -> str:
    """Medians over repeats [least, most]."""
    runs = results["runs"]

    def middle(name: str, key: str) -> float:
        return float(median(r[key] for r in runs[name]))

    rows = []
    for name, repeats in runs.items():
        cells = [common.spread([r[k] for r in repeats], 1) for k in ("cpu_seconds", "wall_seconds")]
        cells.append(common.spread([r["peak_mb"] for r in repeats], 0))
        ratio = middle(OURS, "cpu_seconds") / middle(name, "cpu_seconds")
        rows.append([name, *cells, "" if name == OURS else f"{ratio:.2f}"])
    limits = [f"{CPU_FLOOR}", "", f"{MEMORY_FLOOR_MB}", f"{RATIO_FLOOR}"]
    rows.append([f"**limits for {OURS}**", *limits])
    stages = [
        [stage, common.spread([r["stages"][stage] for r in runs[OURS]], 1)]
        for stage in runs[OURS][0]["stages"]
    ]
    header = ["command", "CPU s", "wall s", "peak MB", "ours / this, CPU s"]
    return f"""# Cost of the whole command

`{results["data"]}`, {results["machine"]}; one thread each, fresh processes that take turns.
Cells: median over repeats [least, most]. CPU s: user + system.

{common.table(header, rows)}

Ours reads, filters, prunes, trains, draws from the posterior, scores against labels and writes
report and pictures. The peers (`benchmarks/peer_pca_umap.py`) read with scikit-allel, keep common
SNPs, take 20 principal components, lay them out by UMAP and write coordinates; no scores, no
pictures.

CPU seconds of our stages; loading the libraries is in none of them:

{common.table(["stage", "CPU s"], stages)}

Command: `{command}`
"""


@click.command(help=__doc__)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--genotypes", type=click.Path(path_type=Path), default=common.GENOTYPES)
@click.option("--warm-up/--no-warm-up", default=True, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
def main(repeats: int, genotypes: Path, warm_up: bool, out: Path) -> None:
    path, genotypes = out / "cost.json", genotypes.resolve()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (OURS, *PEERS)}
    results = {
        "data": common.relative(genotypes),
        "data_sha256": common.digest(genotypes),
        "machine": common.machine(),
        "versions": common.versions(),
        "code": common.code_digest(),
        "runs": runs,
    }
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(-int(warm_up), repeats):
            for name in runs:
                if name == OURS:
                    result = run_ours(genotypes, Path(folder))
                else:
                    result = run_peer(genotypes, Path(folder), PEERS[name])
                said = "not counted" if turn < 0 else f"{turn + 1} of {repeats}"
                click.echo(f"{name} ({said}): {result['cpu_seconds']} CPU s")
                if turn >= 0:
                    runs[name].append(result)
                    common.write_json(path, results)
    command = f"python benchmarks/cost.py --repeats {repeats}"
    command += "" if warm_up else " --no-warm-up"
    command += f" --genotypes {results['data']}" if genotypes != common.GENOTYPES else ""
    common.write_text(out / "cost.md", markdown(results, command))


if __name__ == "__main__":
    main()
