"""The folder of a comparison while it grows: finished fits are kept, others' are refused.

    comparison.json    settings, and methods -> name -> seed -> split -> row of figures
    maps/NAME.csv      places of the first seed

A fit is written as soon as it is scored. A run that was interrupted goes on from there; methods and
seeds may be added later. All else of the settings has to agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.errors import OutputError
from ancestry_ddvi.outputs import (
    MANIFEST,
    added_files,
    alone_in,
    check_replaceable,
    files_in,
    remove_results,
    written,
)
from ancestry_ddvi.reporting.html import json_ready

RESULTS = "comparison.json"
PACKAGE = Path(__file__).parents[1]
_CODE = (
    *("baselines", "checkpoint.py", "comparison/methods.py", "comparison/run.py", "ddvi"),
    *("embedding.py", "fitting.py", "preprocessing"),
)
_SCORERS = ("map_scores.py", "metrics.py", "scores.py")

Row = dict[str, Any]


class Results:
    """Finished fits of a comparison, in memory and in its folder.

    Parameters
    ----------
    folder
        Made as soon as the first fit is there.
    settings
        JSON-ready, by words that a message can name.
    force
        Whether earlier results are removed.

    Raises
    ------
    OutputError
        If the folder holds something else, or results of other settings and `force` is not set.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, force: bool) -> None:
        check_replaceable(folder)
        self.folder = folder
        settings = json.loads(_dump(settings))
        self.state: dict[str, Any] = {"settings": settings, "methods": {}}
        if force:
            remove_results(folder)
        elif (folder / MANIFEST).exists():
            self.state = _agreeing(folder, settings)
        self.files = written(folder) | {MANIFEST}

    @property
    def methods(self) -> dict[str, dict[str, dict[str, Row]]]:
        """Name -> seed -> split -> row."""
        found: dict[str, dict[str, dict[str, Row]]] = self.state["methods"]
        return found

    def has(self, method: str, seed: int, split: str) -> bool:
        """Whether this fit is finished."""
        return split in self.methods.get(method, {}).get(str(seed), {})

    def add(
        self, method: str, seed: int, split: str, row: Row, places: pd.DataFrame | None = None
    ) -> None:
        """Keep a finished fit, and its places if they are to be drawn."""
        self.methods.setdefault(method, {}).setdefault(str(seed), {})[split] = json_ready(row)
        with self.growing() as folder:
            if places is not None:
                path = folder / "maps" / f"{method}.csv"
                path.parent.mkdir()
                places.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
            self.write_state(folder)

    @contextmanager
    def growing(self) -> Iterator[Path]:
        """Yield a temporary folder whose files are moved into the results at the end.

        By one process at a time, and with the fits that another has finished meanwhile.

        Raises
        ------
        OutputError
            If nothing can be written, or the folder holds results of other settings by now.
        """
        with alone_in(self.folder):
            if (self.folder / MANIFEST).exists():
                self._take_in(_agreeing(self.folder, self.state["settings"])["methods"])
                self.files |= written(self.folder)
            with added_files(self.folder) as folder:
                yield folder

    def _take_in(self, others: Mapping[str, Mapping[str, Mapping[str, Row]]]) -> None:
        for method, seeds in others.items():
            for seed, splits in seeds.items():
                own = self.methods.setdefault(method, {}).setdefault(seed, {})
                own.update({split: row for split, row in splits.items() if split not in own})

    def write_state(self, folder: Path, **more: Any) -> None:
        """Write comparison.json, and a manifest of what this folder and the final one hold."""
        text = _dump(self.state | {name: value for name, value in more.items() if name != "run"})
        (folder / RESULTS).write_text(text, "utf-8", errors="backslashreplace")
        self.files |= set(files_in(folder))
        run = {**more.get("run", {}), "files": sorted(self.files)}
        (folder / MANIFEST).write_text(_dump(run), "utf-8", errors="backslashreplace")

    def places(self, method: str) -> np.ndarray | None:
        """(n_samples, 2) places of the first seed, nan where there is none; None if not drawn."""
        path = self.folder / "maps" / f"{method}.csv"
        if not path.exists():
            return None
        return pd.read_csv(path, usecols=["z1", "z2"]).to_numpy(float)


def code_digest() -> str:
    """SHA-256 of the source that fits and scores."""
    places = [PACKAGE / name for name in _CODE]
    places += [PACKAGE / "reporting" / name for name in _SCORERS]
    files = [p for place in places for p in (sorted(place.rglob("*.py")) or [place])]
    return digest(*(path.read_bytes() for path in files))


def digest(*parts: bytes | np.ndarray | Sequence[str]) -> str:
    """SHA-256 of bytes, arrays and texts, one after the other."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(np.ascontiguousarray(part).data)
        elif isinstance(part, bytes):
            total.update(part)
        else:
            total.update("\n".join(part).encode(errors="surrogatepass"))
    return total.hexdigest()


def _agreeing(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Earlier results, if they are of these settings."""
    remedy = "add --force to replace them, or choose another folder with --out"
    try:
        state: dict[str, Any] = json.loads((folder / RESULTS).read_text("utf-8"))
        before, _ = dict(state["settings"]), dict(state["methods"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{folder}: holds results, and they are not of a comparison; {remedy}"
        ) from error
    other = [
        name for name in sorted({*settings, *before}) if before.get(name) != settings.get(name)
    ]
    if other:
        raise OutputError(
            f"{folder}: holds a comparison with other {' and '.join(_said(other))}; {remedy}"
        )
    return state


def _said(names: Sequence[str], n: int = 4) -> list[str]:
    return [*names[:n], *(["more"] if len(names) > n else [])]


def _dump(value: Any) -> str:
    return json.dumps(json_ready(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
