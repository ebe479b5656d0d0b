"""From paths to a genotype matrix: the reader of each file, samples matched, filters, assembly.

    open_source(path)          the reader that a file's content asks for
    read_genotypes(paths)      one matrix of all of them

A new format is one line in `open_source` and one module beside this one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ancestry_ddvi.errors import GenotypeFileError, InputError, NotEnoughDataError
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix
from ancestry_ddvi.loaders.assemble import Assembler, known_dosage
from ancestry_ddvi.loaders.containers import BYTE_ORDER_MARK, COPY_AGAIN, PLAIN, CheckedFile
from ancestry_ddvi.loaders.options import ReadOptions
from ancestry_ddvi.loaders.sites import (
    EXCLUDED,
    IN_EXCLUDED_REGION,
    NOT_AUTOSOMAL,
    NOT_OF_MODEL,
)
from ancestry_ddvi.loaders.source import NO_GT, Progress, Selection, Source

STANDARD_INPUT = "-"

NONE_CALLED = (
    "no genotype is called, in any sample at any variant; a GT of ./. hides dosages beside it: "
    "drop GT (`bcftools annotate -x FORMAT/GT`) to have DS or GP read"
)

_N_NAMED = 3

# First bytes (of the text, if the file is compressed), what they are, and what to do. A longer
# signature stands before a shorter one that it begins with.
_OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x6c\x1b", "a PLINK file", "let its name end in .bed or .pgen, beside its two tables"),
    (b"BAM\x01", "a BAM of sequence reads", "call its variants first"),
    (b"CRAM", "a CRAM of sequence reads", "call its variants first"),
    (b"TBI\x01", "a tabix index", "give the .vcf.gz beside it"),
    (b"CSI\x01", "a CSI index", "give the .vcf.gz beside it"),
    (b"\x89HDF", "an HDF5 file", "export it as VCF"),
    (b"\x93NUMPY", "a NumPy array", "export the genotypes as VCF"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"\x80\x02", "a Python pickle", "export the genotypes as VCF"),
    (b"\x80\x03", "a Python pickle", "export the genotypes as VCF"),
    (b"\x80\x04", "a Python pickle", "export the genotypes as VCF"),
    (b"\x80\x05", "a Python pickle", "export the genotypes as VCF"),
    (b"BZh", "bzip2-compressed", "compress it with bgzip instead"),
    (b"\xfd7zXZ", "xz-compressed", "compress it with bgzip instead"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "compress it with bgzip instead"),
    (b"\x1f\x8b", "compressed twice", "decompress it once"),
    (b"\xef\xbb\xbf##file", "a VCF behind a byte-order mark", "save it as UTF-8 without BOM"),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
    (b"#CHROM", "a VCF without its first line", "put `##fileformat=VCFv4.2` before it"),
    (b"##", "a VCF without its first line", "put `##fileformat=VCFv4.2` before it"),
    (b"<!", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file with `git lfs pull`"),
)


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open a genotype file; its content decides which reader takes it.

    Parameters
    ----------
    path
        A VCF (plain text, gzip or bgzip), a BCF, a VCF Zarr, our own .npz, or a PLINK 1 or 2 set:
        any of its three files, or the name that they share.

    Raises
    ------
    GenotypeFileError
        If the file is missing, damaged at its start, or of another format.
    """
    # Imported on demand, each format with the libraries that it needs.
    from ancestry_ddvi.loaders.guard import GuardedSource
    from ancestry_ddvi.loaders.plink1 import Plink1Source, plink1_prefix
    from ancestry_ddvi.loaders.plink2 import Plink2Source, plink2_prefix
    from ancestry_ddvi.loaders.vcf_zarr import VcfZarrSource, is_vcf_zarr

    one, two = plink1_prefix(path), plink2_prefix(path)
    if one is not None and two is not None:
        raise GenotypeFileError(
            f"{path}: stands for a .bed and a .pgen; give one of the two with its suffix"
        )
    if one is not None:
        return Plink1Source(path)
    if two is not None:
        return GuardedSource(Plink2Source, str(path))
    if is_vcf_zarr(path):
        return GuardedSource(VcfZarrSource, str(path))
    file = CheckedFile(path)
    start = next(file.text(), b"")
    if start.startswith(b"##fileformat=VCF"):
        from ancestry_ddvi.loaders.vcf import VcfSource

        return VcfSource(path)
    if start.startswith(b"BCF\x02"):
        from ancestry_ddvi.loaders.htslib import HtslibSource

        return HtslibSource.guarded(path)
    if file.compression == PLAIN and start.startswith(b"PK\x03\x04"):
        from ancestry_ddvi.loaders.cache import CacheSource, is_cache

        if is_cache(path):
            return CacheSource(path)
    raise GenotypeFileError(f"{path}: no genotype file {_what_it_is(start)}")


def _what_it_is(start: bytes) -> str:
    """A guess at the format from its first bytes, with the remedy."""
    if not start:
        return f"(it is compressed nothing); {COPY_AGAIN}"
    for signature, name, remedy in _OTHER_FORMATS:
        if start.startswith(signature):
            return f"(it looks like {name}); {remedy}"
    found = start[:16].split(b"\n")[0]
    return (
        f"(it starts with {found!r}, not with '##fileformat=VCF'); give a VCF, a BCF, a PLINK 1 or "
        "2 set or a VCF Zarr"
    )


def read_genotypes(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: ReadOptions | None = None,
    progress: Progress | None = None,
    *,
    counted: Callable[[int], np.ndarray] | None = None,
) -> GenotypeMatrix:
    """Read genotypes from a file, or from several files of the same samples, one after the other.

    Memory stays near that of the matrix: variants come a block at a time, and those that a filter
    drops are never held.

    Parameters
    ----------
    paths
        What `open_source` takes, or `-` for standard input. Samples stand in the order of the
        first file.
    options
        What to read; every sample and every biallelic SNP on a human autosome by default.
    progress
        Called now and then with the fraction done, never falling, at last 1.
    counted
        Told the number of samples, says by a mask (n_samples,) which of them the filters `maf`
        and `hwe` look at: those that may be learnt from. All by default.

    Returns
    -------
    GenotypeMatrix
        `dosage` of shape (n_samples, n_variants) in Fortran order, and what was left out and why.

    Raises
    ------
    GenotypeFileError
        If a file is missing, damaged or of another format, the files have not the same samples, or
        no usable genotype is left.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise GenotypeFileError("no genotype file was given; name one")
    with spooled([str(path) for path in given]) as names:
        matrix = read_sources([open_source(name) for name in names], options, progress, counted)
    for name, path in zip(names, given, strict=True):
        if str(path) == STANDARD_INPUT:  # the copy is gone: nobody should look for it
            said = matrix.source["path"].replace(name, STANDARD_INPUT)
            matrix = replace(matrix, source={**matrix.source, "path": said})
    return matrix


def read_sources(
    sources: Sequence[Source],
    options: ReadOptions | None = None,
    progress: Progress | None = None,
    counted: Callable[[int], np.ndarray] | None = None,
) -> GenotypeMatrix:
    """As `read_genotypes`, of sources that are open."""
    options = options or ReadOptions()
    report = rising(progress or (lambda fraction: None))
    reading = match_samples(sources, options)
    n_passes = 1 + (options.mind < 1)
    if options.mind < 1:
        reading.drop_badly_called(options, share(report, 0, n_passes))
    matrix = reading.read(options, counted, share(report, n_passes - 1, n_passes))
    report(1.0)
    return matrix


def rising(report: Progress) -> Progress:
    """Progress that never falls, whatever a reader does that starts anew."""
    most = 0.0

    def raised(fraction: float) -> None:
        nonlocal most
        most = max(most, fraction)
        report(most)

    return raised


def share(report: Progress, at: int, n: int) -> Progress:
    """Progress of the part `at` of `n` equal ones."""
    return lambda fraction: report((at + fraction) / n)


# Standard input.


_START_BYTES = 2**16
_STARTS = (b"#", BYTE_ORDER_MARK, b"\x1f\x8b", b"BCF", b"PK")
"""How whatever can be read from a pipe begins: VCF, what is compressed, BCF, our own .npz."""


@contextmanager
def spooled(paths: list[str]) -> Iterator[list[str]]:
    """Put a copy of standard input in the place of `-`, which can be looked at twice."""
    if STANDARD_INPUT not in paths:
        yield paths
        return
    if paths.count(STANDARD_INPUT) > 1:
        raise GenotypeFileError("standard input (-) was given twice; give it once")
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise GenotypeFileError("standard input (-): nothing comes; pipe a file into the command")
    with tempfile.TemporaryDirectory(prefix="ancestry-ddvi-") as folder:
        copy = os.path.join(folder, "stdin")
        try:
            with open(copy, "wb") as file:
                start = sys.stdin.buffer.read(_START_BYTES)
                file.write(start)
                # Of anything else the start is enough to refuse it: a wrong pipe may never end.
                if start.lstrip().startswith(_STARTS):
                    shutil.copyfileobj(sys.stdin.buffer, file, 2**20)
        except OSError as fault:
            raise GenotypeFileError(
                f"standard input (-) cannot be kept in {folder} ({fault.strerror}); free space "
                "there, set TMPDIR, or save the data to a file first"
            ) from fault
        try:
            yield [copy if path == STANDARD_INPUT else path for path in paths]
        except InputError as fault:
            raise type(fault)(str(fault).replace(copy, "standard input")) from fault


# Several files, one set of samples.


@dataclass
class Reading:
    """Sources of the same samples, and which of these to take, in what order.

    Attributes
    ----------
    sources
        In the order given.
    orders
        Of each source: (n_samples,) indices into its samples.
    notes
        What the user should know of.
    """

    sources: list[Source]
    orders: list[np.ndarray]
    notes: list[str]

    @property
    def sample_id(self) -> np.ndarray:
        """(n_samples,) of those to take."""
        taken: np.ndarray = np.array(self.sources[0].sample_id)[self.orders[0]]
        return taken

    @property
    def family_id(self) -> np.ndarray | None:
        """(n_samples,) of those to take, where the first source has such."""
        family_id = self.sources[0].family_id
        return None if family_id is None else np.array(family_id)[self.orders[0]]

    def part(self, rows: slice) -> Reading:
        """Of some of the samples, with notes of its own."""
        return Reading(self.sources, [order[rows] for order in self.orders], list(self.notes))

    @property
    def name(self) -> str:
        """The files in a few words."""
        shown = [source.path for source in self.sources[:_N_NAMED]]
        more = len(self.sources) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "")

    def selections(self, options: ReadOptions) -> Iterator[tuple[Source, Selection]]:
        """Each source with what to take of it; all count into the same counters."""
        sites, calls = options.site_rule(), options.call_rule()
        for source, order in zip(self.sources, self.orders, strict=True):
            in_order = np.array_equal(order, np.arange(len(source.sample_id)))
            yield source, Selection(sites, calls, None if in_order else order)

    def read(
        self,
        options: ReadOptions,
        counted: Callable[[int], np.ndarray] | None,
        report: Progress,
    ) -> GenotypeMatrix:
        """One matrix of all sources."""
        n_samples = len(self.orders[0])
        left_out: Counter[str] = Counter()
        assembler = Assembler(
            n_samples, options, None if counted is None else counted(n_samples), left_out
        )
        n_taken = 0
        for number, (source, selection) in enumerate(self.selections(options)):
            for block in source.blocks(selection, share(report, number, len(self.sources))):
                n_taken += len(block.rows)
                assembler.add(block)
        dosage, variants = assembler.finish()
        funnel = selection.sites.left_out + left_out
        # Whoever matches the variants of a model says best why there are none.
        if not len(variants) and (n_taken or not funnel[NOT_OF_MODEL]):
            n_records = n_taken + selection.sites.left_out.total()
            raise self._nothing_left(funnel, n_records, n_taken)
        self._note_lists(options, funnel, n_taken)
        if dosage.size and dosage.max() < 0:
            self.notes.append(NONE_CALLED)
        return GenotypeMatrix(
            dosage=dosage,
            sample_id=self.sample_id,
            variants=variants,
            source=self._provenance(),
            left_out={reason: n for reason, n in funnel.items() if n},
            family_id=self.family_id,
            by_rule=dict(selection.calls.by_rule),
            notes=tuple(self.notes),
            seen=replace(selection.sites.seen, within=selection.sites.within),
        )

    def _note_lists(self, options: ReadOptions, funnel: Counter[str], n_taken: int) -> None:
        """Say where a list or a region did not do what it was given for."""
        if options.extract is not None and n_taken < len(options.extract):
            self.notes.append(
                f"--extract {options.extract.path} names {len(options.extract):,} variants, of "
                f"which {n_taken:,} are read"
            )
        if options.exclude is not None and not funnel[EXCLUDED]:
            self.notes.append(
                f"--exclude {options.exclude.path} names {len(options.exclude):,} variants, of "
                "which none is left out; look how the file names them"
            )
        if options.exclude_regions is not None and not funnel[IN_EXCLUDED_REGION]:
            self.notes.append("no variant lies in --exclude-region; look how contigs are named")

    def _provenance(self) -> dict[str, str]:
        digests = [source.sha256() for source in self.sources]
        joined = hashlib.sha256("".join(digests).encode()).hexdigest()
        formats = dict.fromkeys(source.format for source in self.sources)
        return {
            "path": self.name,
            "format": ", ".join(formats),
            "sha256": digests[0] if len(digests) == 1 else joined,
        }

    def _nothing_left(self, funnel: Counter[str], n_records: int, n_taken: int) -> InputError:
        if not n_taken and funnel[NO_GT] == n_records:
            return GenotypeFileError(
                f"{self.name}: none of its {n_records} records has GT in FORMAT; export the VCF "
                "with called genotypes"
            )
        reasons = ", ".join(f"{n} {reason}" for reason, n in funnel.most_common())
        if n_taken:
            return NotEnoughDataError(
                f"{self.name}: 0 of {n_records} variants are left after the filters ({reasons}); "
                "loosen --maf, --geno or --hwe"
            )
        remedy = "give a file with such SNPs"
        if funnel[NOT_AUTOSOMAL]:
            remedy += ", or say with --chr-set which chromosomes are autosomes"
        return GenotypeFileError(
            f"{self.name}: no biallelic autosomal SNP among its {n_records} records ({reasons}); "
            f"{remedy}"
        )

    def count_called(self, options: ReadOptions, report: Progress) -> np.ndarray:
        """(n_variants,) samples called at each variant, by a reading that holds nothing."""
        counts = [np.zeros(0, dtype=np.int64)]
        for number, (source, selection) in enumerate(self.selections(options)):
            for block in source.blocks(selection, share(report, number, len(self.sources))):
                called = known_dosage(block, options) != MISSING
                counts.append(np.count_nonzero(called, axis=1))
        return np.concatenate(counts)

    def drop_badly_called(self, options: ReadOptions, report: Progress) -> None:
        """Leave out samples with too many missing genotypes, by a reading that holds nothing."""
        n_variants = 0
        n_missing = np.zeros(len(self.orders[0]), dtype=np.int64)
        for number, (source, selection) in enumerate(self.selections(options)):
            for block in source.blocks(selection, share(report, number, len(self.sources))):
                n_variants += len(block.rows)
                n_missing += np.count_nonzero(block.dosage == MISSING, axis=0)
        bad = n_missing > options.mind * n_variants
        if bad.any():
            self.notes.append(
                f"--mind {options.mind:g} leaves out {some(self.sample_id[bad], 'sample')}"
            )
        if bad.all():
            raise NotEnoughDataError(
                f"{self.name}: --mind {options.mind:g} leaves none of {len(bad)} samples; raise it"
            )
        self.orders = [order[~bad] for order in self.orders]


def match_samples(given: Sequence[Source], options: ReadOptions) -> Reading:
    """Find the samples wanted in every source."""
    sources: list[Source] = []
    for source in given:
        # A shell's x.* names all three files of a PLINK set.
        if all(_real(source) != _real(other) for other in sources):
            sources.append(source)
    first = sources[0]
    notes: list[str] = []
    order = np.flatnonzero(_wanted(first, options, notes))
    if not len(order):
        raise NotEnoughDataError(
            f"{first.path}: --keep and --remove leave none of its {len(first.sample_id)} samples; "
            "check that they name ids of this file"
        )
    reading = Reading(sources, [order], notes)
    wanted = [first.sample_id[at] for at in order]
    for source in sources[1:]:
        _same_samples(first, source)
        at_of = {sample: at for at, sample in enumerate(source.sample_id)}
        reading.orders.append(np.array([at_of[sample] for sample in wanted]))
        if source.sample_id != first.sample_id:
            notes.append(
                f"{source.path} has its samples in another order; put in that of {first.path}"
            )
    return reading


def _real(source: Source) -> tuple[str, str]:
    path = Path(os.path.realpath(source.path))
    return source.format, str(path.with_suffix("") if "PLINK" in source.format else path)


def _wanted(source: Source, options: ReadOptions, notes: list[str]) -> np.ndarray:
    """(n_samples,) bool: samples that --keep and --remove leave."""
    mask = np.ones(len(source.sample_id), dtype=bool)
    for name, named, keep in (("keep", options.keep, True), ("remove", options.remove, False)):
        if named is None:
            continue
        chosen = named.select(source.sample_id, source.family_id)
        mask &= chosen if keep else ~chosen
        if absent := named.absent(source.sample_id, source.family_id):
            notes.append(f"not in {source.path}: {some(absent, 'sample')} of --{name} {named.path}")
    return mask


def _same_samples(first: Source, other: Source) -> None:
    ours, theirs = set(first.sample_id), set(other.sample_id)
    if ours != theirs:
        only = sorted(ours ^ theirs)[0]
        has, lacks = (first, other) if only in ours else (other, first)
        raise GenotypeFileError(
            f"{other.path}: its {len(theirs)} samples are not the {len(ours)} of {first.path}: "
            f"{only!r} is in {has.path} and not in {lacks.path}; give files of the same samples, "
            "such as one per chromosome, or merge them with `bcftools merge`"
        )
    if first.family_id and other.family_id:
        family = dict(zip(first.sample_id, first.family_id, strict=True))
        for sample, other_family in zip(other.sample_id, other.family_id, strict=True):
            if family[sample] != other_family:
                raise GenotypeFileError(
                    f"{other.path}: sample {sample!r} is of family {other_family!r}, and in "
                    f"{first.path} of {family[sample]!r}; give files of the same samples"
                )


def some(ids: Sequence[Any] | np.ndarray, noun: str, n: int = 5) -> str:
    """How many, and the first few of them: `7 samples (A, B, C, D, E, ...)`."""
    shown = ", ".join(str(i) for i in list(ids)[:n]) + (", ..." if len(ids) > n else "")
    return f"{len(ids):,} {noun}{'s' * (len(ids) != 1)} ({shown})"
