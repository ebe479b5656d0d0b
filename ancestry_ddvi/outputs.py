"""Folders that appear whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ancestry_ddvi.errors import OutputError

MANIFEST = "run.json"
"""Its key `files` lists what was written; `--force` replaces these and nothing else."""

_FILE_MANAGERS = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""Nobody's work: put there by looking at a folder."""


@contextmanager
def new_folder(target: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary folder; move what is in it to `target` if the block succeeds.

    Whatever ends the block early, an error or Ctrl-C, leaves `target` as it was and no trace
    beside it. A folder that exists stays the same folder, since it may be mounted, or be the
    current one; only its content is exchanged.

    Raises
    ------
    OutputError
        Before the block is entered, if `target` exists and `force` is not set, if it holds what
        this program did not write, or if nothing can be written there.
    """
    # realpath: a link to a folder stays, and the folder behind it is filled.
    target = Path(os.path.realpath(target))
    partial, made = _begun(target, force)
    try:
        partial.chmod(0o777 & ~_umask())
        yield partial
        _refuse_to_lose(target, force)
        _publish(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        _remove_empty(made)
        if isinstance(error, OSError) and _concerns(error, partial, target):
            place = f" ({error.filename})" if error.filename else ""
            raise OutputError(
                f"{target}: writing failed: {error.strerror or error}{place}; free some space or "
                "choose another folder with --out"
            ) from error
        raise


@contextmanager
def added_files(target: Path) -> Iterator[Path]:
    """Yield a temporary folder; if the block succeeds, move its files into `target`, one by one.

    For results that grow: each file is whole at any time, and replaces one of its name. `MANIFEST`
    is moved first, so that it lists every file that is there, whatever ends the run.

    Raises
    ------
    OutputError
        If nothing can be written.
    """
    target = Path(os.path.realpath(target))
    partial: Path | None = None
    try:
        target.mkdir(parents=True, exist_ok=True)
        partial = _temporary(target, "partial")
        yield partial
        for name in sorted(files_in(partial), key=lambda name: name != MANIFEST):
            goal = target / name
            goal.parent.mkdir(exist_ok=True)
            (partial / name).replace(goal)
    except OSError as error:
        raise OutputError(
            f"{target}: writing failed: {error.strerror or error}; free some space or choose "
            "another folder with --out"
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def alone_in(target: Path) -> Iterator[None]:
    """Make the folder, and wait until no other process is in this block with it.

    The lock ends with the process, whatever ends that.

    Raises
    ------
    OutputError
        If the folder cannot be made or read.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        handle = os.open(target, os.O_RDONLY)
    except OSError as error:
        raise OutputError(
            f"{target}: the output folder cannot be written ({error.strerror or error}); choose "
            "another with --out"
        ) from error
    try:
        # Some network file systems know no locks: there it is as before.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def check_replaceable(target: Path) -> None:
    """Raise OutputError unless `target` can be written, and is free or holds what this program
    wrote and no more; nothing is left there."""
    partial, made = _begun(Path(os.path.realpath(target)), force=True)
    partial.rmdir()
    _remove_empty(made)


def remove_results(target: Path) -> None:
    """Remove what an earlier run says it wrote, its list last, and folders empty by that."""
    for name in sorted(written(target), key=lambda name: name == MANIFEST):
        path = target / name
        path.unlink(missing_ok=True)
        if path.parent != target:
            _remove_empty([path.parent])


def files_in(folder: Path) -> list[str]:
    """Paths of all files below, relative to the folder, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def _begun(target: Path, force: bool) -> tuple[Path, list[Path]]:
    """A new hidden folder for what shall be `target`, and the parents that were made for it."""
    made: list[Path] = []
    try:
        _refuse_to_lose(target, force)
        made = [p for p in target.parents if not p.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        return _temporary(target, "partial"), made
    except OSError as error:
        _remove_empty(made)
        raise OutputError(
            f"{target}: the output folder cannot be written ({error.strerror or error}); choose "
            "another with --out"
        ) from error


def _temporary(target: Path, role: str) -> Path:
    """A new hidden folder on the same file system as `target`: in it if it exists, or beside."""
    home = target if target.is_dir() else target.parent
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.{role}-", dir=home))


def _content(target: Path) -> list[Path]:
    """What is in a folder, but for temporary folders: another run's are its own."""
    ours = (f".{target.name}.partial-", f".{target.name}.old-")
    return [p for p in target.iterdir() if not p.name.startswith(ours)]


def _refuse_to_lose(target: Path, force: bool) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"{target}: exists and is not a folder; choose another with --out")
    content = [p for p in _content(target) if p.name not in _FILE_MANAGERS]
    if not content:
        return
    known = written(target)
    foreign = [
        name
        for top in content
        for name in ([f"{top.name}/{f}" for f in files_in(top)] if top.is_dir() else [top.name])
        if name not in known and Path(name).name not in _FILE_MANAGERS
    ]
    if foreign or not known:
        raise OutputError(
            f"{target}: holds {foreign[0] if foreign else content[0].name!r}, which ancestry-ddvi "
            "did not write; move it away, or choose another folder with --out"
        )
    if not force:
        raise OutputError(
            f"{target}: already holds results; add --force to replace them, or choose another "
            "folder with --out"
        )


def written(target: Path) -> set[str]:
    """What an earlier run says it wrote; nothing, if none did."""
    try:
        manifest = json.loads((target / MANIFEST).read_text("utf-8"))
        return set(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _publish(partial: Path, target: Path) -> None:
    """Put the content of `partial` in the place of the content of `target`, or undo."""
    if not target.exists():
        partial.rename(target)
        return
    old = _temporary(target, "old")
    moves = [(p, old / p.name) for p in _content(target)]
    moves += [(p, target / p.name) for p in partial.iterdir()]
    tried: list[tuple[Path, Path]] = []
    try:
        for source, goal in moves:
            tried.append((source, goal))
            source.rename(goal)
    except BaseException:
        for source, goal in reversed(tried):
            if not source.exists():
                goal.rename(source)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
    partial.rmdir()


def _concerns(error: OSError, partial: Path, target: Path) -> bool:
    """Whether an error is about the output; one about another file is not the folder's fault."""
    if error.filename is None:  # a full disk, for example, says nothing more
        return True
    path = Path(os.fsdecode(error.filename))
    return path == target or path.is_relative_to(partial) or path.is_relative_to(target)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _umask() -> int:
    """The process's umask; mkdtemp makes folders that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
