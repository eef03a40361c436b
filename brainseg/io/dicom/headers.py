"""A DICOM file's header, without its pixels: read by pydicom, and every value taken from it with care.

Nothing here, nor in any message, repeats what a header holds of the patient.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom import config, dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from brainseg.io.files import NamedBytes
from brainseg.io.names import words as vocabulary
from brainseg.io.quiet import quiet
from brainseg.io.readers.reader import MAX_BYTES, UnreadableError

LOGGERS = ("pydicom", "highdicom", "pylibjpeg", "openjpeg")

DAMAGED = "is damaged or cut short and cannot be read as DICOM: copy or export it again."

_HEAD = 2**18
_PIXELS = {b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10", b"\xe0\x7f\x08\x00", b"\xe0\x7f\x09\x00"}
_CHUNK = 2**20

# What is asked of each file before the user has chosen; the whole header is read with the pixels.
_TAGS = sorted(
    vocabulary(
        "SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyDate StudyTime Modality Manufacturer "
        "StudyDescription SeriesDescription PatientID ProtocolName ContrastBolusAgent "
        "ContrastBolusAgentSequence ScanningSequence SequenceName PulseSequenceName SliceThickness "
        "RepetitionTime EchoTime EffectiveEchoTime InversionTime EchoNumbers SpacingBetweenSlices "
        "TriggerTime DiffusionBValue AcquisitionContrast EchoPulseSequence EchoPlanarPulseSequence "
        "StudyInstanceUID SeriesInstanceUID SeriesNumber AcquisitionNumber ImagePositionPatient "
        "ImageOrientationPatient FrameOfReferenceUID TemporalPositionIdentifier SamplesPerPixel "
        "PhotometricInterpretation NumberOfFrames Rows Columns PixelSpacing BitsAllocated BitsStored "
        "PixelRepresentation RescaleIntercept RescaleSlope ModalityLUTSequence SegmentSequence "
        "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
    )
)


@contextmanager
def reading() -> Iterator[None]:
    """Within, pydicom and the decoders log and warn of nothing; errors leave as `UnreadableError`."""
    try:
        with quiet(*LOGGERS):
            yield
    except UnreadableError:
        raise
    except MemoryError:
        raise UnreadableError("needs more memory than there is: choose a smaller series.") from None
    # Parsers and decoders of hostile bytes raise almost anything, and put values into it.
    except Exception:
        raise UnreadableError(DAMAGED) from None


def read_header(file: NamedBytes) -> FileDataset:
    """What `_TAGS` names of a file's header.

    Raises:
        UnreadableError: not DICOM, or damaged.
    """
    with reading():
        head = file.head(_HEAD)
        if len(head) == _HEAD and not _is_deflated(head):
            try:
                header, ended = _parsed(head, _TAGS)
            # Most headers end early; what was cut here is read whole below.
            except Exception:
                ended = False
            if ended:
                return _checked(header)
        data = file.data
        check_deflated(data)
        header, ended = _parsed(data, _TAGS)
        if not ended and "Rows" in header and not _is_deflated(data):
            raise UnreadableError("is cut short before its pixels: copy or export it again.")
        return _checked(header)


def read_whole(data: bytes) -> FileDataset:
    """Header and pixels; to be called within `reading`."""
    check_deflated(data)
    dataset = dcmread(io.BytesIO(data), force=True)
    # It would hold the file's bytes as long as the header lives.
    dataset.buffer = None
    return dataset


def without_pixels(dataset: FileDataset) -> FileDataset:
    """The same header for the writers of results: no pixels, nothing private to a maker, every value read.

    To be called within `reading`.
    """
    pixels = {Tag(keyword) for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")}
    for tag in list(dataset.keys()):
        if tag in pixels or tag.is_private or tag == Tag("IconImageSequence"):
            del dataset[tag]
    _settle(dataset)
    return dataset


def _settle(dataset: Dataset) -> None:
    """Convert every value now, while warnings are held back, and drop those that cannot be."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:
            del dataset[tag]
            continue
        if element.VR == "SQ":
            for item in element.value:
                _settle(item)


def check_deflated(data: bytes) -> None:
    """Refuse a deflated file that unpacks to more than `MAX_BYTES`, which pydicom would not ask."""
    stream = io.BytesIO(data)
    if not _is_deflated(data):
        return
    read_preamble(stream, force=True)
    _read_file_meta_info(stream)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    packed, total = stream.read(), 0
    while packed and not unpacker.eof:
        total += len(unpacker.decompress(packed, _CHUNK))
        packed = unpacker.unconsumed_tail
        if total > MAX_BYTES:
            raise UnreadableError(
                f"unpacks to more than {MAX_BYTES // 2**30} GB: give slices as the scanner made them."
            )


def text(dataset: Dataset, keyword: str) -> str:
    """A value as one printable line, or ``""``."""
    value = _value(dataset, keyword)
    if value is None:
        return ""
    try:
        parts = [str(part) for part in value] if _is_many(value) else [str(value)]
    except Exception:
        return ""
    # Values may hold anything; they become cells of a table.
    line = " ".join("\\".join(parts).split())
    return "".join(character for character in line if character.isprintable())


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The parts of a value, in capitals."""
    return tuple(part.strip().upper() for part in text(dataset, keyword).split("\\") if part.strip())


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers, or None."""
    value = _value(dataset, keyword)
    if value is None:
        return None
    try:
        out = tuple(float(part) for part in (value if _is_many(value) else [value]))
    except Exception:
        return None
    return out if len(out) == count and all(map(math.isfinite, out)) else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """A finite number, the first of several, or None."""
    value = _value(dataset, keyword)
    try:
        out = float(value[0] if _is_many(value) else value)
    except Exception:
        return None
    return out if math.isfinite(out) else None


def whole(dataset: Dataset, keyword: str) -> int | None:
    """A whole number, or None."""
    value = number(dataset, keyword)
    return int(value) if value is not None and value == int(value) else None


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence; none where there is none."""
    value = _value(dataset, keyword)
    return [one for one in value if isinstance(one, Dataset)] if _is_many(value) else []


def kind_of(dataset: Dataset) -> UID:
    """The SOP class: which kind of object of the standard's a file is; empty where it does not say."""
    meta = getattr(dataset, "file_meta", None)
    inside = text(dataset, "SOPClassUID")
    said = inside or (text(meta, "MediaStorageSOPClassUID") if meta is not None else "")
    # pydicom would warn of a damaged one, and repeat it.
    return UID(said, config.IGNORE)


def syntax_of(dataset: Dataset) -> UID | None:
    """The transfer syntax that the file names."""
    meta = getattr(dataset, "file_meta", None)
    try:
        return UID(meta.TransferSyntaxUID, config.IGNORE) if meta is not None else None
    except Exception:
        return None


def _parsed(data: bytes, tags: Sequence[str]) -> tuple[FileDataset, bool]:
    """The header, and whether pixels follow it."""
    stream = io.BytesIO(data)
    header = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(tags))
    header.buffer = None
    _settle(header)
    return header, stream.read(4) in _PIXELS


def _checked(header: FileDataset) -> FileDataset:
    if not (kind_of(header) or text(header, "Modality")):
        raise UnreadableError("is not a DICOM image, or is damaged: copy or export it again.")
    return header


def _is_deflated(data: bytes) -> bool:
    stream = io.BytesIO(data)
    read_preamble(stream, force=True)
    return bool(_read_file_meta_info(stream).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _value(dataset: Dataset, keyword: str) -> Any:
    # A value is converted when it is asked for, and may then turn out to be damaged.
    try:
        return dataset.get(keyword)
    except Exception:
        return None


def _is_many(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes))
