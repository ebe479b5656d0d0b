"""A file is read whole and intact, or refused with the byte at which it is not."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import pytest
from helpers import write_text
from hypothesis import given
from hypothesis import strategies as st

from ancestry_ddvi.errors import GenotypeFileError, LabelFileError
from ancestry_ddvi.loaders.containers import BGZF_EOF, CheckedFile, iter_lines, sniff

# Text that does not compress, and so makes three bgzip blocks beside the closing one.
TEXT = hashlib.shake_128(b"seed").hexdigest(80_000)
COMPRESSIONS = ["none", "gzip", "bgzip"]


def read_all(path: Path) -> bytes:
    return b"".join(CheckedFile(path).text())


def message_of(path: Path) -> str:
    with pytest.raises(GenotypeFileError) as caught:
        read_all(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def block_offsets(data: bytes) -> list[int]:
    """Where bgzip's blocks start, from the sizes that they declare (BC is the only subfield)."""
    offsets = [0]
    while offsets[-1] < len(data):
        offsets.append(offsets[-1] + struct.unpack_from("<H", data, offsets[-1] + 16)[0] + 1)
    return offsets[:-1]


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_text_checksum_and_fraction(tmp_path: Path, compress: str) -> None:
    path = write_text(tmp_path / "file", TEXT, compress)
    file = CheckedFile(path)
    assert file.fraction_read == 0
    assert b"".join(file.text()).decode() == TEXT
    assert file.compression == {"none": "plain text"}.get(compress, compress)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.fraction_read == 1
    assert file.size == path.stat().st_size


def test_a_second_pass_gives_the_same(tmp_path: Path) -> None:
    file = CheckedFile(write_text(tmp_path / "file", TEXT, "bgzip"))
    first, sha256 = b"".join(file.text()), file.sha256
    assert (b"".join(file.text()), file.sha256) == (first, sha256)


def test_long_text_comes_in_bounded_pieces(tmp_path: Path) -> None:
    n_bytes = 5 * 2**20 + 7
    path = tmp_path / "zeros.gz"
    path.write_bytes(gzip.compress(bytes(n_bytes)))
    sizes = [len(piece) for piece in CheckedFile(path).text()]
    assert sum(sizes) == n_bytes
    assert max(sizes) <= 2**20


def test_gzip_of_several_members(tmp_path: Path) -> None:
    path = tmp_path / "two.gz"
    path.write_bytes(gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two"))
    assert read_all(path) == b"one two"


def test_bgzip_files_joined_by_cat(tmp_path: Path) -> None:
    one = write_text(tmp_path / "one", "one ", "bgzip").read_bytes()
    path = tmp_path / "both"
    path.write_bytes(one + write_text(tmp_path / "two", "two", "bgzip").read_bytes())
    assert read_all(path) == b"one two"


def test_missing_path(tmp_path: Path) -> None:
    assert message_of(tmp_path / "absent.vcf").endswith("no such file; check the path")


def test_gone_since_it_was_opened(tmp_path: Path) -> None:
    file = CheckedFile(write_text(tmp_path / "file", TEXT))
    (tmp_path / "file").unlink()
    with pytest.raises(GenotypeFileError, match="file: no such file; check the path"):
        next(file.text())


def test_written_to_or_replaced(tmp_path: Path) -> None:
    path = write_text(tmp_path / "file", TEXT)
    file = CheckedFile(path)
    assert b"".join(file.text())
    file.check_unchanged()
    os.utime(path, (1, 1))
    with pytest.raises(GenotypeFileError, match="file: is not what it was a moment ago; read it"):
        file.check_unchanged()
    path.unlink()
    with pytest.raises(GenotypeFileError, match="file: is not what it was a moment ago; read it"):
        file.check_unchanged()


def test_broken_link(tmp_path: Path) -> None:
    link = tmp_path / "link.vcf"
    link.symlink_to(tmp_path / "absent")
    assert "no such file (a broken link)" in message_of(link)


def test_directory(tmp_path: Path) -> None:
    assert "is a directory" in message_of(tmp_path)


def test_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in message_of(tmp_path / "pipe")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.vcf").touch()
    assert "is empty (0 bytes)" in message_of(tmp_path / "empty.vcf")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "file", TEXT)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert "cannot be read (Permission denied)" in message_of(path)


def test_path_with_a_nul_byte() -> None:
    with pytest.raises(GenotypeFileError, match="check the path"):
        CheckedFile("a\0b")


def test_reports_under_the_error_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(LabelFileError):
        CheckedFile(tmp_path / "absent", LabelFileError)


@pytest.mark.parametrize(
    ("block", "into"),
    # The first 18 bytes of the file are what tells bgzip from gzip.
    [(0, 18), (0, 5000), *((block, into) for block in (1, 2) for into in (1, 11, 14, 17, 5000))],
)
def test_bgzip_cut_inside_a_block(tmp_path: Path, block: int, into: int) -> None:
    path = write_text(tmp_path / "file", TEXT, "bgzip")
    data = path.read_bytes()
    offset = block_offsets(data)[block]
    path.write_bytes(data[: offset + into])
    message = message_of(path)
    assert f"cut off: the bgzip block at byte {offset} is incomplete" in message
    assert f"ends at byte {offset + into}" in message


def test_bgzip_cut_between_blocks(tmp_path: Path) -> None:
    path = write_text(tmp_path / "file", TEXT, "bgzip")
    data = path.read_bytes()
    offset = block_offsets(data)[2]
    path.write_bytes(data[:offset])
    assert f"cut off: bgzip's end-of-file block is missing at byte {offset}" in message_of(path)


def test_bgzip_without_its_last_block(tmp_path: Path) -> None:
    path = write_text(tmp_path / "file", TEXT, "bgzip")
    data = path.read_bytes()
    assert data.endswith(BGZF_EOF)
    path.write_bytes(data.removesuffix(BGZF_EOF))
    assert "end-of-file block is missing" in message_of(path)


@pytest.mark.parametrize("into", [100, 20_000, -8, -5, -4, -1])
def test_bgzip_block_damaged(tmp_path: Path, into: int) -> None:
    """In its text, its checksum (last eight bytes) and its length (last four)."""
    path = write_text(tmp_path / "file", TEXT, "bgzip")
    data = path.read_bytes()
    offset, after = block_offsets(data)[1:3]
    path.write_bytes(damaged(data, (offset if into > 0 else after) + into))
    assert f"damaged bgzip block at byte {offset} (" in message_of(path)


@pytest.mark.parametrize("into", [0, 3, 13])
def test_bgzip_block_header_damaged(tmp_path: Path, into: int) -> None:
    path = write_text(tmp_path / "file", TEXT, "bgzip")
    data = path.read_bytes()
    offset = block_offsets(data)[1]
    path.write_bytes(damaged(data, offset + into))
    message = message_of(path)
    assert "damaged" in message
    assert f"at byte {offset}" in message


def test_bgzip_with_something_behind(tmp_path: Path) -> None:
    path = write_text(tmp_path / "file", TEXT, "bgzip")
    n_bytes = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"something else")
    assert f"no bgzip block starts at byte {n_bytes}" in message_of(path)


@pytest.mark.parametrize("n_left_off", [1, 8, 9, 10_000])
def test_gzip_cut_off(tmp_path: Path, n_left_off: int) -> None:
    path = write_text(tmp_path / "file", TEXT, "gzip")
    data = path.read_bytes()
    path.write_bytes(data[:-n_left_off])
    message = message_of(path)
    assert f"cut off: its gzip data end early, at byte {len(data) - n_left_off}" in message


@pytest.mark.parametrize("at", [-1, -8, -10_000])
def test_gzip_damaged(tmp_path: Path, at: int) -> None:
    path = write_text(tmp_path / "file", TEXT, "gzip")
    data = path.read_bytes()
    path.write_bytes(damaged(data, len(data) + at))
    assert "damaged gzip data" in message_of(path)


def test_gzip_with_something_behind(tmp_path: Path) -> None:
    path = write_text(tmp_path / "file", TEXT, "gzip")
    path.write_bytes(path.read_bytes() + b"something else")
    assert "damaged gzip data" in message_of(path)


@pytest.mark.parametrize(
    ("start", "compression"),
    [
        (b"##fileformat=VCFv4.2", "plain text"),
        (b"", "plain text"),
        (BGZF_EOF, "bgzip"),
        (BGZF_EOF[:17], "gzip"),
        (gzip.compress(b"text"), "gzip"),
    ],
)
def test_sniff(start: bytes, compression: str) -> None:
    assert sniff(start) == compression


@given(st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"\r", b"\n"))))
def test_lines_do_not_depend_on_where_pieces_end(pieces: list[bytes]) -> None:
    text = b"".join(pieces)
    expected = text.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert list(iter_lines(pieces)) == expected
