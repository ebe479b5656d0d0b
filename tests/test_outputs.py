"""Folders that appear whole or not at all, whatever goes wrong and whenever."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_helpers import tree

from ancestry_ddvi.errors import OutputError
from ancestry_ddvi.outputs import (
    MANIFEST,
    added_files,
    alone_in,
    check_replaceable,
    files_in,
    new_folder,
    remove_results,
)


def fill(folder: Path, text: str) -> None:
    """Write what a run writes: files, a folder, and the list of both."""
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_text(text)
    (folder / "embedding.csv").write_text(text)
    files = [*files_in(folder), MANIFEST]
    (folder / MANIFEST).write_text(json.dumps({"files": files}))


def write(
    target: Path,
    text: str,
    *,
    force: bool = False,
    then: Callable[[Path], None] = lambda folder: None,
) -> None:
    with new_folder(target, force=force) as folder:
        fill(folder, text)
        then(folder)


def throw(error: type[BaseException]) -> Callable[[Path], None]:
    """What a run does that ends early."""

    def then(folder: Path) -> None:
        raise error

    return then


def test_the_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out"
    with new_folder(target, force=False) as folder:
        fill(folder, "new")
        assert not target.exists()
        assert folder.stat().st_dev == tmp_path.stat().st_dev
    assert files_in(target) == ["embedding.csv", "model/weights", MANIFEST]
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_others_may_read_the_folder_as_the_umask_says(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write(tmp_path / "out", "new")
    finally:
        os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_early_end_leaves_no_trace(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a" / "b" / "out"
    with pytest.raises(error):
        write(target, "new", then=throw(error))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_early_end_leaves_earlier_results(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out"
    write(target, "old")
    before = tree(tmp_path)
    with pytest.raises(error):
        write(target, "new", force=True, then=throw(error))
    assert tree(tmp_path) == before


def test_earlier_results_are_kept_without_force(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="already holds results; add --force"):
        write(tmp_path / "out", "new")
    assert tree(tmp_path) == before


def test_force_replaces_everything_we_wrote(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with new_folder(target, force=False) as folder:
        (folder / "of_an_older_version.txt").write_text("old")
        (folder / MANIFEST).write_text(json.dumps({"files": ["of_an_older_version.txt", MANIFEST]}))
    (target / ".DS_Store").write_text("left by looking at it")
    write(target, "new", force=True)
    assert files_in(target) == ["embedding.csv", "model/weights", MANIFEST]
    assert (target / "embedding.csv").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["notes.txt", "model/notes.txt", ".hidden", "plots/a.png"])
def test_force_does_not_lose_what_somebody_put_beside_our_files(tmp_path: Path, name: str) -> None:
    target = tmp_path / "out"
    write(target, "old")
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text("precious")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=f"holds '{name}', which ancestry-ddvi did not write"):
        write(target, "new", force=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "manifest", [None, "", "{}", "[]", "not json", '{"files": 3}', '{"files": [[]]}']
)
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, manifest: str | None) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "thesis.tex").write_text("precious")
    if manifest is not None:  # a file of that name proves nothing
        (target / MANIFEST).write_text(manifest)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="did not write; move it away"):
        write(target, "new", force=True)
    assert tree(tmp_path) == before


def test_a_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(OutputError, match="is not a folder"):
        write(tmp_path / "out", "new", force=True)
    assert (tmp_path / "out").read_text() == "precious"


@pytest.mark.parametrize("target", ["file/out", "file/a/out", "x" * 300, "loop"])
def test_a_place_that_cannot_be_written_is_named_before_any_work(
    tmp_path: Path, target: str
) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with (
        pytest.raises(OutputError, match=target) as caught,
        new_folder(tmp_path / target, force=True),
    ):
        pytest.fail("the work began")
    assert "--out" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop"]


def test_a_read_only_file_system_is_named() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    with (
        pytest.raises(OutputError, match="cannot be written"),
        new_folder(Path("/proc/out"), force=False),
    ):
        pytest.fail("the work began")


def test_an_empty_folder_is_filled_and_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `mkdir out; cd out; ... --out .`: the shell must not end up in a deleted folder.
    target = tmp_path / "out"
    target.mkdir()
    monkeypatch.chdir(target)
    inode = target.stat().st_ino
    write(Path(), "new")
    assert os.listdir()
    assert target.stat().st_ino == inode
    assert files_in(target) == ["embedding.csv", "model/weights", MANIFEST]
    assert (target / "model").is_dir()


def test_nothing_is_written_beside_a_folder_that_exists(tmp_path: Path) -> None:
    # It may be a mount point: what is beside it is then another, perhaps read-only, file system.
    (tmp_path / "out").mkdir()
    for force in (False, True):
        with new_folder(tmp_path / "out", force=force) as folder:
            assert folder.parent == tmp_path / "out"
            fill(folder, "new")


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write(tmp_path / "out", "old")
    write(tmp_path / "out", "new", force=True)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "embedding.csv").read_text() == "new"


def test_a_link_to_nothing_makes_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write(tmp_path / "out", "new")
    assert (tmp_path / "disk" / "embedding.csv").read_text() == "new"


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", range(6))
def test_an_interrupt_at_any_rename_restores_the_old_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, moment: str
) -> None:
    target = tmp_path / "out"
    write(target, "old")
    before = tree(tmp_path)
    rename = Path.rename
    calls: Iterator[int] = iter(range(1000))

    def interrupted(self: Path, goal: Path) -> Path:
        now = next(calls) == call
        if now and moment == "before":
            raise KeyboardInterrupt
        result = rename(self, goal)
        if now:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(target, "new", force=True)  # 6 renames: three old things away, three new ones in
    assert tree(tmp_path) == before


def test_six_renames_is_all_there_is_to_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "old")
    done: list[Path] = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, goal: done.append(goal) or rename(self, goal))
    write(tmp_path / "out", "new", force=True)
    assert len(done) == 6


def full_disk(folder: Path) -> None:
    """Write more than the process may, as on a disk that is full."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        (folder / "embedding.csv").write_bytes(b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def no_space(folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("fault", "words"), [(full_disk, "File too large"), (no_space, "No space left on device")]
)
def test_a_full_disk_is_named_and_leaves_the_old_results(
    tmp_path: Path, fault: Callable[[Path], None], words: str
) -> None:
    target = tmp_path / "out"
    write(target, "old")
    before = tree(tmp_path)
    with (
        pytest.raises(OutputError, match=f"writing failed: {words}.*free some space"),
        new_folder(target, force=True) as folder,
    ):
        fault(folder)
    assert tree(tmp_path) == before


def test_an_error_about_another_file_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "out", force=False):
        (tmp_path / "a_template_of_ours").read_text()
    assert not list(tmp_path.iterdir())


def test_the_slower_of_two_runs_does_not_overwrite_the_faster(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OutputError, match="already holds results"):
        write(target, "slow", then=lambda slow: write(target, "fast"))
    assert (target / "embedding.csv").read_text() == "fast"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("existed", [False, True])
def test_of_two_forced_runs_the_later_one_stays(tmp_path: Path, existed: bool) -> None:
    target = tmp_path / "out"
    if existed:
        write(target, "old")
    with new_folder(target, force=True) as slow:
        fill(slow, "slow")
        write(target, "fast", force=True)
        assert (target / "embedding.csv").read_text() == "fast"
        assert (slow / "embedding.csv").read_text() == "slow"
    assert (target / "embedding.csv").read_text() == "slow"
    assert files_in(tmp_path) == [f"out/{name}" for name in files_in(target)]
    assert len(files_in(target)) == 3


# Results that grow.


def add(target: Path, **texts: str) -> None:
    with added_files(target) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text)
        files = [*texts, MANIFEST]
        (folder / MANIFEST).write_text(json.dumps({"files": files}))


def test_files_are_added_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a" / "out"
    add(target, one="1")
    add(target, two="2", one="new")
    assert files_in(target) == ["one", MANIFEST, "two"]
    assert (target / "one").read_text() == "new"
    with added_files(target) as folder:
        (folder / "maps").mkdir()
        (folder / "maps" / "a.csv").write_text("a")
    assert files_in(target) == ["maps/a.csv", "one", MANIFEST, "two"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_early_end_adds_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    add(tmp_path / "out", one="1")
    before = tree(tmp_path)

    def half() -> None:
        with added_files(tmp_path / "out") as folder:
            (folder / "one").write_text("half")
            raise error

    with pytest.raises(error):
        half()
    assert tree(tmp_path) == before


def test_the_list_comes_before_what_it_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def only_the_list(self: Path, goal: Path) -> Path:
        if self.name != MANIFEST:
            raise KeyboardInterrupt
        return replace(self, goal)

    monkeypatch.setattr(Path, "replace", only_the_list)
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path / "out", a="1")
    assert files_in(tmp_path / "out") == [MANIFEST]


def test_a_place_where_nothing_can_be_added_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="writing failed"):
        add(tmp_path / "file" / "out", one="1")


def test_one_process_at_a_time_is_alone_in_a_folder(tmp_path: Path) -> None:
    """The other waits until the first has left."""
    script = (
        "import sys; from pathlib import Path; from ancestry_ddvi.outputs import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print('inside', flush=True)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    with alone_in(tmp_path / "out"):
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(3)
    assert other.communicate(timeout=60)[0] == "inside\n"


def test_results_are_removed_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out"
    write(target, "old")
    check_replaceable(target)
    (target / "notes").write_text("mine")
    with pytest.raises(OutputError, match="notes"):
        check_replaceable(target)
    remove_results(target)
    assert tree(target) == {"notes": b"mine"}
