"""The header of a .pgen, and whether its records can be what it says.

A .pgen has no checksum, but the lengths of its records are in its header, and must add up to the
size of the file. So a file that was cut off, or whose header was damaged, is refused before a
native parser sees it; of a damaged record only some are.

    6c 1b, mode (u8), n_variants (u32), n_samples (u32), control (u8)
    mode 0x10 goes on with
        where each block of 2^16 variants begins (u64 each)
        for each block: record types, record lengths, maybe allele counts, maybe REF flags
    modes 0x02, 0x03 and 0x04 (records of one length) with the REF flags, if there are any

Specification: https://github.com/chrchang/plink-ng/tree/master/pgen_spec
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from ancestry_ddvi.loaders.containers import COPY_AGAIN, PLAIN, CheckedFile

MAGIC = b"\x6c\x1b"
FIXED, FIXED_DOSAGE, FIXED_PHASED_DOSAGE, VARIABLE = 0x02, 0x03, 0x04, 0x10
_UNREAD = {
    0x11: "with a footer",
    0x20: "with its index in a .pgen.pgi",
    0x21: "with its index in a .pgen.pgi",
}
_REF_FLAGS_FOR_EACH = 3
_BLOCK = 2**16
_START = struct.Struct("<3xIIB")

# Bits of a record type: how its genotypes are packed, and what follows them.
_PACKING, _SEVERAL_ALTS, _DOSAGE = 0x07, 0x08, 0x60
_UNPACKED, _AS_BEFORE, _UNUSED = 0, (2, 3), 5


@dataclass(frozen=True)
class PgenHeader:
    """What a sound header says.

    Attributes
    ----------
    n_variants, n_samples
        Of the file.
    has_dosages
        Whether a record holds dosages beside its hard calls.
    several_alts
        (n_variants,) bool: records with a call of an ALT allele after the first.
    n_alleles
        (n_variants,) int, REF counted; None if the file leaves that to the .pvar.
    """

    n_variants: int
    n_samples: int
    has_dosages: bool
    several_alts: np.ndarray
    n_alleles: np.ndarray | None


def is_pgen(start: bytes) -> bool:
    """Whether a file that begins so (three bytes) is a .pgen, and not a .bed of PLINK 1."""
    return len(start) >= 3 and start[:2] == MAGIC and start[2] >= FIXED


def read_pgen_header(file: CheckedFile) -> PgenHeader:
    """Read the header, and hold it against the size of the file.

    Raises
    ------
    GenotypeFileError
        If it is no .pgen, of a kind that is not read, cut off or damaged.
    """
    if file.compression != PLAIN:
        raise file.fail("is compressed; decompress it first")
    try:
        with open(file.path, "rb") as data:
            start = data.read(_START.size)
            if not is_pgen(start):
                raise file.fail(f"starts with {start[:3]!r}, which no .pgen does; {COPY_AGAIN}")
            mode = start[2]
            if mode in _UNREAD:
                raise file.fail(
                    f"is a .pgen {_UNREAD[mode]} (mode {mode:#04x}), which is not read; write a "
                    "plain one with `plink2 --pfile ... --make-pgen`"
                )
            if mode not in (FIXED, FIXED_DOSAGE, FIXED_PHASED_DOSAGE, VARIABLE):
                raise file.fail(f"has the unknown mode {mode:#04x}; {COPY_AGAIN}")
            if len(start) < _START.size:
                raise _cut_off(file, f"its header ends at byte {len(start)}")
            n_variants, n_samples, control = _START.unpack(start)
            if not n_variants or not n_samples:
                raise file.fail(
                    f"its header tells of {n_samples} samples and {n_variants} variants; "
                    f"{COPY_AGAIN}"
                )
            # No record is shorter than a byte, so this bounds what is read and reserved below.
            if n_variants > file.size:
                raise _cut_off(file, f"it has {file.size} bytes for {n_variants} variants")
            rest = data.read(_rest_bytes(file, mode, n_variants, control))
    except OSError as fault:
        raise file.fail(f"cannot be read ({fault.strerror}); check the disk") from fault
    if mode == VARIABLE:
        return _variable(file, n_variants, n_samples, control, rest)
    return _fixed(file, mode, n_variants, n_samples, len(rest))


def _rest_bytes(file: CheckedFile, mode: int, n_variants: int, control: int) -> int:
    """Bytes of the header after its first twelve."""
    flags = control >> 6 == _REF_FLAGS_FOR_EACH
    if mode != VARIABLE:
        return -(-n_variants // 8) * flags
    if control & 15 > 7:
        raise file.fail(
            f"packs the lengths of its records in a way (number {control & 15}) that is not read; "
            "write it anew with `plink2 --pfile ... --make-pgen`"
        )
    n_bytes = 0
    for n in _block_sizes(n_variants):
        n_bytes += 8 + _type_bytes(n, control) + n * _length_bytes(control)
        n_bytes += n * _count_bytes(control) + -(-n // 8) * flags
    return n_bytes


def _block_sizes(n_variants: int) -> list[int]:
    return [min(_BLOCK, n_variants - start) for start in range(0, n_variants, _BLOCK)]


def _type_bytes(n: int, control: int) -> int:
    return n if control & 4 else -(-n // 2)


def _length_bytes(control: int) -> int:
    return 1 + (control & 3)


def _count_bytes(control: int) -> int:
    return control >> 4 & 3


def _fixed(
    file: CheckedFile, mode: int, n_variants: int, n_samples: int, n_flag_bytes: int
) -> PgenHeader:
    each = -(-n_samples // 4) + 2 * n_samples * (mode - FIXED)
    expected = _START.size + -(-n_variants // 8) * bool(n_flag_bytes) + n_variants * each
    if file.size != expected:
        raise _cut_off(
            file,
            f"it has {file.size} bytes, but {n_variants} variants of {n_samples} samples make "
            f"{expected}",
        )
    none = np.zeros(n_variants, dtype=bool)
    return PgenHeader(n_variants, n_samples, mode != FIXED, none, None)


def _variable(
    file: CheckedFile, n_variants: int, n_samples: int, control: int, rest: bytes
) -> PgenHeader:
    sizes = _block_sizes(n_variants)
    if len(rest) < _rest_bytes(file, VARIABLE, n_variants, control):
        raise _cut_off(file, f"its header ends at byte {_START.size + len(rest)}")
    begins = [int(b) for b in np.frombuffer(rest, "<u8", len(sizes))]
    types, counts = [], []
    expected, at = _START.size + len(rest), 8 * len(sizes)
    for number, (n, begin) in enumerate(zip(sizes, begins, strict=True)):
        if begin != expected:
            raise _cut_off(
                file,
                f"its records of variants from {number * _BLOCK + 1} on begin at byte {begin}, but "
                f"what is before them ends at {expected}",
            )
        types.append(_types(rest[at : at + _type_bytes(n, control)], n, control))
        at += _type_bytes(n, control)
        lengths = _integers(rest, at, n, _length_bytes(control))
        at += n * _length_bytes(control)
        if n_count_bytes := _count_bytes(control):
            counts.append(_integers(rest, at, n, n_count_bytes))
            at += n * n_count_bytes
        at += -(-n // 8) * (control >> 6 == _REF_FLAGS_FOR_EACH)
        if (bad := _bad_record(types[-1], lengths, n_samples)) is not None:
            raise file.fail(
                f"damaged: the record of variant {number * _BLOCK + bad + 1} cannot be of type "
                f"{types[-1][bad]:#04x} and have {lengths[bad]} bytes; {COPY_AGAIN}"
            )
        expected += int(lengths.sum())
    if file.size != expected:
        raise _cut_off(file, f"it has {file.size} bytes, but its records end at {expected}")
    all_types = np.concatenate(types)
    return PgenHeader(
        n_variants,
        n_samples,
        bool((all_types & _DOSAGE).any()),
        (all_types & _SEVERAL_ALTS) > 0,
        np.concatenate(counts) if counts else None,
    )


def _types(packed: bytes, n: int, control: int) -> np.ndarray:
    """(n,) uint8: a byte each, or half a byte each, the lower one first."""
    data = np.frombuffer(packed, np.uint8)
    return data if control & 4 else np.stack([data & 15, data >> 4], axis=1).reshape(-1)[:n]


def _integers(data: bytes, at: int, n: int, n_bytes: int) -> np.ndarray:
    """(n,) int64 of little-endian integers of 1 to 4 bytes."""
    each = np.frombuffer(data, np.uint8, n * n_bytes, at).reshape(n, n_bytes)
    return each @ (np.int64(1) << 8 * np.arange(n_bytes))


def _bad_record(types: np.ndarray, lengths: np.ndarray, n_samples: int) -> int | None:
    """The first record of a block that cannot be, or None."""
    packing = types & _PACKING
    bad = (packing == _UNUSED) | (lengths == 0)
    bad |= (types == _UNPACKED) & (lengths != -(-n_samples // 4))
    bad[0] |= packing[0] in _AS_BEFORE
    return int(np.argmax(bad)) if bad.any() else None


def _cut_off(file: CheckedFile, what: str) -> Exception:
    return file.fail(f"cut off or damaged: {what}; {COPY_AGAIN}")
