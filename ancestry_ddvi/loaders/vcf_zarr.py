"""VCF Zarr: the fields of a VCF as chunked arrays, in a directory or a zip, through zarr.

    call_genotype     (variants, samples, ploidy) int: allele indices, -1 missing, -2 no such allele
    variant_contig    (variants) int: index into contig_id, (contigs) str
    variant_position  (variants) int, 1-based
    variant_allele    (variants, alleles) str: REF, ALT, ..., padded with ""
    variant_id        (variants) str, with variant_id_mask (variants) bool where there is none
    sample_id         (samples) str

A chunk that is absent reads as the array's fill value, so a store of which a part was lost would
give homozygous genotypes. Chunks of genotypes, positions, alleles and names must all be there.
Chunks may be damaged and have no checksum: this source is to run in a `GuardedSource`.

Specification: https://github.com/sgkit-dev/vcf-zarr-spec, to version 0.5 (0.1 has its contigs in an
attribute); Zarr formats 2 and 3.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from sys import intern
from typing import Any, BinaryIO

import numpy as np

from ancestry_ddvi.errors import GenotypeFileError
from ancestry_ddvi.loaders.calls import NO_ALLELE, HalfCallError, dosage_of, polyploid
from ancestry_ddvi.loaders.containers import CHANGED, COPY_AGAIN, CheckedFile, stamp
from ancestry_ddvi.loaders.sites import MAX_POSITION, counted_alt
from ancestry_ddvi.loaders.source import NOT_DIPLOID, Block, Progress, Selection, Site, Source

_VERSION = "vcf_zarr_version"
_CALLS = "call_genotype"
_DIMENSIONS = {_CALLS: 3, "variant_contig": 1, "variant_position": 1, "variant_allele": 2}
_OPTIONAL = {"variant_id": 1, "variant_id_mask": 1, "contig_id": 1}
_ARRAYS = (*_DIMENSIONS, "sample_id", *_OPTIONAL)
_INTEGERS = (_CALLS, "variant_contig", "variant_position")
# A writer may leave out a chunk that is all contig 0, or all without an id.
_MAY_LACK_CHUNKS = ("variant_contig", "variant_id", "variant_id_mask")

_ROOT_FILES = (".zgroup", ".zattrs", "zarr.json")
_METADATA = (".zarray", ".zattrs", "zarr.json")
# https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst: the last is the chunk's size.
_BLOSC_HEAD = struct.Struct("<12xI")
_BLOCK_VARIANTS = 4096
_READ_BYTES, _BLOCK_BYTES = 2**21, 2**20  # of calls: read together, and decoded together
_PIECE = 2**20
_HASHED = 0.1  # of the time, when the files have been hashed


def is_vcf_zarr(path: str | os.PathLike[str]) -> bool:
    """Whether a directory or a zip is a Zarr group with a VCF Zarr version or `call_genotype`."""
    try:
        if os.path.isdir(path):
            return _is_store(_DirectoryFiles(Path(path)))
        if os.path.isfile(path) and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _is_store(_ZipFiles(archive))
    except (OSError, ValueError, zipfile.BadZipFile):
        pass
    return False


class VcfZarrSource(Source):
    """A VCF Zarr store.

    Parameters
    ----------
    path
        A directory, or a zip file with the store at its root.

    Raises
    ------
    GenotypeFileError
        If zarr is not installed, an array is missing, damaged, or disagrees with the others, or a
        sample id occurs twice.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)
        self._sha256: str | None = None
        self._files: list[Path] | None = None
        if os.path.isdir(path):
            self._files = self._find_files(Path(path))
        with self._arrays() as (arrays, attributes):
            self._check(arrays)
            self._by_blosc = {name for name, array in arrays.items() if _is_by_blosc(array)}
            ids = self._strings(arrays["sample_id"], slice(None))
            self._contigs = (
                self._strings(arrays["contig_id"], slice(None))
                if "contig_id" in arrays
                else self._contigs_of(attributes)
            )
            version = attributes.get(_VERSION)
            self.format = f"VCF Zarr {version}" if isinstance(version, str) else "VCF Zarr"
        columns: dict[str, int] = {}
        for column, name in enumerate(ids, start=1):
            if not name.strip():
                raise self._fail(f"the sample id number {column} is empty; name the sample")
            if "\0" in name:  # numpy would drop it from the end
                raise self._fail(f"the sample id number {column} holds a NUL; {COPY_AGAIN}")
            if name in columns:
                raise self._fail(
                    f"sample id {name!r} is that of number {columns[name]} and of {column}; rename "
                    "one or drop it"
                )
            columns[name] = column
        self.sample_id = tuple(columns)

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """As `Source.blocks`."""
        stamps = self._stamps()
        self._sha256 = self._hash(report)
        with self._arrays() as (arrays, _):
            calls = arrays[_CALLS]
            n_variants = calls.shape[0]
            step = _rows_at_once(calls)
            for start in range(0, n_variants, step):
                part = slice(start, min(start + step, n_variants))
                yield from self._blocks(arrays, part, selection)
                report(_HASHED + (1 - _HASHED) * part.stop / n_variants)
        # A chunk that went away meanwhile was read as if it held the fill value.
        if self._stamps() != stamps:
            raise self._fail(CHANGED)
        report(1.0)

    def sha256(self) -> str:
        """Of the names and bytes of the files that were read, sorted by name; of a zip, its own."""
        if self._sha256 is None:
            raise RuntimeError(f"{self.path}: its checksum is known once it has been read")
        return self._sha256

    def _blocks(self, arrays: dict[str, Any], part: slice, selection: Selection) -> Iterator[Block]:
        """Yield the variants of a part that are taken."""
        rows: list[Site] = []
        at: list[int] = []
        alts_taken: list[int] = []
        n_alleles = np.empty(part.stop - part.start, dtype=int)
        for number, (contig, position, name, alleles) in enumerate(self._sites(arrays, part)):
            n_alleles[number] = len(alleles)
            ref, *alts = alleles
            for taken in selection.sites.take(contig, position, name, ref, alts):
                upper = intern(ref.upper()), intern(counted_alt(alts, taken))
                rows.append((contig, position, name, *upper))
                at.append(number)
                alts_taken.append(taken)
        if not rows:
            return
        begin, end = at[0], at[-1] + 1
        calls = self._get(arrays[_CALLS], slice(part.start + begin, part.start + end))
        step = max(1, _BLOCK_BYTES // calls[0].nbytes)
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            first, last = at[some][0], at[some][-1] + 1
            block = self._decode(
                rows[some],
                calls[first - begin : last - begin],
                np.array(at[some]) - first,
                np.array(alts_taken[some]),
                n_alleles[first:last],
                part.start + first,
                selection,
            )
            if block is not None:
                yield block

    def _decode(
        self,
        rows: list[Site],
        calls: np.ndarray,
        index: np.ndarray,
        alt: np.ndarray,
        n_alleles: np.ndarray,
        first: int,
        selection: Selection,
    ) -> Block | None:
        """The variants `rows`, their ALT alleles `alt` in the records `index` of `calls`.

        `first` is the number of the first of these records in the file, from 0.
        """
        if selection.samples is not None:
            calls = calls[:, selection.samples]
        self._check_calls(calls, index, n_alleles, first, selection)
        if calls.shape[2] > 2:
            use = np.flatnonzero(~polyploid(calls[index]).any(axis=1))
            if len(use) < len(rows):
                selection.sites.left_out[NOT_DIPLOID] += len(rows) - len(use)
            rows = [rows[row] for row in use]
            index, alt = index[use], alt[use]
            if not rows:
                return None
        one = calls[..., 0]
        two = calls[..., 1] if calls.shape[2] > 1 else np.full_like(one, NO_ALLELE)
        dosage = np.empty((len(rows), calls.shape[1]), dtype=np.int8)
        for allele in np.unique(alt):
            which = np.flatnonzero(alt == allele)
            try:
                dosage[which] = dosage_of(
                    one[index[which]], two[index[which]], int(allele), selection.calls
                )
            except HalfCallError as fault:
                row, column = which[fault.at[0]], fault.at[1]
                raise self._fail(
                    f"variant {first + index[row] + 1} "
                    f"({rows[row][0]}:{rows[row][1]}): "
                    f"sample {self._sample(column, selection)} has a half call; take half calls "
                    "as missing, reference or haploid"
                ) from fault
        return Block(rows, dosage)

    def _sites(
        self, arrays: dict[str, Any], part: slice
    ) -> Iterator[tuple[str, int, str, list[str]]]:
        """Contig, position, id and alleles (REF first) of each variant of a part."""
        contigs = self._get(arrays["variant_contig"], part).tolist()
        positions = self._get(arrays["variant_position"], part).tolist()
        alleles = self._strings(arrays["variant_allele"], part)
        names = self._strings(arrays["variant_id"], part) if "variant_id" in arrays else None
        masked = self._get(arrays["variant_id_mask"], part) if "variant_id_mask" in arrays else None
        for number, (contig, position, padded) in enumerate(
            zip(contigs, positions, alleles, strict=True)
        ):
            if position > MAX_POSITION:
                raise self._fail(
                    f"variant {part.start + number + 1} has position {position}, above "
                    f"{MAX_POSITION}; {COPY_AGAIN}"
                )
            if not 0 <= contig < len(self._contigs):
                raise self._fail(
                    f"variant {part.start + number + 1} is on contig number {contig}, but there "
                    f"are {len(self._contigs)}; {COPY_AGAIN}"
                )
            while len(padded) > 1 and not padded[-1]:
                padded.pop()
            name = (
                "." if names is None or (masked is not None and masked[number]) else names[number]
            )
            yield self._contigs[contig], position, name or ".", padded

    def _check_calls(
        self,
        calls: np.ndarray,
        index: np.ndarray,
        n_alleles: np.ndarray,
        first: int,
        selection: Selection,
    ) -> None:
        """Refuse allele indices that the taken records do not have."""
        if not calls.size or (calls.max() < n_alleles[index].min() and calls.min() >= NO_ALLELE):
            return
        known = np.zeros(len(calls), dtype=bool)
        known[index] = True
        bad = ((calls >= n_alleles[:, None, None]) | (calls < NO_ALLELE)) & known[:, None, None]
        if bad.any():
            row, column, place = (int(i) for i in np.argwhere(bad)[0])
            raise self._fail(
                f"variant {first + row + 1}: sample {self._sample(column, selection)} has the "
                f"allele {calls[row, column, place]}, but the record has {n_alleles[row]} alleles; "
                f"{COPY_AGAIN}"
            )

    def _sample(self, column: int, selection: Selection) -> str:
        samples = selection.samples
        return self.sample_id[column if samples is None else int(samples[column])]

    def _check(self, arrays: dict[str, Any]) -> None:
        """Refuse arrays of other shapes and types, and such as lack chunks."""
        for name, array in arrays.items():
            if array.ndim != (_DIMENSIONS | _OPTIONAL).get(name, 1):
                raise self._fail(f"{name} has {array.ndim} dimensions; write the store anew")
            if name in _INTEGERS and array.dtype.kind not in "iu":
                raise self._fail(
                    f"{name} is of type {array.dtype}, not integer; write the store anew"
                )
        calls = arrays[_CALLS]
        n_variants, n_samples, ploidy = calls.shape
        if not n_variants or not n_samples or not ploidy:
            raise self._fail(
                f"{_CALLS} has shape {calls.shape}: there are no genotypes in it; write the store "
                "anew"
            )
        for name, array in arrays.items():
            n = n_samples if name == "sample_id" else n_variants
            if name != "contig_id" and array.shape[0] != n:
                raise self._fail(
                    f"{name} has {array.shape[0]} entries, but {_CALLS} has shape {calls.shape}; "
                    "write the store anew"
                )
            if not array.shape[-1]:
                raise self._fail(f"{name} has shape {array.shape}: it is empty; write it anew")
            if name not in _MAY_LACK_CHUNKS:
                n_there = self._attempt(
                    name, lambda name=name, array=array: self._n_chunks(name, array)
                )
                if n_there < array.nchunks:
                    raise self._fail(
                        f"{array.nchunks - n_there} of the {array.nchunks} chunks of {name} are "
                        f"absent: {COPY_AGAIN}, or write it with zarr's write_empty_chunks if it "
                        "is known to be whole"
                    )

    def _n_chunks(self, name: str, array: Any) -> int:
        """Chunks that are there."""
        if self._files is not None:
            return int(array.nchunks_initialized)
        # In a zip, zarr takes the chunks of name_more for some of name's, and stumbles.
        with zipfile.ZipFile(self.path) as archive:
            members = {
                member
                for member in archive.namelist()
                if member.startswith(f"{name}/") and not member.endswith(("/", *_METADATA))
            }
        shard = getattr(array, "shards", None) or array.chunks
        return int(len(members) * (math.prod(shard) // math.prod(array.chunks)))

    def _contigs_of(self, attributes: dict[str, Any]) -> list[str]:
        contigs = attributes.get("contigs")
        if not isinstance(contigs, list) or not all(isinstance(name, str) for name in contigs):
            raise self._fail("has no array contig_id; write the store anew, e.g. with vcf2zarr")
        return contigs

    @contextmanager
    def _arrays(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The arrays by name, and the attributes of the group."""
        zarr = self._zarr()
        store = None
        try:
            try:
                if self._files is None:
                    store = zarr.storage.ZipStore(self.path, mode="r", read_only=True)
                else:
                    store = zarr.storage.LocalStore(self.path, read_only=True)
                with _quiet():
                    group = zarr.open_group(store, mode="r", use_consolidated=False)
                    attributes = dict(group.attrs)
            except Exception as fault:  # zarr raises nothing narrower
                raise self._fail(f"cannot be opened ({_said(fault)}); {COPY_AGAIN}") from fault
            arrays = {name: self._array(zarr, group, name) for name in _ARRAYS}
            yield {name: array for name, array in arrays.items() if array is not None}, attributes
        finally:
            # A ZipStore of zarr 3.1 cannot be closed if it could not be opened.
            with suppress(AttributeError):
                if store is not None:
                    store.close()

    def _array(self, zarr: Any, group: Any, name: str) -> Any:
        """An array of the group; None if it lacks one that is optional."""
        try:
            with _quiet():
                array = group[name]
        except KeyError as fault:
            if name in _OPTIONAL:
                return None
            raise self._fail(
                f"has no array {name}; write the store anew, e.g. with vcf2zarr"
            ) from fault
        except Exception as fault:  # zarr raises nothing narrower
            raise self._damaged(name, fault) from fault
        if not isinstance(array, zarr.Array):
            raise self._fail(f"{name} is no array; write the store anew")
        return array

    def _zarr(self) -> Any:
        try:
            import zarr
        except ImportError as fault:
            raise self._fail(
                'is a VCF Zarr store, to read which zarr is needed: pip install "ancestry-ddvi'
                '[zarr]"'
            ) from fault
        if int(zarr.__version__.split(".")[0]) < 3:
            raise self._fail(
                f'zarr {zarr.__version__} is too old to read it: pip install "ancestry-ddvi[zarr]"'
            )
        return zarr

    def _get(self, array: Any, part: slice) -> np.ndarray:
        values: np.ndarray = self._attempt(array.basename, lambda: np.asarray(array[part]))
        return values

    def _strings(self, array: Any, part: slice) -> list[Any]:
        """The strings of an array, as nested lists if it has two dimensions."""
        values = self._get(array, part)
        if values.dtype.kind == "S":
            values = self._attempt(array.basename, lambda: np.strings.decode(values, "utf-8"))
        listed: list[Any] = values.tolist()
        for name in listed if values.ndim == 1 else (a for row in listed for a in row):
            if not isinstance(name, str):
                raise self._fail(f"{array.basename} holds {name!r}, which is no string")
        return listed

    def _attempt(self, name: str, work: Any) -> Any:
        try:
            with _quiet():
                return work()
        except Exception as fault:  # zarr and its codecs raise nothing narrower
            raise self._damaged(name, fault) from fault

    def _damaged(self, name: str, fault: Exception) -> GenotypeFileError:
        return self._fail(f"its array {name} is damaged ({_said(fault)}); {COPY_AGAIN}")

    def _find_files(self, folder: Path) -> list[Path]:
        """What belongs to the arrays that are read; regular files only, so that none can hang."""
        files = [folder / name for name in _ROOT_FILES if os.path.lexists(folder / name)]
        for name in _ARRAYS:
            for parent, _, names in os.walk(folder / name):
                files += [Path(parent) / file for file in names]
        for file in files:
            if not file.is_file():
                raise self._fail(f"{file.relative_to(folder)} is no regular file; {COPY_AGAIN}")
        return sorted(files)

    def _stamps(self) -> list[tuple[int, int, int]]:
        """What is another once a file was written to, replaced or removed."""
        try:
            return [stamp(os.stat(path)) for path in self._files or [Path(self.path)]]
        except OSError as fault:
            raise self._fail(CHANGED) from fault

    def _hash(self, report: Progress) -> str:
        if self._files is None:
            archive = CheckedFile(self.path)
            for _ in archive.text():
                report(_HASHED * archive.fraction_read)
            return archive.sha256
        checksum = hashlib.sha256()
        for number, path in enumerate(self._files, start=1):
            try:
                name = path.relative_to(self.path)
                checksum.update(f"{name.as_posix()}\0".encode())
                with open(path, "rb") as file:
                    if name.parts[0] in self._by_blosc and path.name not in _METADATA:
                        self._check_blosc(name, file)
                    while piece := file.read(_PIECE):
                        checksum.update(piece)
            except OSError as fault:
                raise self._fail(f"{path} cannot be read ({fault.strerror})") from fault
            report(_HASHED * number / len(self._files))
        return checksum.hexdigest()

    def _check_blosc(self, name: Path, file: BinaryIO) -> None:
        """Hold the size of a chunk against its header: the decoder of numcodecs does not.

        It would read on behind the end of its buffer, and give what happens to be there.
        """
        head = file.read(_BLOSC_HEAD.size)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if len(head) < _BLOSC_HEAD.size or _BLOSC_HEAD.unpack(head)[0] != size:
            raise self._fail(f"its chunk {name.as_posix()} is cut off or damaged; {COPY_AGAIN}")

    def _fail(self, message: str) -> GenotypeFileError:
        return GenotypeFileError(f"{self.path}: {message}")


class _DirectoryFiles:
    """The metadata of a store in a directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None


class _ZipFiles:
    """The metadata of a store in a zip."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def read(self, name: str) -> bytes | None:
        try:
            return self._archive.read(name)
        except KeyError:
            return None


def _is_store(files: _DirectoryFiles | _ZipFiles) -> bool:
    version_2 = files.read(".zgroup")
    attributes = files.read(".zattrs") if version_2 else files.read("zarr.json")
    if not version_2 and attributes is None:
        return False
    if any(files.read(f"{_CALLS}/{name}") for name in (".zarray", "zarr.json")):
        return True
    found = json.loads(attributes or b"{}")
    if isinstance(found, dict) and not version_2:
        found = found.get("attributes")
    return isinstance(found, dict) and _VERSION in found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without zarr's warnings, e.g. that strings are not in the specification of format 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_by_blosc(array: Any) -> bool:
    """Whether each of its files is a chunk that blosc has compressed."""
    compressors: Any = () if getattr(array, "shards", None) else array.compressors
    return bool(compressors) and type(compressors[-1]).__name__ in ("Blosc", "BloscCodec")


def _rows_at_once(calls: Any) -> int:
    """Variants to read together: whole chunks, and several if they are small."""
    chunk = (getattr(calls, "shards", None) or calls.chunks)[0]
    row_bytes = calls.shape[1] * calls.shape[2] * calls.dtype.itemsize
    wanted = min(_BLOCK_VARIANTS, _READ_BYTES // max(1, row_bytes))
    return int(chunk * max(1, wanted // chunk))


def _said(fault: Exception) -> str:
    """An exception of a library in one line."""
    words = " ".join(str(fault).split())
    return f"{type(fault).__name__}: {words[:120]}" if words else type(fault).__name__
