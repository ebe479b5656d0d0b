"""A small real cut of the bundled data, and runs on it that many tests look at."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
import pysam
import pytest
from cli_helpers import QUICK, run_cli
from hypothesis import settings

# A machine that other work keeps busy is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

DATA = Path(__file__).parents[1] / "data"
POPULATIONS = ("CHB", "FIN", "GIH", "PEL", "TSI", "YRI")
N_EACH = 25
N_RECORDS = 2500


@dataclass(frozen=True)
class Cut:
    """Real samples of six populations at the first records of the bundled VCF.

    Attributes
    ----------
    vcf
        bgzip VCF of 150 samples.
    panel
        Their labels, shuffled: without the first two samples, with the other people's rows.
    few
        Ten samples, as a user of a reference model has them: plain text.
    sample_id
        Ids in the order of the VCF.
    population
        By sample id.
    """

    vcf: Path
    panel: Path
    few: Path
    sample_id: list[str]
    population: dict[str, str]


@pytest.fixture(scope="session")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """Cut the bundled data, a stream of its first lines."""
    folder = tmp_path_factory.mktemp("cut")
    panel = pd.read_csv(DATA / "1kg_phase3.panel.tsv", sep="\t", usecols=range(4))
    chosen = panel[panel["pop"].isin(POPULATIONS)].groupby("pop").head(N_EACH)
    population = dict(zip(chosen["sample"], chosen["pop"], strict=True))
    with gzip.open(DATA / "1kg_phase3_24k.vcf.gz", "rt") as file:
        meta = []
        for line in file:
            if not line.startswith("##"):
                break
            meta.append(line)
        header = line.rstrip("\n").split("\t")
        columns = [*range(9), *(i for i, name in enumerate(header) if name in population)]
        lines = ["\t".join(header[i] for i in columns) + "\n"]
        # Every fourth record, so that LD leaves enough of them.
        for record in islice(file, 0, 4 * N_RECORDS, 4):
            fields = record.rstrip("\n").split("\t")
            lines.append("\t".join([fields[i] for i in columns]) + "\n")
    plain = folder / "cut.vcf"
    plain.write_text("".join([*meta, *lines]))
    vcf = folder / "cut.vcf.gz"
    pysam.tabix_compress(str(plain), str(vcf), force=True)
    few = folder / "few.vcf"
    few.write_text("".join(meta + ["\t".join(x.split("\t")[:19]).rstrip() + "\n" for x in lines]))
    sample_id = [header[i] for i in columns[9:]]
    shuffled = panel[~panel["sample"].isin(sample_id[:2])].sample(frac=1, random_state=1)
    shuffled.to_csv(folder / "panel.tsv", sep="\t", index=False)
    return Cut(vcf, folder / "panel.tsv", few, sample_id, population)


@dataclass(frozen=True)
class Run:
    """A finished run of the command."""

    out: Path
    process: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def default_run(cut: Cut, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the whole command with default settings, in the one process that takes its time."""
    folder = tmp_path_factory.mktemp("default")
    process = run_cli("embed", cut.vcf, "--labels", cut.panel, cwd=folder, strict=True)
    return Run(folder / "cut.ddvi", process)


@pytest.fixture(scope="session")
def _quick_results(cut: Cut, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ancestry_ddvi.pipeline import embed_file

    out = tmp_path_factory.mktemp("quick") / "results"
    embed_file(cut.vcf, out_dir=out, labels_path=cut.panel, config=QUICK)
    return out


@pytest.fixture
def quick_results(_quick_results: Path, tmp_path: Path) -> Path:
    """Results of a roughly trained model, a copy that a test may harm."""
    return Path(shutil.copytree(_quick_results, tmp_path / "results"))
