"""A trained model on disk: weights, settings and the feature extractor, nothing executable.

A model folder holds

    model.safetensors   tensors of the network and of the feature extractor
    variants.tsv        the variants used, one row each, in the order of the loadings
    model.json          format version, settings, provenance, SHA-256 of the two files above
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.errors import ModelFileError, OptionError
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.preprocessing.features import FeatureExtractor, Features

FORMAT_VERSION = 1
N_DRAWS = 200
"""Posterior draws behind every row of an embedding."""

_FILES = ("model.safetensors", "variants.tsv")


@dataclass(frozen=True)
class EmbeddingModel:
    """Feature extractor and latent variable model that belong together.

    Attributes
    ----------
    extractor
        Genotypes to features.
    model
        Features to posterior draws.
    provenance
        What it was trained on and with, JSON-ready.
    """

    extractor: FeatureExtractor
    model: AncestryModel
    provenance: dict[str, Any] = field(default_factory=dict)

    def embed(
        self, genotypes: GenotypeMatrix, *, n_draws: int = N_DRAWS, seed: int = 0
    ) -> EmbeddingTable:
        """Place samples that the model was not trained on.

        Raises
        ------
        NotEnoughDataError
            If too few of the model's variants are in the input.
        """
        features = self.extractor.transform(genotypes)
        return self.embed_features(features, genotypes.sample_id, n_draws=n_draws, seed=seed)

    def embed_features(
        self, features: Features, sample_id: np.ndarray, *, n_draws: int = N_DRAWS, seed: int = 0
    ) -> EmbeddingTable:
        """Embedding of samples whose features are known already."""
        draws = self.model.sample_posterior(features.x, features.noise, n_draws=n_draws, seed=seed)
        membership = self.model.membership(draws)
        return EmbeddingTable.from_draws(draws, sample_id, membership, features.x)

    def save(self, folder: Path) -> None:
        """Write the model folder, which must not exist yet."""
        from safetensors.numpy import save

        folder.mkdir(parents=True)
        arrays, settings = self.extractor.state()
        tensors = {f"extractor.{name}": np.ascontiguousarray(a) for name, a in arrays.items()}
        for name, tensor in self.model.state_dict().items():
            tensors[f"model.{name}"] = tensor.numpy()
        # Not save_file: its error of a full disk is no OSError.
        (folder / "model.safetensors").write_bytes(save(tensors))
        self.extractor.variants.to_csv(folder / "variants.tsv", sep="\t", index=False)
        description = {
            "format": FORMAT_VERSION,
            "model": self.model.config_dict(),
            "extractor": settings,
            "provenance": self.provenance,
            "sha256": {name: _sha256(folder / name) for name in _FILES},
        }
        text = json.dumps(description, indent=2, allow_nan=False, ensure_ascii=False)
        # A path in the provenance need not be valid unicode; JSON can say it with an escape.
        (folder / "model.json").write_text(text + "\n", "utf-8", errors="backslashreplace")


def load_model(path: str | Path) -> EmbeddingModel:
    """Load a model folder, or an output folder of `embed` that has one.

    Raises
    ------
    ModelFileError
        If the folder is missing, incomplete, altered, or of a newer format.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(path)
    if not (folder / "model.json").exists() and (folder / "model" / "model.json").exists():
        folder = folder / "model"
    description = _read_description(folder)
    try:
        stored = load_file(folder / "model.safetensors")
        settings = description["extractor"]
        variants = pd.read_csv(
            folder / "variants.tsv",
            sep="\t",
            dtype={"contig": str, "id": str, "ref": str, "alt": str},
            keep_default_na=False,
        )
        parts: dict[str, dict[str, np.ndarray]] = {"extractor": {}, "model": {}}
        for name, array in stored.items():
            room, _, rest = name.partition(".")
            parts[room][rest] = array
        extractor = FeatureExtractor.from_state(parts["extractor"], settings, variants)
        if len(extractor.loadings) != len(variants):
            raise ValueError(f"{len(extractor.loadings)} loadings for {len(variants)} variants")
        weights = {name: torch.from_numpy(array) for name, array in parts["model"].items()}
        model = AncestryModel(
            weights["posterior.anchor.inputs.scale"].numpy(),
            ModelConfig(**description["model"]),
            seed=0,
        )
        model.load_state_dict(weights)
        return EmbeddingModel(extractor, model, dict(description["provenance"]))
    except (
        *(AttributeError, KeyError, TypeError, ValueError, RuntimeError),
        *(SafetensorError, OSError, OptionError),
    ) as error:
        # The checksums agree, so the folder was written this way: not by this program.
        reason = repr(error).splitlines()[0]
        raise ModelFileError(
            f"{folder}: not a model of ancestry-ddvi, format {FORMAT_VERSION} ({reason}); train it "
            "again"
        ) from error


def _read_description(folder: Path) -> dict[str, Any]:
    """model.json, checked against the files beside it."""
    try:
        description: dict[str, Any] = json.loads((folder / "model.json").read_text("utf-8"))
        version, sums = int(description["format"]), dict(description["sha256"])
    except OSError as error:
        raise ModelFileError(
            f"{folder}: no model here (model.json: {error.strerror}); give the model/ folder that "
            "`ancestry-ddvi embed` wrote"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{folder / 'model.json'}: not a model description ({error}); copy the folder again"
        ) from error
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{folder}: model format {version} is newer than this program's {FORMAT_VERSION}; "
            "upgrade ancestry-ddvi"
        )
    for name in _FILES:
        path = folder / name
        try:
            found = _sha256(path)
        except OSError as error:
            raise ModelFileError(
                f"{path}: cannot be read ({error.strerror}); copy the whole model folder again"
            ) from error
        if found != sums.get(name):
            raise ModelFileError(
                f"{path}: the checksum differs from model.json, so the file was altered or cut "
                "short; copy the model folder again"
            )
    return description


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
