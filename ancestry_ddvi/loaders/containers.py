"""Container checks: is the file whole, before any native parser sees its bytes.

A VCF comes as plain text, as gzip, or as bgzip (BGZF): gzip members ("blocks") of at most 64 KiB,
each with a CRC32 of its text, closed by one fixed empty block. A file that was cut off or damaged
can still be parsed up to the fault, which would silently give fewer or other genotypes; so one
pass over the file verifies every checksum, hands out the text, and takes the file's SHA-256.

Specifications: BGZF, https://samtools.github.io/hts-specs/SAMv1.pdf (section 4.1); gzip, RFC 1952.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ancestry_ddvi.errors import GenotypeFileError, InputError

PLAIN, GZIP, BGZIP = "plain text", "gzip", "bgzip"

BGZF_EOF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that closes every bgzip file (BGZF specification, 4.1.2)."""

_MAX_BLOCK_TEXT = 2**16
_CHUNK = 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COPY_AGAIN = "copy or download it again"
"""The remedy for a damaged file."""
CHANGED = "is not what it was a moment ago; read it again once nothing writes to it"
"""Of a file that another program changes, cuts off or removes while it is read."""

Take = Callable[[int], bytes]


class CheckedFile:
    """A regular, readable, non-empty file whose text is checked while it is read.

    Parameters
    ----------
    path
        The file; plain, gzip and bgzip are told apart by their first bytes, not by the name.
    error
        The exception to raise, so that each kind of input reports under its own type.

    Attributes
    ----------
    compression
        `"plain text"`, `"gzip"` or `"bgzip"`.
    size
        Bytes in the file, compressed if it is.

    Raises
    ------
    InputError
        Of type `error`: no such file, a directory, not a regular file, unreadable, empty.
    """

    def __init__(
        self, path: str | os.PathLike[str], error: type[InputError] = GenotypeFileError
    ) -> None:
        self.path = str(path)
        self.error = error
        self.size = self._check_path()
        with self.reading() as take:
            self.compression = sniff(take(18))
        self._hash = hashlib.sha256()
        self._position = 0

    @property
    def fraction_read(self) -> float:
        """Share of the file's bytes that `text` has taken so far."""
        return min(1.0, self._position / self.size)

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes taken so far: of the file, once `text` is exhausted."""
        return self._hash.hexdigest()

    def text(self) -> Iterator[bytes]:
        """Yield the text in pieces of at most 1 MiB; at the end the whole file has been verified.

        Raises
        ------
        InputError
            Of type `error`, naming the byte: the file is cut off, or a part of it is damaged.
        """
        walk = {PLAIN: self._plain, GZIP: self._gzip, BGZIP: self._bgzip}[self.compression]
        with self.reading() as take:
            yield from walk(take)

    @contextmanager
    def reading(self) -> Iterator[Take]:
        """A function that takes the next so many bytes as they lie in the file, fewer at its end.

        What it has taken is in `sha256`.
        """
        self._hash = hashlib.sha256()
        self._position = 0
        with self._open() as file:
            self._stamp = stamp(os.fstat(file.fileno()))
            yield lambda n_bytes: self._take(file, n_bytes)

    def check_unchanged(self) -> None:
        """Refuse the file if it was written to, or replaced, since `text` or `reading` began.

        For what another library reads after `text`: bytes of which `sha256` knows nothing.
        """
        try:
            same = stamp(os.stat(self.path)) == self._stamp
        except OSError as fault:
            raise self.fail(CHANGED) from fault
        if not same:
            raise self.fail(CHANGED)

    def fail(self, message: str) -> InputError:
        """The error to raise for this file."""
        return self.error(f"{self.path}: {message}")

    def _check_path(self) -> int:
        path = Path(self.path)
        try:
            if not path.exists():
                broken = " (a broken link)" if path.is_symlink() else ""
                raise self.fail(f"no such file{broken}; check the path")
            if path.is_dir():
                raise self.fail("is a directory; give the file inside it")
            if not path.is_file():
                raise self.fail("not a regular file; save the data to a file first")
            size = path.stat().st_size
        except (OSError, ValueError) as fault:
            raise self.fail(f"cannot be read ({fault}); check the path") from fault
        if size == 0:
            raise self.fail(f"is empty (0 bytes); {COPY_AGAIN}")
        return size

    def _open(self) -> BinaryIO:
        try:
            return open(self.path, "rb")
        except FileNotFoundError as fault:
            raise self.fail("no such file; check the path") from fault
        except OSError as fault:
            raise self.fail(f"cannot be read ({fault.strerror}); check its permissions") from fault

    def _take(self, file: BinaryIO, n_bytes: int) -> bytes:
        try:
            data = file.read(n_bytes)
        except OSError as fault:
            raise self.fail(
                f"cannot be read at byte {self._position} ({fault.strerror}); check the disk"
            ) from fault
        self._hash.update(data)
        self._position += len(data)
        return data

    def _plain(self, take: Take) -> Iterator[bytes]:
        while piece := take(_CHUNK):
            yield piece

    def _gzip(self, take: Take) -> Iterator[bytes]:
        inflate = zlib.decompressobj(wbits=31)
        data = b""
        while data := data or take(_CHUNK):
            if inflate.eof:  # gzip files may be several members, one after the other
                inflate = zlib.decompressobj(wbits=31)
            try:
                piece = inflate.decompress(data, _CHUNK)
            except zlib.error as fault:
                raise self.fail(
                    f"damaged gzip data before byte {self._position} ({_reason(fault)}); "
                    f"{COPY_AGAIN}"
                ) from fault
            data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            if piece:
                yield piece
        # Text may still wait inside zlib when the last input byte has been taken.
        while not inflate.eof and (piece := inflate.decompress(b"", _CHUNK)):
            yield piece
        if not inflate.eof:
            raise self.fail(
                f"cut off: its gzip data end early, at byte {self._position}; {COPY_AGAIN}"
            )

    def _bgzip(self, take: Take) -> Iterator[bytes]:
        block = b""
        while start := take(12):
            offset = self._position - len(start)
            block = self._block(take, start, offset)
            if text := self._inflate_block(block, offset):
                yield text
        if block != BGZF_EOF:
            raise self.fail(
                f"cut off: bgzip's end-of-file block is missing at byte {self._position}; "
                f"{COPY_AGAIN}, or compress it again with bgzip if it is known to be whole"
            )

    def _block(self, take: Take, start: bytes, offset: int) -> bytes:
        """Read the block whose first 12 bytes are `start`."""
        magic = b"\x1f\x8b\x08\x04"
        if start[:4] != magic[: len(start)]:
            raise self.fail(f"damaged: no bgzip block starts at byte {offset}; {COPY_AGAIN}")
        block = start
        if len(start) == 12:
            n_extra = struct.unpack_from("<H", start, 10)[0]
            block += take(n_extra)
            if len(block) == 12 + n_extra:
                size = _block_size(block[12:])
                if size is None or size < len(block) + 8:
                    raise self.fail(
                        f"damaged: the bgzip block at byte {offset} does not tell its size; "
                        f"{COPY_AGAIN}"
                    )
                block += take(size - len(block))
                if len(block) == size:
                    return block
        raise self.fail(
            f"cut off: the bgzip block at byte {offset} is incomplete (the file ends at byte "
            f"{self._position}); {COPY_AGAIN}"
        )

    def _inflate_block(self, block: bytes, offset: int) -> bytes:
        """The text of one whole block, its CRC32 and length verified."""
        n_extra = struct.unpack_from("<H", block, 10)[0]
        crc, n_text = struct.unpack_from("<II", block, len(block) - 8)
        inflate = zlib.decompressobj(wbits=-15)
        try:
            text = inflate.decompress(block[12 + n_extra : -8], _MAX_BLOCK_TEXT)
        except zlib.error as fault:
            raise self.fail(
                f"damaged bgzip block at byte {offset} ({_reason(fault)}); {COPY_AGAIN}"
            ) from fault
        whole = inflate.eof and not inflate.unused_data
        if not whole or len(text) != n_text or zlib.crc32(text) != crc:
            raise self.fail(
                f"damaged bgzip block at byte {offset} (its checksum does not match); {COPY_AGAIN}"
            )
        return text


def stamp(status: os.stat_result) -> tuple[int, int, int]:
    """What is another once a file was written to or replaced."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def sniff(start: bytes) -> str:
    """Name the compression of a file that begins with `start` (18 bytes are enough)."""
    if not start.startswith(b"\x1f\x8b"):
        return PLAIN
    is_bgzip = len(start) >= 18 and start[3] & 4 and start[12:16] == b"BC\x02\x00"
    return BGZIP if is_bgzip else GZIP


def iter_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their line feed; memory is bounded by the longest line."""
    open_line: list[bytes] = []
    for piece in pieces:
        head, *rest = piece.split(b"\n")
        open_line.append(head)
        for start in rest:
            yield b"".join(open_line)
            open_line = [start]
    if any(open_line):
        yield b"".join(open_line)


def _block_size(extra: bytes) -> int | None:
    """Total size of a block from its gzip extra field, or None without the `BC` subfield."""
    while len(extra) >= 4:
        n_bytes = struct.unpack_from("<H", extra, 2)[0]
        if extra[:2] == b"BC" and n_bytes == 2 and len(extra) >= 6:
            return int(struct.unpack_from("<H", extra, 4)[0]) + 1
        extra = extra[4 + n_bytes :]
    return None


def _reason(fault: zlib.error) -> str:
    """zlib's words without its error number: "Error -3 while ...: incorrect data check"."""
    return str(fault).rsplit(": ", 1)[-1]
