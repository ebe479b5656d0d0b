"""What every benchmark shares and that loads fast: paths, results files, tables, provenance."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ancestry_ddvi import GenotypeMatrix

ROOT = Path(__file__).resolve().parent.parent
GENOTYPES = ROOT / "data" / "1kg_phase3_24k.vcf.gz"
PANEL = ROOT / "data" / "1kg_phase3.panel.tsv"
RESULTS = ROOT / "benchmarks" / "results"
LIBRARIES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-allel",
    "torch",
    "cyvcf2",
    "umap-learn",
    "openTSNE",
)


# One thread, so that CPU seconds and results compare. Libraries read these when they are loaded:
# import this module before any of them.
for _name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"


def relative(path: Path) -> str:
    """The path as seen from the repository, so that results name no machine's folders."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def digest(*paths: Path) -> str:
    """SHA-256 of the contents of files, one after the other."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def random_cut(genotypes: GenotypeMatrix, n_samples: int, n_variants: int) -> GenotypeMatrix:
    """So many samples and variants at random, in their order: small data for a test of a script."""
    import numpy as np

    rng = np.random.default_rng(0)
    cut = zip(genotypes.dosage.shape, (n_samples, n_variants), strict=True)
    samples, variants = (np.sort(rng.permutation(of)[:n]) for of, n in cut)
    return genotypes.select(samples=samples, variants=variants)


def code_digest(*folders: str) -> str:
    """SHA-256 of our source below the folders of the package; all of it if none is named."""
    package = ROOT / "ancestry_ddvi"
    places = [package / folder for folder in folders] or [package]
    return digest(*sorted(p for place in places for p in place.rglob("*.py")))


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Processor and cores in words."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


@dataclass(frozen=True)
class Finished:
    """A command that ran to its end: what it printed and what it took, its children included.

    Attributes
    ----------
    said
        Its standard output.
    cpu_seconds, wall_seconds
        User and system time; time of the clock.
    max_rss
        Largest resident set, in the system's unit: bytes on macOS, else KiB.
    """

    said: str
    cpu_seconds: float
    wall_seconds: float
    max_rss: int


def run(command: Sequence[str]) -> Finished:
    """Run a command from the repository to its end.

    `wait4` gives the usage of this child alone. A child's peak is never below that of its parent
    when it was started, so a script that asks for it loads nothing large.

    Raises
    ------
    click.ClickException
        If it fails, with what it printed.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said, complained = (file.read().decode(errors="replace") for file in (out, err))
        if process.returncode:
            raise click.ClickException(f"{' '.join(command)} failed:\n{said}{complained}")
    seconds = usage.ru_utime + usage.ru_stime
    return Finished(said, seconds, time.perf_counter() - start, usage.ru_maxrss)


def stored(data: dict[str, Any]) -> dict[str, Any]:
    """As it is when read from a results file again, where tuples are lists."""
    again: dict[str, Any] = json.loads(json.dumps(data))
    return again


def settings_in_words(config: dict[str, Any], defaults: Any) -> str:
    """Whether a stored config is that of a dataclass of defaults, some of which may be newer."""
    expected = stored(asdict(defaults))
    if config == expected:
        return "default settings"
    if config == _known_to(config, expected):
        return "default settings as they were when this was measured"
    return "settings of a test, not the default ones"


def _known_to(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Those of the defaults that the config has, part by part."""
    return {
        name: _known_to(config[name], value) if isinstance(value, dict) else value
        for name, value in defaults.items()
        if name in config
    }


def read_json(path: Path) -> dict[str, Any]:
    """Earlier results; empty if there are none."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def earlier_results(path: Path, settings: dict[str, Any], *, fresh: bool) -> dict[str, Any]:
    """Results to go on from; empty if there are none, or with `fresh`.

    Raises
    ------
    click.ClickException
        If they are of other settings: they could not stand in one table with new ones.
    """
    earlier = {} if fresh else read_json(path)
    if earlier and earlier["settings"] != settings:
        raise click.ClickException(
            f"{path} holds results of other settings, code or data; start over with --fresh"
        )
    return earlier


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def record(path: Path, keys: Sequence[str], value: Any) -> None:
    """Set one nested entry of a JSON file, keeping what others wrote in the meantime."""
    data = read_json(path)
    place = data
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    write_json(path, data)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table, first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median and, if there are several values, [least, most]."""
    if not values:
        return ""
    text = f"{median(values):.{digits}f}"
    if len(values) > 1:
        text += f" [{min(values):.{digits}f}, {max(values):.{digits}f}]"
    return text


def interval(values: Sequence[float], digits: int = 3) -> str:
    """Mean and, if there are several values, half of its 95 % interval by Student's t."""
    text = f"{mean(values):.{digits}f}"
    if len(values) > 1:
        from scipy.stats import t

        half = t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
        text += f" ± {half:.{digits}f}"
    return text
