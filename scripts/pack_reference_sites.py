"""Pack data/1kg_phase3_24k.sites.tsv into the package: `python scripts/pack_reference_sites.py`.

Positions are stored as differences to the one before, which halves the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ancestry_ddvi.reference_sites import BASES, BUILDS

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "data" / "1kg_phase3_24k.sites.tsv"
PACKED = ROOT / "ancestry_ddvi" / "resources" / "1kg_sites.npz"


def pack(table: Path, out: Path) -> None:
    """Write the sites of a table; an empty position becomes 0."""
    sites = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False)
    position = {
        build: sites[f"pos_{build.lower()}"].replace("", "0").to_numpy().astype(np.int64)
        for build in BUILDS
    }
    ref, alt = (sites[column].map(BASES.index).to_numpy() for column in ("ref", "alt"))
    np.savez_compressed(
        out,
        allow_pickle=False,
        contig=sites["contig"].to_numpy().astype(np.uint8),
        alleles=(ref * len(BASES) + alt).astype(np.uint8),
        **{build: np.diff(p, prepend=0).astype(np.int32) for build, p in position.items()},
    )


if __name__ == "__main__":
    PACKED.parent.mkdir(exist_ok=True)
    pack(TABLE, PACKED)
