"""Ancestry embeddings with honest uncertainty, by denoising diffusion variational inference.

    genotypes = read_genotypes("genotypes.vcf.gz")
    fitted = fit_embedding(genotypes)
    fitted.table.frame                     # sample_id, z1, z2, z1_sd, z2_sd, cluster, ...
    load_model("out/model").embed(more)    # new samples on the same map

Names are looked up on first use: torch takes seconds to import, `ancestry-ddvi --help` should not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ancestry_ddvi.checkpoint import EmbeddingModel, load_model
    from ancestry_ddvi.ddvi.model import ModelConfig
    from ancestry_ddvi.embedding import EmbeddingTable
    from ancestry_ddvi.estimator import DDVI
    from ancestry_ddvi.fitting import EmbedConfig, fit_embedding
    from ancestry_ddvi.genotypes import GenotypeMatrix
    from ancestry_ddvi.loaders import read_genotypes, read_labels

__version__ = "0.1.0"

_HOME = {
    "DDVI": "ancestry_ddvi.estimator",
    "EmbedConfig": "ancestry_ddvi.fitting",
    "EmbeddingModel": "ancestry_ddvi.checkpoint",
    "EmbeddingTable": "ancestry_ddvi.embedding",
    "GenotypeMatrix": "ancestry_ddvi.genotypes",
    "ModelConfig": "ancestry_ddvi.ddvi.model",
    "fit_embedding": "ancestry_ddvi.fitting",
    "load_model": "ancestry_ddvi.checkpoint",
    "read_genotypes": "ancestry_ddvi.loaders",
    "read_labels": "ancestry_ddvi.loaders",
}

__all__ = [
    "DDVI",
    "EmbedConfig",
    "EmbeddingModel",
    "EmbeddingTable",
    "GenotypeMatrix",
    "ModelConfig",
    "__version__",
    "fit_embedding",
    "load_model",
    "read_genotypes",
    "read_labels",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
