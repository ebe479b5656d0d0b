"""Our own cache: everything of a GenotypeMatrix in one .npz, quick to write and to read.

A zip of .npy arrays, none of them pickled:

    dosage    (n_variants, ceil(n_samples / 4)) uint8: four samples a byte, the first in the lowest
              two bits, as 0, 1 or 2 copies of ALT, 3 missing; bits behind the last sample are 0
    position  (n_variants,) int64
    contig    (n_variants,) int32: index into `contigs` of the text
    text      (n_bytes,) uint8: JSON in ASCII, an object with `contigs`, `id`, `ref`, `alt` (a list
              each; one a variant, but for `contigs`), `sample_id`, `family_id` (a list or null),
              `source`, `left_out`
    format    (2,) int64: FORMAT_VERSION, n_samples
    sha256    (32,) uint8: `content_digest` of the others

A reader checks `format`, then `sha256`, and only then uses the rest; `dosage` it never holds, but
reads it a few rows at a time, once for the checksum and once for the genotypes. `writers/cache.py`
writes it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import numpy as np

from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.loaders.containers import CHANGED, COPY_AGAIN, CheckedFile
from ancestry_ddvi.loaders.source import Block, Progress, Selection, Site, Source

FORMAT_VERSION = 1

_NAMES = ("contig", "dosage", "format", "position", "sha256", "text")
_BLOCK_BYTES = 2**20  # of dosages
_PIECE = 2**20
_DOSAGE = np.array([0, 1, 2, MISSING], dtype=np.int8)
# Of every byte, the dosages of its four samples.
_FOUR = _DOSAGE[(np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3]


def is_cache(path: str | os.PathLike[str]) -> bool:
    """Whether a zip holds the arrays of a cache."""
    try:
        with zipfile.ZipFile(path) as file:
            return {f"{name}.npy" for name in _NAMES} <= set(file.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def content_digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of name, type, shape and bytes of all arrays but `sha256`, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(set(arrays) - {"sha256"}):
        _update(digest, name, np.ascontiguousarray(arrays[name]))
    return digest.digest()


def _update(digest: hashlib._Hash, name: str, array: np.ndarray) -> None:
    digest.update(_title(name, array.dtype, array.shape))
    digest.update(array.data)


def _title(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    return f"{name} {dtype.str} {shape}\n".encode()


class CacheSource(Source):
    """A .npz that `ancestry-ddvi convert` wrote.

    Raises
    ------
    GenotypeFileError
        If it is damaged, or of a later version.
    """

    format = "npz"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)
        self._file = CheckedFile(path)
        for _ in self._file.text():  # to the end, for the checksum
            pass
        with self._errors("is damaged", COPY_AGAIN), np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _NAMES if name != "dosage"}
        if arrays["format"].shape != (2,) or arrays["format"].dtype != np.int64:
            raise self._file.fail(f"is damaged (its format is no pair of numbers); {COPY_AGAIN}")
        version, n_samples = map(int, arrays["format"])
        if version != FORMAT_VERSION:
            raise self._file.fail(
                f"is a cache of version {version}, and this program reads {FORMAT_VERSION}; update "
                "it, or convert the original file again"
            )
        with self._errors("is damaged", COPY_AGAIN):
            digest, shape, self._crc = self._digest(arrays)
        if arrays["sha256"].tobytes() != digest:
            raise self._file.fail(f"is damaged (its checksum does not match); {COPY_AGAIN}")
        # A checksum tells of damage, not of who wrote it: the rest may still be anything.
        try:
            text = _checked_text(arrays, shape, n_samples)
        except (ValueError, TypeError, KeyError, RecursionError) as fault:
            raise self._file.fail(f"is damaged ({fault}); {COPY_AGAIN}") from fault
        self._n_samples = n_samples
        self._position = arrays["position"]
        self._contig = [text["contigs"][at] for at in arrays["contig"]]
        self._text = tuple(text[name] for name in ("id", "ref", "alt"))
        self.sample_id = tuple(text["sample_id"])
        self.family_id = None if text["family_id"] is None else tuple(text["family_id"])

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """Yield the variants taken; see `Source`."""
        samples = slice(None) if selection.samples is None else selection.samples
        row_bytes = -(-self._n_samples // 4)
        width = max(1, _BLOCK_BYTES // self._n_samples)
        n_variants = len(self._contig)
        with ExitStack() as stack:
            with self._errors(*CHANGED.split("; ")):
                data, _, crc = stack.enter_context(self._dosage())
            for start in range(0, n_variants, width):
                rows: list[Site] = []
                index = []
                stop = min(start + width, n_variants)
                for at in range(start, stop):
                    name, ref, alt = (column[at] for column in self._text)
                    site = (self._contig[at], int(self._position[at]), name, ref)
                    if selection.sites.take(*site, (alt,)):
                        rows.append((*site, alt))
                        index.append(at - start)
                with self._errors(*CHANGED.split("; ")):  # zipfile holds them against the CRC
                    packed = data.read((stop - start) * row_bytes)
                if rows:
                    four = np.frombuffer(packed, np.uint8).reshape(-1, row_bytes)[index]
                    dosage = _FOUR[four].reshape(len(index), -1)[:, : self._n_samples]
                    yield Block(rows, dosage[:, samples])
                report(stop / n_variants)
            if crc != self._crc or data.read(1):
                raise self._file.fail(CHANGED)

    def sha256(self) -> str:
        """Of the file."""
        return self._file.sha256

    @contextmanager
    def _dosage(self) -> Iterator[tuple[IO[bytes], tuple[int, ...], int]]:
        """The packed dosages as a stream, their shape, and their CRC32 as the zip has it."""
        with zipfile.ZipFile(self.path) as archive:
            crc = archive.getinfo("dosage.npy").CRC
            with archive.open("dosage.npy") as data:
                version = np.lib.format.read_magic(data)
                if version != (1, 0):
                    raise ValueError(f"its dosages are a .npy of version {version}")
                shape, by_column, dtype = np.lib.format.read_array_header_1_0(data)
                if by_column or dtype != np.uint8:
                    raise ValueError("its dosages are of another type")
                yield data, shape, crc

    def _digest(self, arrays: Mapping[str, np.ndarray]) -> tuple[bytes, tuple[int, ...], int]:
        """`content_digest` of `arrays` and the dosages, with the shape and CRC32 of the latter."""
        digest = hashlib.sha256()
        with self._dosage() as (data, shape, crc):
            for name in _NAMES:
                if name == "dosage":
                    digest.update(_title(name, np.dtype(np.uint8), shape))
                    n_left = math.prod(shape)
                    while piece := data.read(_PIECE):
                        digest.update(piece)
                        n_left -= len(piece)
                    if n_left:
                        raise ValueError("its dosages are not of their shape")
                elif name != "sha256":
                    _update(digest, name, np.ascontiguousarray(arrays[name]))
        return digest.digest(), shape, crc

    @contextmanager
    def _errors(self, what: str, remedy: str) -> Iterator[None]:
        """Turn what numpy and zipfile raise into an error that says what is wrong with the file."""
        try:
            yield
        except (OSError, ValueError, KeyError, EOFError, MemoryError) as fault:
            raise self._file.fail(f"{what} ({fault}); {remedy}") from fault
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as fault:
            raise self._file.fail(f"{what} ({fault}); {remedy}") from fault


def _checked_text(
    arrays: Mapping[str, np.ndarray], dosage_shape: tuple[int, ...], n_samples: int
) -> dict[str, Any]:
    """The object in `text`, once all parts are found to fit one another.

    Raises
    ------
    ValueError, TypeError, KeyError, RecursionError
        If a part is missing, or of another type or length.
    """
    text: dict[str, Any] = json.loads(arrays["text"].tobytes())
    position, contig = arrays["position"], arrays["contig"]
    n_variants, n_contigs = len(position), len(text["contigs"])
    shapes = (n_variants, -(-n_samples // 4)), (n_variants,), (n_variants,)
    if n_samples < 1 or (dosage_shape, position.shape, contig.shape) != shapes:
        raise ValueError("its arrays are not of one shape")
    if position.dtype != np.int64 or contig.dtype != np.int32:
        raise ValueError("its arrays are of other types")
    if n_variants and not 0 <= contig.min() <= contig.max() < n_contigs:
        raise ValueError("a variant is on a contig that it does not name")
    lengths = dict.fromkeys(("id", "ref", "alt"), n_variants) | {
        "contigs": n_contigs,
        "sample_id": n_samples,
    }
    if text["family_id"] is not None:
        lengths["family_id"] = n_samples
    for name, n in lengths.items():
        values = text[name]
        if len(values) != n or not all(isinstance(value, str) for value in values):
            raise ValueError(f"{name} is no list of {n} texts")
    if not all(name.strip() and "\0" not in name for name in text["sample_id"]):
        raise ValueError("a sample id is empty or holds a NUL")
    return text
