"""A reader that crashes is a file that is refused: every way to crash, and nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import guard_sources as bad
import numpy as np
import pytest
from cli_helpers import environment

from ancestry_ddvi.errors import GenotypeFileError, OptionError
from ancestry_ddvi.loaders.guard import GuardedSource
from ancestry_ddvi.loaders.sites import INDEL
from ancestry_ddvi.loaders.source import HAPLOID, Block, Selection, Source

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"
)


def children(of: int | None = None) -> list[int]:
    """Processes whose parent this is, zombies too."""
    parent = str(of or os.getpid())
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        if fields[1] == parent:
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = set(children())
    n_files = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert set(children()) <= before
    assert len(os.listdir("/proc/self/fd")) <= n_files


def read(source: Source, selection: Selection | None = None) -> list[Block]:
    return list(source.blocks(selection or Selection(), lambda fraction: None))


def test_same_as_unguarded(capfd: pytest.CaptureFixture[str]) -> None:
    plain, guarded = bad.Steady("a file"), GuardedSource(bad.Steady, "a file")
    assert (guarded.path, guarded.format) == ("a file", "steady")
    assert (guarded.sample_id, guarded.family_id) == (plain.sample_id, plain.family_id)
    with pytest.raises(RuntimeError, match="once it has been read"):
        guarded.sha256()
    fractions: list[float] = []
    selection = Selection(samples=np.array([3, 0]))
    selection.sites.left_out[INDEL] = 10  # of another file, read before
    blocks = list(guarded.blocks(selection, fractions.append))
    assert capfd.readouterr() == ("", "")  # a library may print, but not to the user
    expected = read(plain, Selection(samples=np.array([3, 0])))
    assert [b.rows for b in blocks] == [b.rows for b in expected]
    for ours, theirs in zip(blocks, expected, strict=True):
        np.testing.assert_array_equal(ours.dosage, theirs.dosage)
        assert ours.dosage.dtype == np.int8
        assert ours.dosage.flags.writeable
    assert selection.sites.left_out == {INDEL: 13}
    assert selection.calls.by_rule == {HAPLOID: 6}
    assert guarded.sha256() == plain.sha256()
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_again() -> None:
    """A second reading, and one after a reading that was left."""
    source = GuardedSource(bad.Steady, "a file")
    first = read(source)
    next(iter(source.blocks(Selection(), lambda fraction: None)))
    second = read(source)
    np.testing.assert_array_equal(first[2].dosage, second[2].dosage)


@pytest.mark.parametrize("shape", [(2, 3, 70_001), (3, 4096, 1003), (2, 0, 5), (0, 1, 1)])
def test_blocks_of_every_size(shape: tuple[int, int, int]) -> None:
    blocks = read(GuardedSource(bad.Steady, "a file", *shape))
    for number, block in enumerate(blocks):
        np.testing.assert_array_equal(block.dosage, bad.Steady("", *shape).dosage(number))
    assert len(blocks) == shape[0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            bad.Segfault,
            r"crashed \(SIGSEGV, Segmentation fault\), saying 'about to read address 0'",
        ),
        (bad.Abort, r"crashed \(SIGABRT, Aborted\)"),
        (bad.Exit, r"ended in the middle \(exit code 3\), saying 'printed by a library'"),
        (bad.ExitZero, r"ended in the middle \(exit code 0\)"),
        (bad.Chatter, r"crashed \(SIGABRT, Aborted\), saying 'the last line'; the file is prob"),
        (bad.Killed, r"was killed \(SIGKILL\), as the system does when memory runs out; free"),
    ],
)
def test_crash(kind: type[Source], message: str) -> None:
    source = GuardedSource(kind, "a file")
    blocks = source.blocks(Selection(), lambda fraction: None)
    assert len(next(blocks).rows) == 4
    with pytest.raises(GenotypeFileError, match=f"^a file: its reader {message}") as caught:
        next(blocks)
    assert "\n" not in str(caught.value)


def test_crash_on_opening() -> None:
    with pytest.raises(GenotypeFileError, match=r"^a file: its reader crashed \(SIGSEGV"):
        GuardedSource(bad.SegfaultOnOpening, "a file")


def test_errors_of_the_source() -> None:
    with pytest.raises(OptionError, match=r"^a file: not so$"):
        GuardedSource(bad.RefuseOnOpening, "a file")
    with pytest.raises(GenotypeFileError, match=r"^a file: record 5 is bad; mend it$"):
        read(GuardedSource(bad.Refuse, "a file"))
    with pytest.raises(RuntimeError, match=r"(?s)a file: .*Traceback.*misbehave.*our fault"):
        read(GuardedSource(bad.Fail, "a file"))
    with pytest.raises(RuntimeError, match="no attribute 'Nope'"):
        GuardedSource(type("Nope", (bad.Steady,), {"__module__": "guard_sources"}), "a file")


def test_silence_ends() -> None:
    source = GuardedSource(bad.Sleep, "a file", patience_s=2)
    with pytest.raises(GenotypeFileError, match="said nothing for 2 s and was ended"):
        read(source)


def test_left_early() -> None:
    """The autouse fixture sees that nothing stays, whoever lets go of what."""
    blocks = GuardedSource(bad.Sleep, "a file").blocks(Selection(), lambda fraction: None)
    next(blocks)
    assert children()
    blocks.close()  # type: ignore[attr-defined]
    GuardedSource(bad.Steady, "never read").close()
    GuardedSource(bad.Steady, "never read")
    with pytest.raises(KeyboardInterrupt):
        for _ in GuardedSource(bad.Steady, "a file").blocks(Selection(), interrupt):
            pass


def test_of_many_open_sources_one_child_waits() -> None:
    """That of the first, so that a file alone is opened once; the others read as well."""
    sources = [GuardedSource(bad.Steady, f"file {i}") for i in range(4)]
    waiting = children()
    assert len(waiting) == 1
    for source in sources:
        blocks = source.blocks(Selection(), lambda fraction: None)
        next(blocks)
        assert len(children()) == 1
        assert (children() == waiting) == (source is sources[0])
        list(blocks)
        assert source.sha256() == "ab" * 32
        assert not children()
    alone = GuardedSource(bad.Steady, "the next")
    assert len(children()) == 1
    alone.close()


def interrupt(fraction: float) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("kind", ["Sleep", "Spin"])
def test_parent_ends(kind: str, end: signal.Signals) -> None:
    """No orphan, not even one that is lost in native code."""
    code = (
        "import guard_sources as bad\n"
        "from ancestry_ddvi.loaders.guard import GuardedSource\n"
        "from ancestry_ddvi.loaders.source import Selection\n"
        f"source = GuardedSource(bad.{kind}, 'a file')\n"
        "for _ in source.blocks(Selection(), lambda fraction: None): print('one', flush=True)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment() | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    assert parent.stdout.readline() == "one\n"
    (child,) = children(parent.pid)
    time.sleep(0.2)
    parent.send_signal(end)
    _, said = parent.communicate(timeout=20)
    assert ("KeyboardInterrupt" in said) == (end == signal.SIGINT)
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or state(child) == "Z":  # init may be slow to reap
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child has outlived its parent")


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_child_imports_little() -> None:
    assert GuardedSource(bad.Wanted, "a file").format == "numpy"
