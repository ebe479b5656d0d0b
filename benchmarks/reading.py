"""CPU seconds from a file to a genotype matrix, ours beside the fastest tools, one thread each.

Each route runs in fresh processes, which take turns: whole, and importing its libraries only. A
first round, not counted, warms the page cache and holds the matrices against each other. Ours
returns ids, the table of variants, counts of what was left out and a checksum beside the matrix;
the peers return the matrix alone.

    python benchmarks/reading.py --repeats 5
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import common

SEED = 0
N_DEEP = 3000  # variants with all of GT:AD:DP:GQ:PL
MISSING_WHOLE, MISSING_CUT = 0.01, 0.005  # shares of ./.:.:.:.:. and of ./.
DEPTH, DISPERSION, ERROR = 30, 10, 0.003
POOL = 20_000  # different cells of each genotype

QUIET: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL}


# The files.


def prepare(folder: Path) -> None:
    """The bundled data as PLINK 1 and 2, and a part of it as a sequence caller writes it."""
    plink2 = ["plink2", "--threads", "1", "--out", str(folder / "x")]
    subprocess.run([*plink2, "--vcf", str(common.GENOTYPES), "--make-pgen"], **QUIET)
    subprocess.run([*plink2, "--pfile", str(folder / "x"), "--make-bed"], **QUIET)
    write_deep(folder / "deep.vcf.gz")


def write_deep(path: Path) -> None:
    """Genotypes of the bundled data with reads drawn for them, and missing calls."""
    import numpy as np
    import pysam

    from ancestry_ddvi import read_genotypes

    rng = np.random.default_rng(SEED)
    genotypes = read_genotypes(common.GENOTYPES)
    calls = genotypes.dosage[:, :N_DEEP].T.astype(np.int64)
    cells = [cell for dosage in (0, 1, 2) for cell in _cells(dosage, rng)]
    which = POOL * calls + rng.integers(0, POOL, calls.shape)
    chance = rng.random(calls.shape)
    which[chance < MISSING_WHOLE + MISSING_CUT] = len(cells)
    which[chance < MISSING_CUT] = len(cells) + 1
    cells += ["./.:.:.:.:.", "./."]
    lines = [
        "##fileformat=VCFv4.2",
        *(f"##contig=<ID={contig}>" for contig in genotypes.variants["contig"].unique()),
        *(
            f'##FORMAT=<ID={key},Number={number},Type={kind},Description="{key}">'
            for key, number, kind in (
                ("GT", "1", "String"),
                ("AD", "R", "Integer"),
                ("DP", "1", "Integer"),
                ("GQ", "1", "Integer"),
                ("PL", "G", "Integer"),
            )
        ),
        "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]),
    ]
    with pysam.BGZFile(str(path), "w") as file:
        file.write("\t".join(["\n".join(lines), *genotypes.sample_id]).encode() + b"\n")
        sites = genotypes.variants.itertuples(index=False)
        for site, row in zip(sites, which.tolist(), strict=False):
            start = f"{site.contig}\t{site.position}\t.\t{site.ref}\t{site.alt}\t.\tPASS\t."
            text = "\t".join([start, "GT:AD:DP:GQ:PL", *(cells[i] for i in row)])
            file.write(text.encode() + b"\n")
    calls[which >= 3 * POOL] = -1
    path.with_suffix(".sha256").write_text(digest_of(calls.T))


def _cells(dosage: int, rng: Any) -> list[str]:
    """GT:AD:DP:GQ:PL of reads that a genotype gives: depth negative binomial, reads binomial."""
    import numpy as np

    depth = rng.negative_binomial(DISPERSION, DISPERSION / (DISPERSION + DEPTH), POOL).clip(1)
    share = np.array([ERROR, 0.5, 1 - ERROR])  # of ALT reads
    alt = rng.binomial(depth, share[dosage])
    ref = depth - alt
    phred = -10 * (ref[:, None] * np.log10(1 - share) + alt[:, None] * np.log10(share))
    pl = np.rint(phred - phred.min(axis=1, keepdims=True)).astype(int)
    gq = np.sort(pl, axis=1)[:, 1].clip(0, 99)
    gt = ("0/0", "0/1", "1/1")[dosage]
    return [
        f"{gt}:{r},{a}:{d}:{q}:{p[0]},{p[1]},{p[2]}"
        for r, a, d, q, p in zip(ref, alt, depth, gq, pl.tolist(), strict=True)
    ]


def digest_of(dosage: Any) -> str:
    """SHA-256 of (n_samples, n_variants) dosages; every library's code of missing becomes -1."""
    import numpy as np

    values = np.nan_to_num(dosage, nan=-1) if dosage.dtype.kind == "f" else dosage
    values = np.maximum(values, -1).astype(np.int8)
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


# The routes: each imports its libraries and returns what then reads a file.

Read = Callable[[str], Any]


def ours_vcf() -> Read:
    import pandas  # noqa: F401 - what the first reading would import

    import ancestry_ddvi.loaders.vcf  # noqa: F401
    from ancestry_ddvi import read_genotypes

    return lambda path: read_genotypes(path).dosage


def ours_htslib() -> Read:
    from ancestry_ddvi.loaders.read import read_sources
    from ancestry_ddvi.loaders.vcf import VcfSource

    ours_vcf()
    return lambda path: read_sources([VcfSource(path, fast=False)]).dosage


def ours_bed() -> Read:
    import ancestry_ddvi.loaders.plink1  # noqa: F401

    return ours_vcf()


def ours_pgen() -> Read:
    import ancestry_ddvi.loaders.guard
    import ancestry_ddvi.loaders.plink2  # noqa: F401

    return ours_vcf()


def ours_pgen_unguarded() -> Read:
    import pgenlib  # noqa: F401

    from ancestry_ddvi.loaders.plink2 import Plink2Source
    from ancestry_ddvi.loaders.read import read_sources

    ours_vcf()
    return lambda path: read_sources([Plink2Source(path)]).dosage


def pgenlib_sample_major() -> Read:
    import numpy as np
    import pgenlib

    def read(path: str) -> Any:
        reader = pgenlib.PgenReader(os.fsencode(path))
        n_variants = reader.get_variant_ct()
        dosage = np.empty((reader.get_raw_sample_ct(), n_variants), dtype=np.int8)
        reader.read_list(np.arange(n_variants, dtype=np.uint32), dosage, sample_maj=True)
        return dosage

    return read


def plink2_pgenlib() -> Read:
    then = pgenlib_sample_major()

    def read(path: str) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/x"
            command = ["plink2", "--threads", "1", "--vcf", path, "--make-pgen", "--out", out]
            subprocess.run(command, **QUIET)
            return then(f"{out}.pgen")

    return read


def scikit_allel() -> Read:
    import allel

    def read(path: str) -> Any:
        return allel.read_vcf(path, fields=["calldata/GT"])["calldata/GT"]

    return read


def cyvcf2_loop() -> Read:
    import numpy as np
    from cyvcf2 import VCF

    def read(path: str) -> Any:
        # A copy of each: cyvcf2 hands out memory of the record, which goes with it.
        types = np.array([v.gt_types.astype(np.int8) for v in VCF(path, gts012=True)])
        types[types == 3] = -1
        return types.T

    return read


def bed_reader(tables: bool = False, **options: Any) -> Read:
    from bed_reader import open_bed

    def read(path: str) -> Any:
        with open_bed(path, num_threads=1) as bed:
            dosage = bed.read(num_threads=1, **options)
            if tables:
                _ = bed.iid, bed.fid, bed.chromosome, bed.bp_position, bed.sid, bed.allele_1
                _ = bed.allele_2
        return dosage

    return read


ROUTES: dict[str, Callable[[], Read]] = {
    "ours": ours_vcf,
    "ours, htslib alone": ours_htslib,
    "plink2 --make-pgen, Pgenlib sample-major": plink2_pgenlib,
    "scikit-allel read_vcf, GT only": scikit_allel,
    "cyvcf2, a loop": cyvcf2_loop,
    "ours (.bed)": ours_bed,
    "bed-reader, int8, order C": lambda: bed_reader(dtype="int8", order="C"),
    "bed-reader, its defaults (float32, order F)": bed_reader,
    "bed-reader, int8, order C, and its .bim and .fam": lambda: bed_reader(
        tables=True, dtype="int8", order="C"
    ),
    "ours (.pgen)": ours_pgen,
    "ours, not in a child process": ours_pgen_unguarded,
    "Pgenlib, sample-major": pgenlib_sample_major,
}


@dataclass(frozen=True)
class Group:
    """Routes of one file, ours first; `goals` are the most that ours may take of a peer's time."""

    title: str
    file: str
    routes: tuple[str, ...]
    goals: dict[str, float]


BCFTOOLS = "bcftools view -Ou -o /dev/null"
GROUPS = (
    Group(
        "VCF.gz, GT only",
        "",
        tuple(ROUTES)[:5],
        {"plink2 --make-pgen, Pgenlib sample-major": 1.5, "scikit-allel read_vcf, GT only": 1 / 7},
    ),
    Group(
        "VCF.gz, GT:AD:DP:GQ:PL, missing calls",
        "deep.vcf.gz",
        ("ours", BCFTOOLS, "plink2 --make-pgen, Pgenlib sample-major"),
        {BCFTOOLS: 2.0},
    ),
    Group(
        ".bed",
        "x.bed",
        tuple(ROUTES)[5:9],
        {"bed-reader, int8, order C": 1.1},
    ),
    Group(".pgen", "x.pgen", tuple(ROUTES)[9:12], {"Pgenlib, sample-major": 1.1}),
)
START_UP = {
    "`ancestry-ddvi --help`": (["-m", "ancestry_ddvi", "--help"], 0.5),
    "`import ancestry_ddvi`": (["-c", "import ancestry_ddvi"], None),
    "`from ancestry_ddvi import read_genotypes`": (
        ["-c", "from ancestry_ddvi import read_genotypes"],
        None,
    ),
    "an empty Python": (["-c", ""], None),
}


# Measuring.


def command_of(route: str, path: str, part: str) -> list[str]:
    if route == BCFTOOLS:
        return ["bcftools", "view", "-Ou", "-o", "/dev/null", path]
    return [sys.executable, __file__, "--route", route, "--path", path, "--part", part]


def run_route(route: str, path: str, part: str) -> None:
    """What a fresh process does: import, then read, then tell the matrix's digest."""
    read = ROUTES[route]()
    if part == "imports":
        return
    dosage = read(path)
    if part == "check":
        if dosage.ndim == 3:  # scikit-allel's alleles, whose sum is not counted into its time
            dosage = dosage.sum(axis=2).T
        click.echo(digest_of(dosage))


def measure_group(group: Group, folder: Path, repeats: int) -> dict[str, Any]:
    path = str(folder / group.file if group.file else common.GENOTYPES)
    expected = (folder / "deep.vcf.sha256").read_text() if "deep" in path else None
    digests = {}
    for route in group.routes:
        said = common.run(command_of(route, path, "check")).said
        if route != BCFTOOLS:
            digests[route] = said.strip()
    if len({*digests.values(), expected} - {None}) != 1:
        raise click.ClickException(f"{group.title}: matrices differ: {digests}, not {expected}")
    times: dict[str, Any] = {route: {"whole": [], "imports": []} for route in group.routes}
    for _ in range(repeats):
        for route in group.routes:
            for part in ("whole", "imports"):
                seconds = 0.0
                if part == "whole" or route != BCFTOOLS:
                    seconds = common.run(command_of(route, path, part)).cpu_seconds
                times[route][part].append(round(seconds, 3))
    click.echo(f"{group.title}: {net(times[group.routes[0]]):.2f} CPU s")
    return {"digest": next(iter(digests.values())), "routes": times}


def net(times: dict[str, list[float]]) -> float:
    """CPU seconds without start-up and imports."""
    return median(times["whole"]) - median(times["imports"])


def group_table(group: Group, times: dict[str, Any]) -> str:
    ours = times[group.routes[0]]
    rows = []
    for route in group.routes:
        theirs = times[route]
        row = [route, common.spread(theirs["whole"], 2), f"{net(theirs):.2f}"]
        if route == group.routes[0]:
            row += ["", "", "", ""]
        else:
            ratios = median(ours["whole"]) / median(theirs["whole"]), net(ours) / net(theirs)
            row += [f"{ratio:.2f}" for ratio in ratios]
            goal = group.goals.get(route)
            row += ["", ""]
            if goal is not None:
                met = ["met" if ratio <= goal else "missed" for ratio in ratios]
                row[-2:] = f"{goal:.3g}", met[0] if met[0] == met[1] else ", ".join(met)
        rows.append(row)
    header = ["route", "CPU s", "without imports", "ours / this", "without imports", "goal", ""]
    return common.table(header, rows)


def markdown(results: dict[str, Any], command: str) -> str:
    parts = [
        f"## {group.title}\n\n{group_table(group, results['groups'][group.title]['routes'])}\n"
        for group in GROUPS
    ]
    rows = []
    for name, (_, goal) in START_UP.items():
        found = results["start_up"][name]
        met = "" if goal is None else "met" if median(found) < goal else "missed"
        rows.append([name, common.spread(found, 3), "" if goal is None else f"{goal}", met])
    return f"""# Reading: from a file to a matrix

`{results["data"]}` (2,504 samples, 23,770 SNPs) as VCF.gz, .bed and .pgen, and its first
{N_DEEP:,} SNPs with reads drawn for them (seed {SEED}; a negative binomial depth of mean {DEPTH};
{MISSING_WHOLE:.1%} of the calls `./.:.:.:.:.`, {MISSING_CUT:.1%} `./.`).
{results["machine"]}, one thread. Cells: CPU s (user + system, children included), median over
{results["repeats"]} fresh processes [least, most]; "without imports" is less the median of
processes that start and import only. All matrices of a table are equal, cell by cell; that of the
second also to the one drawn.

{os.linesep.join(parts)}
scikit-allel returns two alleles a call: their sum is not counted. `bcftools view` makes no matrix.
"ours" and "ours / this" mean the first row. Ours also reads .bim, .fam, .pvar and .psam, judges
every site, takes a SHA-256 of all files and builds the table of variants; .pgen is read in a child
process, since a damaged one can crash Pgenlib: a second interpreter, and the matrix comes through
a pipe.

## Start-up

{common.table(["", "CPU s", "goal", ""], rows)}

LD pruning is in `linkage.md`. {results["note"]}

Command: `{command}`
"""


@click.command(help=__doc__)
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--note", default="", help="What to say of the machine: was it quiet?")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--route", hidden=True)
@click.option("--path", hidden=True)
@click.option("--part", hidden=True)
def main(
    repeats: int, note: str, out: Path, route: str | None, path: str | None, part: str | None
) -> None:
    if part == "prepare":
        prepare(Path(path or ""))
        return
    if route and path and part:
        run_route(route, path, part)
        return
    results: dict[str, Any] = {
        "data": common.relative(common.GENOTYPES),
        "data_sha256": common.digest(common.GENOTYPES),
        "machine": common.machine(),
        "versions": common.versions(),
        "code": common.code_digest("loaders"),
        "repeats": repeats,
        "note": note,
    }
    for program in ("plink2", "bcftools"):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        results["versions"][program] = said.stdout.splitlines()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common.run([sys.executable, __file__, "--part", "prepare", "--path", name])
        results["groups"] = {g.title: measure_group(g, folder, repeats) for g in GROUPS}
    results["start_up"] = {
        name: [round(common.run([sys.executable, *command]).cpu_seconds, 3) for _ in range(repeats)]
        for name, (command, _) in START_UP.items()
    }
    common.write_json(out / "reading.json", results)
    command = f"python benchmarks/reading.py --repeats {repeats}"
    common.write_text(out / "reading.md", markdown(results, command))


if __name__ == "__main__":
    main()
