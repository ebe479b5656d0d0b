"""Files that appear whole or not at all, and together where they are a set."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ancestry_ddvi.errors import OutputError

_ZARR_MARKERS = (".zgroup", "zarr.json")
"""What a folder must hold one of, to be a Zarr group that may be replaced."""


@contextmanager
def staged(targets: Sequence[Path], *, force: bool) -> Iterator[list[Path]]:
    """Yield one temporary path a target; give them the targets' names if the block succeeds.

    The temporary paths lie in a hidden folder beside the targets, so that the last step is a
    rename. Whatever ends the block early, an error or Ctrl-C, leaves the targets as they were and
    no trace beside them.

    Raises
    ------
    OutputError
        Before the block is entered, if a target exists and `force` is not set, if one is not what
        this program writes, or if nothing can be written there; after it, if writing failed.
    """
    for target in targets:
        refuse_to_lose(target, force)
    home = targets[0].parent
    try:
        folder = Path(tempfile.mkdtemp(prefix=".ancestry-ddvi-", dir=home))
    except OSError as error:
        raise OutputError(
            f"{targets[0]}: cannot be written ({error.strerror or error}: {home}); make that "
            "folder, or choose another"
        ) from error
    try:
        files = [folder / f"new-{number}" for number in range(len(targets))]
        yield files
        for target in targets:
            refuse_to_lose(target, force)
        _publish(list(zip(files, targets, strict=True)), folder)
    except OSError as error:
        raise OutputError(
            f"{targets[0]}: writing failed ({error.strerror or error}); free some space, or choose "
            "another folder"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_to_lose(target: Path, force: bool) -> None:
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise OutputError(f"{target}: cannot be written ({error}); choose another name") from error
    if stat.S_ISDIR(mode):
        if not any((target / marker).is_file() for marker in _ZARR_MARKERS):
            raise OutputError(f"{target}: is a folder; choose another name")
    elif not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise OutputError(f"{target}: exists and is not a file; choose another name")
    if not force:
        raise OutputError(f"{target}: already exists; add --force to replace it")


def _publish(pairs: list[tuple[Path, Path]], folder: Path) -> None:
    """Rename every new file to its target, or undo."""
    if len(pairs) == 1 and not pairs[0][1].is_dir():
        os.replace(*pairs[0])  # at no moment is there neither the old file nor the new one
        return
    tried: list[tuple[Path, Path]] = []
    try:
        for number, (new, target) in enumerate(pairs):
            if os.path.lexists(target):
                old = folder / f"old-{number}"
                tried.append((target, old))
                target.rename(old)
            tried.append((new, target))
            new.rename(target)
    except BaseException:
        for source, goal in reversed(tried):
            if os.path.lexists(goal) and not os.path.lexists(source):
                goal.rename(source)
        raise
