"""Imports go downwards only, and the heavy ones are paid for only where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from cli_helpers import environment

import ancestry_ddvi

PACKAGE = Path(ancestry_ddvi.__file__).parent

_DATA = {"errors", "genotypes"}
_MODEL = {*_DATA, "embedding", "preprocessing", "ddvi"}
_RUN = {*_MODEL, "ancestry", "loaders", "reporting", "console", "outputs", "checkpoint"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "genotypes": {"errors"},
    "credible": set(),
    "embedding": {"errors", "credible"},
    "console": _DATA,
    "conversion": {*_DATA, "console", "loaders", "reference_sites", "writers"},
    "outputs": {"errors"},
    "loaders": {*_DATA, "preprocessing"},
    "writers": {*_DATA, "loaders"},
    "preprocessing": {*_DATA, "reference_sites"},
    "ddvi": {"errors"},
    "baselines": {"errors", "ddvi"},
    "reporting": {"errors", "credible", "embedding"},
    "ancestry": {*_DATA, "preprocessing", "reporting"},
    "checkpoint": {*_MODEL, "ancestry"},
    "estimator": {"errors", "ddvi"},
    "reference_models": {"errors", "preprocessing", "checkpoint"},
    "provenance": {*_MODEL, "loaders", "console", "checkpoint"},
    "placing": {*_MODEL, "ancestry", "loaders", "console", "checkpoint", "reference_sites"},
    "labelling": {*_DATA, "embedding", "ddvi", "loaders", "console", "checkpoint"},
    "fitting": {
        *_MODEL,
        *("ancestry", "loaders", "console", "checkpoint", "labelling", "reference_sites"),
    },
    "pipeline": {*_RUN, "fitting", "labelling", "placing", "provenance", "reference_models"},
    "reference_sites": {"genotypes"},
    "inspection": {*_DATA, "loaders", "preprocessing", "reference_sites", "console"},
    "comparison": {*_RUN, "baselines", "provenance", "fitting", "labelling"},
    "cli": {
        *_RUN,
        "comparison",
        "conversion",
        "fitting",
        "inspection",
        "labelling",
        "provenance",
        "pipeline",
        "reference_models",
    },
    "__main__": {"cli"},
}
"""Room -> the rooms below it that it knows. A new room is added here, with its place."""

HEAVY = ("torch", "allel", "sklearn", "matplotlib", "pandas", "numpy", "scipy", "cyvcf2", "plotly")


def imports(source: str, module: str) -> Iterator[str]:
    """Every module that a source imports, inside functions too, as an absolute name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            # `from ancestry_ddvi import cli` imports a module as well as a name.
            yield from ([f"{base}.{a.name}" for a in node.names] if "." not in base else [base])


def sources() -> Iterator[tuple[str, str, str]]:
    """(room, module, source) of every file but the package's own lazy face."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], ".".join(["ancestry_ddvi", *parts]), path.read_text("utf-8")


def room_of(name: str) -> str:
    return name.split(".")[1]


def ours(source: str, module: str) -> set[str]:
    names = {name for name in imports(source, module) if name.startswith("ancestry_ddvi.")}
    return {room_of(name) for name in names} - {"__version__"}


def test_every_room_has_its_place() -> None:
    assert {room for room, _, _ in sources()} == set(MAY_IMPORT)


def test_the_places_have_an_order() -> None:
    # prepare() raises CycleError if two rooms could import each other, by whatever way round.
    TopologicalSorter(MAY_IMPORT).prepare()


@pytest.mark.parametrize(
    ("room", "module", "source"), [pytest.param(*s, id=s[1]) for s in sources()]
)
def test_imports_go_downwards(room: str, module: str, source: str) -> None:
    upwards = ours(source, module) - {room} - MAY_IMPORT[room]
    assert not upwards, f"{module} must not import {upwards}"


def test_the_face_of_the_package_does_not_know_the_command_line() -> None:
    source = (PACKAGE / "__init__.py").read_text("utf-8")
    assert "cli" not in ours(source, "ancestry_ddvi.__init__")
    assert "fitting" in ours(source, "ancestry_ddvi.__init__")


def test_imports_in_functions_and_relative_ones_are_seen() -> None:
    source = "def f():\n    from .. import cli\n    from ..ddvi import model\n"
    source += "    import ancestry_ddvi.console\n"
    assert ours(source, "ancestry_ddvi.reporting.plots") == {"cli", "ddvi", "console"}


@pytest.mark.parametrize(
    ("room", "allowed"), [("ddvi", {"torch", "numpy", "sklearn", "scipy"}), ("errors", set())]
)
def test_third_party_imports_of_the_maths(room: str, allowed: set[str]) -> None:
    used = {
        name.split(".")[0]
        for r, module, source in sources()
        if r == room
        for name in imports(source, module)
    }
    assert used - set(sys.stdlib_module_names) - {"ancestry_ddvi"} <= allowed


def test_reports_are_written_without_torch() -> None:
    used = {n.split(".")[0] for r, m, s in sources() if r == "reporting" for n in imports(s, m)}
    assert "torch" not in used
    assert loaded_by("ancestry_ddvi.reporting").isdisjoint({"torch", "allel", "cyvcf2"})


@pytest.mark.parametrize("module", ["ancestry_ddvi", "ancestry_ddvi.cli"])
def test_help_need_not_wait_for_heavy_imports(module: str) -> None:
    assert not loaded_by(module)


def test_placing_need_not_wait_for_what_learning_drawing_or_scoring_needs() -> None:
    assert loaded_by("ancestry_ddvi.pipeline") <= {"torch", "pandas", "numpy"}


@pytest.mark.parametrize("first", ["", "gc.disable()", "sys.modules['torch'] = None"])
def test_the_collector_rests_during_imports_and_no_longer(first: str) -> None:
    """Unless the caller has taken care of it, or of the imports."""
    code = f"import gc, sys; from ancestry_ddvi import cli; {first or 'pass'}\n"
    code += "before = gc.isenabled()\n"
    code += "try:\n with cli._nothing_to_collect(): print(gc.isenabled()); raise KeyError\n"
    code += "except KeyError: print(gc.isenabled() == before, gc.get_freeze_count() > 0)\n"
    code += "with cli._nothing_to_collect(): pass\n"
    code += "print(gc.isenabled() == before, gc.get_freeze_count() > 0)"
    assert python(code) == [str("torch" in first), "True", "False", "True", str(not first)]


def loaded_by(module: str) -> set[str]:
    """The heavy modules that an import brings along, in a fresh process."""
    return set(python(f"import sys, {module}; print(*sys.modules)")) & set(HEAVY)


def python(code: str) -> list[str]:
    """The words that a fresh process prints."""
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    return process.stdout.split()


def test_public_names_resolve() -> None:
    for name in ancestry_ddvi.__all__:
        assert getattr(ancestry_ddvi, name) is not None
    assert set(ancestry_ddvi.__all__) <= set(dir(ancestry_ddvi))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        ancestry_ddvi.nope  # noqa: B018
