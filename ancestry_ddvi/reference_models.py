"""The models that come with the package, and what a model says of itself."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ancestry_ddvi.checkpoint import EmbeddingModel, load_model
from ancestry_ddvi.errors import ModelFileError
from ancestry_ddvi.preprocessing.alignment import OF_CALLS, OF_MAP

MODELS = Path(__file__).parent / "models"
"""A folder each, as `EmbeddingModel.save` writes it."""

CROSS_VALIDATED = "cross-validated on the training samples"
"""Name of the figures of calls by number of sites: each sample by counts without it and a
calibration by other samples, but for one temperature."""


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
            OF_MAP: len(model.extractor.variants),
            "seed": provenance.get("seed"),
            "labels learnt from by the map": provenance.get("supervision"),
        },
        "map": {k: shape[k] for k in ("n_latent", "prior", "n_clusters", "n_steps")},
    }
    about["held-out figures"] = provenance.get("held-out figures") or (
        "none of this model; `ancestry-ddvi embed --model` with --labels gives them for new samples"
    )
    if caller is not None:
        figures = dict(caller.card)
        about["ancestry calls"] = {
            "method": "allele frequencies of each population (Rannala & Mountain 1997), calibrated "
            "by labels of the training samples, each left out of the counts in turn",
            CROSS_VALIDATED: figures.pop("cross-validated", None),
            OF_CALLS: figures.pop("sites", None),
            **figures,
        }
    config = provenance.get("config")
    apart = not isinstance(config, dict) or config.get("max_kinship") != 1
    relatives = "Close relatives were not learnt from. " if apart else ""
    about["limits"] = [
        "A population label is not an identity, and a call says only which samples of the "
        "reference have similar genotypes.",
        "Populations that are not in the reference are called `outside reference` only where "
        "they differ enough; mixtures of its populations get the nearest of them, `uncertain`, or, "
        "of distant ones as children of parents from two continents, `outside reference`.",
        "The fewer sites, the more seldom is an ancestry seen that is not in the reference, with a "
        "few hundred hardly ever; it is then `uncertain`, or called as one of the reference with "
        "a high probability.",
        "Calibrated for sites drawn at random from those of the reference. Sites of a chromosome, "
        "a region or the exons are linked, count by the 50 kb windows that they are in (the length "
        "is that of human linkage), and call the less surely; of the MHC alone some are falsely "
        "`outside reference`, and what typicality tells by such sites is not known.",
        "Genotyping errors of up to one allele in 200 are reckoned with in typicality, not in "
        "probabilities; the more errors beyond, the more are falsely `outside reference`.",
        "Haploid and pseudo-haploid genotypes have one allele a site, and are read by that where "
        "five or more heterozygous ones would be expected; no figure here is of such samples.",
        f"{relatives}New samples that are related to each other or to "
        "the reference are called one by one: they are no independent evidence. One that is in "
        "the reference under another name, or whose close relative is, is called the more surely.",
    ]
    about["must not be used"] = [
        "Not for deciding about people: no diagnosis, treatment, insurance, border, police or "
        "employment matter may rest on it.",
        "Not as evidence of identity, kinship, nationality, ethnicity or descent from a place.",
    ]
    return about


def card_text(card: dict[str, Any], columns: int = 100) -> str:
    """The card for a terminal of so many columns."""
    lines: list[str] = []
    for name, value in card.items():
        _lines(name, value, 0, columns, lines)
    return "\n".join(lines)


def figure_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line a figure, its name first, then its value in every row; rows may lack some."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [[name, *(_short(row.get(name)) for row in rows)] for name in names]


def _lines(name: str, value: Any, depth: int, columns: int, lines: list[str]) -> None:
    pad = "  " * depth
    if value is None or value == [] or value == {}:
        return
    if isinstance(value, dict):
        if all(isinstance(v, int) for v in value.values()):
            # Held together where the line is broken.
            counts = ", ".join(f"{k}{_HARD_SPACE}{v:,}" for k, v in value.items())
            lines += _filled(f"{name}: {counts}", pad, columns)
            return
        lines.append(f"{pad}{name}:")
        for key, inner in value.items():
            _lines(key, inner, depth + 1, columns, lines)
    elif isinstance(value, list):
        lines.append(f"{pad}{name}:")
        if all(isinstance(row, dict) for row in value):
            lines += _tabulated(figure_table(value), pad + "  ", columns)
            return
        for item in value:
            lines += _filled(f"- {item}", pad + "  ", columns)
    else:
        lines += _filled(f"{name}: {_short(value)}", pad, columns)


_HARD_SPACE = "\N{NO-BREAK SPACE}"


def _filled(text: str, pad: str, columns: int) -> list[str]:
    broken = textwrap.wrap(
        text,
        columns,
        initial_indent=pad,
        subsequent_indent=pad + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_HARD_SPACE, " ") for line in broken]


def _tabulated(table: list[list[str]], pad: str, columns: int) -> list[str]:
    """Names to the left, values to the right; a table that is too wide goes on below itself."""
    width = max(len(row[0]) for row in table)
    cell = 2 + max(len(value) for row in table for value in row[1:])
    n = max(1, (columns - len(pad) - width) // cell)
    return [
        pad + row[0].ljust(width) + "".join(value.rjust(cell) for value in row[1 + i : 1 + i + n])
        for i in range(0, len(table[0]) - 1, n)
        for row in table
    ]


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
