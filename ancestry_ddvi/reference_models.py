"""The models that come with the package, and what a model says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ancestry_ddvi.checkpoint import EmbeddingModel, load_model
from ancestry_ddvi.errors import ModelFileError

MODELS = Path(__file__).parent / "models"
"""A folder each, as `EmbeddingModel.save` writes it."""


def shipped() -> tuple[str, ...]:
    """Names of the models in the package."""
    return tuple(sorted(path.parent.name for path in MODELS.glob("*/model.json")))


def find_model(name: str | Path) -> Path:
    """The folder of a model: that of the package of just this name, or else of this path.

    Text that names a model of the package means that one wherever it is said; a folder that is
    called so is meant by `./name`, or by a `Path`.

    Raises
    ------
    ModelFileError
        If there is neither.
    """
    if isinstance(name, str) and name in shipped():
        return MODELS / name
    path = Path(name)
    if path.exists():
        return path
    raise ModelFileError(
        f"{name}: no such folder, and no model of the package ({', '.join(shipped()) or 'none'}); "
        "give the model/ folder that `ancestry-ddvi embed` wrote, or one of these names"
    )


def card(name: str | Path) -> dict[str, Any]:
    """What a reader must know of a model before using it: data, split, figures, limits."""
    return card_of(load_model(find_model(name)), str(name))


def card_of(model: EmbeddingModel, name: str) -> dict[str, Any]:
    """See `card`."""
    provenance, caller = model.provenance, model.caller
    shape = model.model.config_dict()
    source = provenance.get("input")
    source = source if isinstance(source, dict) else {}  # of a model that others wrote
    about: dict[str, Any] = {
        "model": name,
        "written by": f"ancestry-ddvi {provenance.get('version', '')}",
        "trained on": {
            "file": source.get("path"),
            "sha256": source.get("sha256"),
            "samples": len(model.trained_on),
            "variants": len(model.extractor.variants),
            "seed": provenance.get("seed"),
            "labels learnt from by the map": provenance.get("supervision"),
        },
        "map": {k: shape[k] for k in ("n_latent", "prior", "n_clusters", "n_steps")},
    }
    if caller is not None:
        about["ancestry calls"] = {
            "method": "allele frequencies of each population (Rannala & Mountain 1997), calibrated "
            "by labels of the training samples, each left out of the counts in turn; the "
            "calibration itself has seen them",
            **caller.card,
        }
    about["held-out figures"] = provenance.get("held-out figures")
    about["limits"] = [
        "A population label is not an identity, and a call says only which samples of the "
        "reference have similar genotypes.",
        "Populations that are not in the reference are called `outside reference` only where "
        "they differ enough; mixtures of its populations get the nearest of them, or `uncertain`.",
        "Calibrated for sites drawn at random from those of the reference; an exome or one "
        "region has fewer independent ones, and its probabilities are too sure.",
        "Not for deciding about people: no diagnosis, treatment, insurance, border, police or "
        "employment matter may rest on it.",
    ]
    return about


def card_text(card: dict[str, Any]) -> str:
    """The card for a terminal."""
    lines: list[str] = []
    for name, value in card.items():
        _lines(name, value, 0, lines)
    return "\n".join(lines)


def _lines(name: str, value: Any, depth: int, lines: list[str]) -> None:
    pad = "  " * depth
    if value is None or value == [] or value == {}:
        return
    if isinstance(value, dict):
        if value and all(isinstance(v, int) for v in value.values()):
            lines.append(f"{pad}{name}: " + ", ".join(f"{k} {v:,}" for k, v in value.items()))
            return
        lines.append(f"{pad}{name}:")
        for key, inner in value.items():
            _lines(key, inner, depth + 1, lines)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        columns = list(value[0])
        rows = [columns, *([_short(row[c]) for c in columns] for row in value)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
        lines.append(f"{pad}{name}:")
        lines += [
            pad + "  " + "  ".join(x.rjust(w) for x, w in zip(row, widths, strict=True))
            for row in rows
        ]
    elif isinstance(value, list):
        lines.append(f"{pad}{name}:")
        lines += [f"{pad}  - {item}" for item in value]
    else:
        lines.append(f"{pad}{name}: {_short(value)}")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
