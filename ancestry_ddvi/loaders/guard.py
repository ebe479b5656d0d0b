"""Run a source in a child process, so that a crash in a native parser is an error and not the end.

A parser in C can be brought down by damaged bytes: it then takes the whole process with it, and
what the run had to say. In a child it takes only the child, and the parent says which file it was.

    source = GuardedSource(Plink2Source, path)     # to all the world a Source

The child is a fresh interpreter: `fork` is not safe beside threads, and multiprocessing's `spawn`
imports the user's __main__ anew. Both sides send frames over the child's stdin and stdout:

    n_parts (u32), sizes (n_parts u64), parts      a pickle (protocol 5), then its buffers

    parent -> child    the description of the source; later a Selection
    child -> parent    OPENED, then BLOCK and PROGRESS, then DONE; or REFUSED or FAULT, which end it

A child waits between opening and reading, so that a file need not be opened twice; but only one
does, however many sources are open: that of the first, which is read first. The others start anew.

What a library prints goes to a pipe of which the last line is quoted when it crashed.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import IO, Any, BinaryIO, ClassVar, NoReturn, cast

from ancestry_ddvi.errors import GenotypeFileError, InputError
from ancestry_ddvi.loaders.containers import COPY_AGAIN
from ancestry_ddvi.loaders.source import Block, Progress, Selection, Source

_OPENED, _BLOCK, _PROGRESS, _DONE, _REFUSED, _FAULT = range(6)

PATIENCE_S = 600.0
"""So long may a child say nothing; sources report progress many times a second."""

_PIPES = ("stdin", "stdout", "stderr")
_GRACE_S = 5.0  # for a child to end once its end of the pipe is closed
_MAX_PARTS = 2**16
_MAX_PART = 2**40
_PIPE_BYTES = 2**20
_PRINTED_BYTES = 4096
_QUOTED_LETTERS = 120
# Native libraries must not start a thread for each core to read one file.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class GuardedSource(Source):
    """A source that is opened and read in a child process.

    Parameters
    ----------
    kind
        The class of the source; a fresh interpreter must find it by its module and name.
    path, args, options
        What `kind` is made of; the first names the file in messages. They are pickled.
    patience_s
        After so many seconds without a word from the child it is ended, and the file refused.

    Raises
    ------
    InputError
        As `kind` raises it.
    GenotypeFileError
        If the child crashes, naming the signal or the exit code.
    RuntimeError
        If `kind` raises anything else; holds the traceback of the child.
    """

    _waiting: ClassVar[weakref.ref[GuardedSource] | None] = None  # whose child waits

    def __init__(
        self,
        kind: type[Source],
        path: str | os.PathLike[str],
        *args: Any,
        patience_s: float = PATIENCE_S,
        **options: Any,
    ) -> None:
        self.path = str(path)
        self._description = (kind.__module__, kind.__qualname__, (path, *args), options)
        self._patience_s = patience_s
        self._sha256: str | None = None
        self._end_child: Callable[[], object] = lambda: None
        self._child: _Child | None = self._start()
        first = GuardedSource._waiting() if GuardedSource._waiting else None
        if first is None or first._child is None:
            GuardedSource._waiting = weakref.ref(self)
        else:
            self.close()

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """As `Source.blocks`; closing the iterator ends the child.

        The counts in `selection` are those of the child once the iterator is exhausted.

        Raises
        ------
        InputError, GenotypeFileError, RuntimeError
            As on opening.
        """
        child, self._child = self._child or self._start(), None
        try:
            child.send(selection)
            while (answer := child.receive())[0] != _DONE:
                if answer[0] == _BLOCK:
                    yield Block(answer[1], answer[2])
                    del answer  # while the next block comes
                else:
                    report(answer[1])
            _, left_out, seen, by_rule, self._sha256, self.format = answer
            selection.sites.left_out.update(left_out)
            selection.sites.seen.update(seen)
            selection.calls.by_rule.update(by_rule)
        finally:
            child.end()

    def sha256(self) -> str:
        """As `Source.sha256`."""
        if self._sha256 is None:
            raise RuntimeError(f"{self.path}: its checksum is known once it has been read")
        return self._sha256

    def close(self) -> None:
        """End the child that waits to read; done on collection as well."""
        self._end_child()
        self._child = None

    def _start(self) -> _Child:
        child = _Child(self.path, self._patience_s)
        self._end_child = weakref.finalize(self, child.end)
        try:
            child.send(self._description)
            _, path, self.format, sample_id, family_id = child.receive()
            if hasattr(self, "sample_id") and sample_id != self.sample_id:
                raise GenotypeFileError(
                    f"{self.path}: its samples are not those of a moment ago; read it again once "
                    "nothing writes to it"
                )
        except BaseException:
            child.end()
            raise
        self.path, self.sample_id, self.family_id = path, sample_id, family_id
        return child


class _Child:
    """A fresh interpreter that serves one source, seen from the parent."""

    def __init__(self, path: str, patience_s: float) -> None:
        self._path = path
        self._patience_s = patience_s
        self._printed = b""
        # `-S`: the parent's sys.path is handed over, so no .pth file need be read again.
        code = (
            f"import sys; sys.path[:] = {[p for p in sys.path if isinstance(p, str)]!r}; "
            f"from {__name__} import serve; serve()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-S", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=os.environ | _ONE_THREAD,
            start_new_session=True,  # Ctrl-C is the parent's to handle, and there is no terminal
        )
        self._pipes = [cast(IO[bytes], getattr(self._process, p)) for p in _PIPES]
        self._commands, self._frames, self._prints = (pipe.fileno() for pipe in self._pipes)
        _widen(self._frames)
        self._poll = select.poll()
        self._poll.register(self._frames, select.POLLIN)
        self._poll.register(self._prints, select.POLLIN)

    def send(self, message: object) -> None:
        try:
            _send(self._commands, message)
        except BrokenPipeError:
            self._crashed()

    def receive(self) -> Any:
        """The next frame; errors of the child are raised here."""
        (n_parts,) = struct.unpack("<I", self._take(4))
        if not 0 < n_parts <= _MAX_PARTS:
            self._crashed()
        sizes = struct.unpack(f"<{n_parts}Q", self._take(8 * n_parts))
        if max(sizes) > _MAX_PART:
            self._crashed()
        body, *buffers = [self._take(size) for size in sizes]
        try:
            answer = pickle.loads(body, buffers=buffers)
        except (pickle.UnpicklingError, ValueError, TypeError, LookupError, EOFError):
            self._crashed()
        if answer[0] == _REFUSED:
            raise answer[1]
        if answer[0] == _FAULT:
            raise RuntimeError(f"{self._path}: its reader failed\n{answer[1]}")
        return answer

    def end(self) -> None:
        """Kill the child if it still runs, and leave no zombie. May be called again."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        for pipe in self._pipes:
            pipe.close()

    def _take(self, n_bytes: int) -> bytearray:
        """Read so many bytes of the frames; what is printed meanwhile is put aside."""
        data = bytearray(n_bytes)
        view, done = memoryview(data), 0
        while done < n_bytes:
            ready = self._poll.poll(1000 * self._patience_s)
            if not ready:
                raise GenotypeFileError(
                    f"{self._path}: its reader said nothing for {self._patience_s:g} s and was "
                    f"ended; the file may be damaged: {COPY_AGAIN}"
                )
            files = {file for file, _ in ready}
            if self._prints in files and not self._put_aside():
                self._poll.unregister(self._prints)
            if self._frames in files:
                n_read = os.readv(self._frames, [view[done:]])
                if not n_read:
                    self._crashed()
                done += n_read
        return data

    def _put_aside(self) -> bool:
        """Keep the end of what was printed; whether there may be more."""
        piece = os.read(self._prints, _PIPE_BYTES)
        self._printed = (self._printed + piece)[-_PRINTED_BYTES:]
        return bool(piece)

    def _crashed(self) -> NoReturn:
        """Say how the child ended."""
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            code = 0
        os.set_blocking(self._prints, False)  # a child of the child may hold the other end
        with suppress(BlockingIOError):
            while self._put_aside():
                pass
        raise GenotypeFileError(f"{self._path}: {_ending(code, self._printed)}")


def _ending(code: int, printed: bytes) -> str:
    """What to say of a child that ended with this code (minus the signal), with the remedy."""
    if code == -signal.SIGKILL:
        return (
            "its reader was killed (SIGKILL), as the system does when memory runs out; free "
            "memory, or read fewer samples or variants"
        )
    if code < 0:
        name, words = f"signal {-code}", signal.strsignal(-code)
        if -code in set(signal.Signals):
            name = signal.Signals(-code).name
        ended = f"its reader crashed ({name}, {words})"
    else:
        ended = f"its reader ended in the middle (exit code {code})"
    lines = printed.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    said = f", saying {last[:_QUOTED_LETTERS]!a}" if last else ""
    return f"{ended}{said}; the file is probably damaged: {COPY_AGAIN}"


def _send(file: int, message: object) -> None:
    """Write one frame; arrays go as they lie in memory."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    sizes = [part.nbytes for part in parts]
    head = struct.pack(f"<I{len(parts)}Q", len(parts), *sizes)
    for part in (memoryview(head), *parts):
        while part.nbytes:
            part = part[os.write(file, part) :]


def _widen(file: int) -> None:
    """Let a pipe hold more than 64 KiB where the system can: fewer turns between the two."""
    try:
        import fcntl

        fcntl.fcntl(file, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        pass


# In the child.


def serve() -> NoReturn:
    """Open the source that stdin describes and send its blocks: all that the child does."""
    frames = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not come between the frames
    _no_core_file()
    try:
        with open(0, "rb", closefd=False) as commands:
            _serve(commands, frames)
    except InputError as fault:
        _last_word(frames, _REFUSED, _portable(fault))
    except (BrokenPipeError, EOFError):  # the parent has gone, or wants no more
        pass
    except BaseException:  # noqa: BLE001 - the parent raises it
        import traceback

        _last_word(frames, _FAULT, traceback.format_exc())
    os._exit(0)  # without tearing down: nothing here is worth keeping


def _serve(commands: BinaryIO, frames: int) -> None:
    module, name, args, options = _command(commands)
    _die_with_parent(True)
    kind: Any = import_module(module)
    for part in name.split("."):
        kind = getattr(kind, part)
    source: Source = kind(*args, **options)
    _die_with_parent(False)
    _send(frames, (_OPENED, source.path, source.format, source.sample_id, source.family_id))
    selection: Selection = _command(commands)
    _die_with_parent(True)
    selection.sites.left_out.clear()
    selection.calls.by_rule.clear()
    for block in source.blocks(selection, _Reporter(frames)):
        _send(frames, (_BLOCK, block.rows, block.dosage))
    counts = selection.sites.left_out, selection.sites.seen, selection.calls.by_rule
    _send(frames, (_DONE, *counts, source.sha256(), source.format))


class _Reporter:
    """Passes progress on, but not each of a thousand steps."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._fraction = self._time = -1.0

    def __call__(self, fraction: float) -> None:
        now = time.monotonic()
        if fraction >= self._fraction + 0.005 or fraction >= 1 or now > self._time + 1:
            self._fraction, self._time = fraction, now
            _send(self._frames, (_PROGRESS, fraction))


def _command(commands: BinaryIO) -> Any:
    (n_parts,) = struct.unpack("<I", _whole(commands, 4))
    sizes = struct.unpack(f"<{n_parts}Q", _whole(commands, 8 * n_parts))
    body, *buffers = [_whole(commands, size) for size in sizes]
    return pickle.loads(body, buffers=buffers)


def _whole(commands: BinaryIO, n_bytes: int) -> bytearray:
    data = bytearray(commands.read(n_bytes))
    if len(data) < n_bytes:
        raise EOFError
    return data


def _last_word(frames: int, *message: object) -> None:
    with suppress(BrokenPipeError):
        _send(frames, message)


def _portable(fault: InputError) -> InputError:
    """The error if it comes through a pickle, otherwise its words."""
    with suppress(Exception):  # whatever a class does when it is pickled
        if type(pickle.loads(pickle.dumps(fault))) is type(fault):
            return fault
    return GenotypeFileError(str(fault))


def _die_with_parent(on: bool) -> None:
    """Ask for SIGIO, which ends the process, when the other end of stdin is closed.

    So a child ends with its parent even where a native parser has lost itself in a loop.
    """
    try:
        import fcntl

        flags = fcntl.fcntl(0, fcntl.F_GETFL)
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)
    except (ImportError, AttributeError, OSError):  # then it ends at its next frame
        pass


def _no_core_file() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass
