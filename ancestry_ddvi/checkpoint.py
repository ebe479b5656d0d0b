"""A trained model on disk: weights, settings and the feature extractor, nothing executable.

A model folder holds

    model.safetensors   tensors of the network and of the feature extractor; hashes of the ids of
                        the training samples
    variants.tsv        the variants used, one row each, in the order of the loadings
    model.json          format version, settings, provenance, SHA-256 of the other files and of
                        all that it says itself

and, of a labelled reference,

    ancestry.safetensors    alleles counted by population, and in whom; calibration, places of the
                            reference
    sites.tsv               the sites that they are of
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from ancestry_ddvi.ancestry import AncestryCaller
from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.embedding import EmbeddingTable, ReferencePlaces
from ancestry_ddvi.errors import ModelFileError, NotEnoughDataError, OptionError
from ancestry_ddvi.genotypes import VARIANT_COLUMNS, GenotypeMatrix, id_hash
from ancestry_ddvi.preprocessing.alignment import OF_CALLS, match
from ancestry_ddvi.preprocessing.features import FeatureExtractor, Features

FORMAT_VERSION = 6
N_DRAWS = 200
"""Posterior draws behind every row of an embedding."""

MAX_DEPTH = 20
"""Of tables and lists within each other in model.json; a model's own are not half as deep. What
shows or writes a description cannot go as deep as what reads it."""

_DESCRIPTION = "model.json"
_FILES = ("model.safetensors", "variants.tsv")
_ANCESTRY_FILES = ("ancestry.safetensors", "sites.tsv")


@dataclass(frozen=True)
class EmbeddingModel:
    """Feature extractor and latent variable model that belong together.

    Attributes
    ----------
    extractor
        Genotypes to features.
    model
        Features to posterior draws.
    trained_on
        (n_training_samples,) uint64, ascending: `id_hash` of the samples that were learnt from.
    provenance
        What it was trained on and with, JSON-ready.
    caller, places
        Of a labelled reference: what calls ancestry, and where its samples are.
    """

    extractor: FeatureExtractor
    model: AncestryModel
    trained_on: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)
    caller: AncestryCaller | None = None
    places: ReferencePlaces | None = None

    @property
    def tables(self) -> tuple[pd.DataFrame, ...]:
        """All variants that it can use, for reading no others: of its map, and of its calls."""
        own = self.extractor.variants
        return (own,) if self.caller is None else (own, self.caller.variants)

    def was_trained_on(self, sample_id: np.ndarray) -> np.ndarray:
        """(n_samples,) bool: samples whose id is that of one the model was trained on."""
        return np.isin(id_hash(sample_id), self.trained_on)

    def embed(
        self,
        genotypes: GenotypeMatrix,
        *,
        n_draws: int = N_DRAWS,
        seed: int = 0,
        absent_is_ref: bool = False,
    ) -> EmbeddingTable:
        """Place samples that the model was not trained on.

        `absent_is_ref`: see `FeatureExtractor.transform`.

        Raises
        ------
        NotEnoughDataError
            If too few of the model's variants are in the input.
        """
        features = self.features(genotypes, absent_is_ref=absent_is_ref)
        return self.embed_features(features, genotypes.sample_id, n_draws=n_draws, seed=seed)

    def features(
        self, genotypes: GenotypeMatrix, *, absent_is_ref: bool = False, n_all: int | None = None
    ) -> Features:
        """`FeatureExtractor.transform`; its error also tells what a file has of the sites that
        ancestry is called from, which may be more than those of the map."""
        try:
            return self.extractor.transform(genotypes, absent_is_ref=absent_is_ref, n_all=n_all)
        except NotEnoughDataError as error:
            if self.caller is None:
                raise
            sites = match(genotypes, self.caller.variants).matched
            if not sites.found:
                raise
            raise NotEnoughDataError(
                f"{error}; of the {sites.total:,} {OF_CALLS} it has "
                f"{sites.found:,}, and the map is made of the unlinked ones alone"
            ) from error

    def embed_features(
        self,
        features: Features,
        sample_id: np.ndarray,
        *,
        n_draws: int = N_DRAWS,
        seed: int = 0,
        keep_draws: bool = False,
    ) -> EmbeddingTable:
        """Embedding of samples whose features are known already."""
        draws, elbo = self.model.draw(
            features.x, features.noise, n_draws=n_draws, seed=seed, key=id_hash(sample_id)
        )
        cluster = self.model.cluster_probability(features.x, features.noise, draws)
        classes = on_map = None
        if self.model.classifier is not None:
            classes = pd.DataFrame(
                self.model.class_probability(features.x, features.noise),
                columns=list(self.model.config.classes),
            )
            on_map = self.model.class_probability_of(draws)
        pcs = features.x[:, : len(self.extractor.eigenvalue)]
        table = EmbeddingTable.from_draws(draws, sample_id, cluster, pcs, elbo, classes, on_map)
        return replace(table, draws=draws) if keep_draws else table

    def save(self, path: str | Path) -> None:
        """Write the model folder, which must not exist yet."""
        from safetensors.numpy import save

        folder = Path(path)
        folder.mkdir(parents=True)
        arrays, settings = self.extractor.state()
        tensors = {f"extractor.{name}": np.ascontiguousarray(a) for name, a in arrays.items()}
        for name, tensor in self.model.state_dict().items():
            tensors[f"model.{name}"] = tensor.numpy()
        tensors["samples.trained_on"] = self.trained_on
        # Not save_file: its error of a full disk is no OSError.
        (folder / "model.safetensors").write_bytes(save(tensors))
        self.extractor.variants.to_csv(folder / "variants.tsv", sep="\t", index=False)
        files: Sequence[str] = _FILES
        ancestry: dict[str, Any] | None = None
        if self.caller is not None and self.places is not None:
            files = _FILES + _ANCESTRY_FILES
            arrays, ancestry = self.caller.state()
            tensors = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
            tensors["places.z"] = self.places.z
            for level in ("population", "superpopulation"):
                names, number = np.unique(getattr(self.places, level), return_inverse=True)
                tensors[f"places.{level}"] = number.astype(np.int32)
                ancestry[f"places.{level}"] = names.tolist()
            (folder / "ancestry.safetensors").write_bytes(save(tensors))
            self.caller.variants.to_csv(folder / "sites.tsv", sep="\t", index=False)
        description: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "model": self.model.config_dict(),
            "extractor": settings,
            "ancestry": ancestry,
            "provenance": self.provenance,
            "sha256": {name: _sha256(folder / name) for name in files},
        }
        description["sha256"][_DESCRIPTION] = _own_sha256(description)
        text = json.dumps(description, indent=2, allow_nan=False, ensure_ascii=False)
        # A path in the provenance need not be valid unicode; JSON can say it with an escape.
        (folder / _DESCRIPTION).write_text(text + "\n", "utf-8", errors="backslashreplace")


def load_model(path: str | Path) -> EmbeddingModel:
    """Load a model folder, or an output folder of `embed` that has one.

    Raises
    ------
    ModelFileError
        If the folder is missing, incomplete, altered, of another format, or holds a value that no
        training gives.
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
        variants = _read_variants(folder / "variants.tsv")
        parts: dict[str, dict[str, np.ndarray]] = {"extractor": {}, "model": {}, "samples": {}}
        for name, array in stored.items():
            room, _, rest = name.partition(".")
            parts[room][rest] = array
        _check_values(folder, description, parts)
        extractor = FeatureExtractor.from_state(parts["extractor"], settings, variants)
        if len(extractor.loadings) != len(variants):
            raise ValueError(f"{len(extractor.loadings)} loadings for {len(variants)} variants")
        weights = {name: torch.from_numpy(array) for name, array in parts["model"].items()}
        model = AncestryModel(
            weights["posterior.anchor.inputs.scale"].numpy(),
            ModelConfig(**description["model"]),
            seed=0,
        )
        if not torch.equal(model.cluster, weights["cluster"]):
            raise ValueError("clusters of another prior")
        model.load_state_dict(weights)
        trained_on = parts["samples"]["trained_on"]
        caller, places = _read_ancestry(folder, description["ancestry"])
        provenance = dict(description["provenance"])
        return EmbeddingModel(extractor, model, trained_on, provenance, caller, places)
    except (
        *(AttributeError, KeyError, TypeError, ValueError, RuntimeError, OverflowError, IndexError),
        *(SafetensorError, OSError, OptionError),
    ) as error:
        # The checksums agree, so the folder was written this way: not by this program.
        reason = repr(error).splitlines()[0]
        raise ModelFileError(
            f"{folder}: not a model of ancestry-ddvi, format {FORMAT_VERSION} ({reason}); train it "
            "again"
        ) from error


def _read_variants(path: Path) -> pd.DataFrame:
    table = pd.read_csv(
        path,
        sep="\t",
        dtype={"contig": str, "id": str, "ref": str, "alt": str},
        keep_default_na=False,
    )
    return table[list(VARIANT_COLUMNS)]


def _read_ancestry(
    folder: Path, settings: dict[str, Any] | None
) -> tuple[AncestryCaller | None, ReferencePlaces | None]:
    from safetensors.numpy import load_file

    if settings is None:
        return None, None
    arrays = load_file(folder / "ancestry.safetensors")
    for name, array in arrays.items():
        # The power of typicality is nan where no group could be left out.
        if not np.isfinite(array).all() and not name.endswith(".power"):
            raise ValueError(f"{name} in ancestry.safetensors is not finite")
    caller = AncestryCaller.from_state(arrays, settings, _read_variants(folder / "sites.tsv"))
    z, labels = arrays["places.z"], []
    for level in ("population", "superpopulation"):
        names, number = settings[f"places.{level}"], arrays[f"places.{level}"]
        if not isinstance(names, list) or not all(isinstance(x, str) for x in names):
            raise ValueError(f"ancestry.places.{level} is no list of names")
        if number.shape != (len(z),) or not ((number >= 0) & (number < len(names))).all():
            raise ValueError(f"ancestry.places.{level} are not as many as there are numbers")
        labels.append(np.array(names, dtype=str)[number])
    return caller, ReferencePlaces(z, *labels)


def _read_description(folder: Path) -> dict[str, Any]:
    """model.json, checked against the files beside it."""
    try:
        description: dict[str, Any] = json.loads(
            (folder / "model.json").read_text("utf-8"),
            parse_float=_finite,
            parse_constant=_finite,
        )
        if _depth(description) > MAX_DEPTH:
            raise ValueError(f"tables and lists more than {MAX_DEPTH} deep")
        version, sums = description["format"], dict(description["sha256"])
    except OSError as error:
        raise ModelFileError(
            f"{folder}: no model here (model.json: {error.strerror}); give the model/ folder that "
            "`ancestry-ddvi embed` wrote"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(
            f"{folder / 'model.json'}: not a model description ({error}); copy the folder again"
        ) from error
    if type(version) is not int or version != FORMAT_VERSION:
        raise ModelFileError(
            f"{folder / 'model.json'}: format is {_short(version)}, and this program reads "
            f"{FORMAT_VERSION}; train the model again, or use the version that wrote it"
        )
    files: Sequence[str] = _FILES
    if description.get("ancestry") is not None:
        files = _FILES + _ANCESTRY_FILES
    for name in (_DESCRIPTION, *files):
        path = folder / name
        try:
            whole = description | {"sha256": sums}
            found = _own_sha256(whole) if name == _DESCRIPTION else _sha256(path)
        except OSError as error:
            raise ModelFileError(
                f"{path}: cannot be read ({error.strerror}); copy the whole model folder again"
            ) from error
        if found != sums.get(name):
            raise ModelFileError(
                f"{path}: the checksum in model.json differs, so it was altered or cut short; "
                "copy the model folder again"
            )
    return description


def _own_sha256(description: dict[str, Any]) -> str:
    """Of a description without its own checksum, however it is laid out."""
    sums = {k: v for k, v in description["sha256"].items() if k != _DESCRIPTION}
    text = json.dumps(description | {"sha256": sums}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_values(
    folder: Path, description: dict[str, Any], parts: dict[str, dict[str, np.ndarray]]
) -> None:
    """Refuse what would give wrong places, or none, without an error of its own."""

    def refuse(file: str, field: str, value: Any, wanted: str) -> NoReturn:
        raise ModelFileError(
            f"{folder / file}: {field} is {_short(value)}, not {wanted}; copy the model folder "
            "again, or train it again"
        )

    extractor, weights = parts["extractor"], parts["model"]
    for name in ("model", "extractor", "provenance"):
        if not isinstance(description[name], dict):
            refuse("model.json", name, description[name], "a table of names and values")
    unit = description["extractor"]["unit"]
    if type(unit) is not float or not unit > 0:  # finite, or it would not have been read
        refuse("model.json", "extractor.unit", unit, "a finite positive number")
    share = description["extractor"]["heterozygosity"]
    if type(share) is not float or share < 0:
        refuse("model.json", "extractor.heterozygosity", share, "a finite number, at least 0")
    # The weights tell their own shape; a network of another is never built, whatever its size.
    of_weights = weights.get("decoder.network.4.bias")  # where the decoder sees clusters
    n_clusters = int(weights["cluster"].max()) + 1 if of_weights is None else len(of_weights)
    shape = {
        "n_latent": len(weights["posterior.anchor.linear.weight"]),
        "n_clusters": n_clusters,
        "n_steps": len(weights["posterior.schedule.alpha"]) - 1,
        "n_hidden": len(weights["posterior.anchor.network.0.bias"]),
    }
    # A number without a component to it could be any, and ask for any memory.
    if n_clusters > max(len(weights["cluster"]), n_clusters * (of_weights is not None)):
        refuse("model.safetensors", "model.cluster", n_clusters - 1, "the number of a cluster")
    for name, size in shape.items():
        value = description["model"][name]
        if type(value) is not int or value != size:
            refuse("model.json", f"model.{name}", value, f"{size} as in model.safetensors")
    classes, n_classes = description["model"]["classes"], 0
    if "prior.component_class" in weights:
        found = np.unique(weights["prior.component_class"])
        n_classes = len(weights["classifier.network.4.bias"])
        if found.tolist() != list(range(n_classes)):
            refuse("model.safetensors", "model.prior.component_class", found[0], "of every class")
    if not isinstance(classes, list) or len(classes) != n_classes:
        refuse("model.json", "model.classes", classes, f"{n_classes} names")
    guided = description["model"]["guided"]
    if type(guided) is not bool:
        refuse("model.json", "model.guided", guided, "true or false")
    for room, arrays in parts.items():
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                bad = array[~np.isfinite(array)][0]
                refuse("model.safetensors", f"{room}.{name}", bad, "finite")
    positive = {f"extractor.{name}": extractor[name] for name in ("eigenvalue", "shrinkage")}
    positive |= {
        f"model.{name}": weights[name] for name in weights if name.endswith("inputs.scale")
    }
    for field_name, array in positive.items():
        if not (array > 0).all():
            refuse("model.safetensors", field_name, array.min(), "positive")


def _depth(value: Any) -> int:
    """How deep tables and lists are within each other, 0 of what is neither."""
    depth, level = -1, [value]
    while level:
        rooms = [
            x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list)
        ]
        level = [inner for room in rooms for inner in room]
        depth += 1
    return depth


def _finite(text: str) -> float:
    """A number of JSON; Python would read NaN and 1e999 too."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _short(value: Any) -> str:
    """A value for a message, on one line and not without end."""
    text = str(value) if isinstance(value, np.generic) else json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
