"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ancestry_ddvi.errors import OutputError

MARK = "run.json"
"""A folder that holds this file was written by us and may be replaced with `--force`."""


@contextmanager
def new_folder(target: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; rename it to `target` if the block succeeds.

    Whatever ends the block early, an error or Ctrl-C, leaves `target` as it was and no trace
    beside it.

    Raises
    ------
    OutputError
        Before the block is entered, if `target` exists and `force` is not set, if it is not a
        folder that this program wrote, or if nothing can be written there.
    """
    # realpath: a link to a folder is replaced behind the link, not the link by a folder.
    target = Path(os.path.realpath(target))
    _refuse_to_lose(target, force)
    made = [p for p in target.parents if not p.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        _remove_empty(made)
        raise OutputError(
            f"{target}: the output folder cannot be written ({error.strerror}); choose another "
            "with --out"
        ) from error
    try:
        partial.chmod(0o777 & ~_umask())
        yield partial
        _refuse_to_lose(target, force)
        _swap(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        _remove_empty(made)
        if isinstance(error, OSError):
            place = f" ({error.filename})" if error.filename else ""
            raise OutputError(
                f"{target}: writing failed: {error.strerror}{place}; free some space or choose "
                "another folder with --out"
            ) from error
        raise


def _refuse_to_lose(target: Path, force: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputError(f"{target}: exists and is not a folder; choose another with --out")
    if not any(target.iterdir()):
        return
    if not (target / MARK).is_file():
        raise OutputError(
            f"{target}: holds files that ancestry-ddvi did not write; choose another folder with "
            "--out"
        )
    if not force:
        raise OutputError(
            f"{target}: already holds results; add --force to replace them, or choose another "
            "folder with --out"
        )


def _swap(partial: Path, target: Path) -> None:
    """Put `partial` in the place of `target`, which may exist."""
    if not target.exists():
        partial.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    target.rename(old / target.name)
    try:
        partial.rename(target)
    except BaseException:
        (old / target.name).rename(target)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _umask() -> int:
    """The process's umask; mkdtemp makes folders that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
