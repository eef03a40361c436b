"""NIfTI-1 and NIfTI-2, single files and .hdr/.img pairs, gzipped or not: headers by nibabel, from memory."""

from __future__ import annotations

import zlib
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import shape_zoom_affine

from brainseg.grid import furthest_mm
from brainseg.io.archive import gunzip
from brainseg.io.files import NamedBytes
from brainseg.io.layout import Layout, check_extent, finite, grid_of
from brainseg.io.readers import UnreadableError
from brainseg.io.sniff import OWN_MARK, ungzipped
from brainseg.types import Affine

_SIZES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MAGIC = {b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0"}
_PAIRED = (b"ni1", b"ni2")
_TO_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_DAMAGED = "is damaged or cut short: copy or export it again."
# Of the smallest spacing: sform and qform nearer to each other than this differ by rounding.
_ROUNDING = 0.05


def is_paired(head: bytes) -> bool:
    """Whether the voxels lie in an .img file beside this header."""
    block = ungzipped(head)
    return block[344:347] in _PAIRED or block[4:7] in _PAIRED


def is_own_result(head: bytes) -> bool:
    """Whether brainseg wrote a file, by the description in its header."""
    try:
        return bytes(_header(ungzipped(head))["descrip"]).startswith(OWN_MARK.encode())
    except UnreadableError:
        return False


def layout(head: bytes) -> Layout:
    """What a header says.

    Millimetres whatever the file's units. Of sform and qform, the one that nibabel takes: the sform where
    its code is not 0, else the qform; where that one makes no sense, the other. Where both codes are 0 only
    spacings are known.

    Args:
        head: the file's first bytes, at least the header; packed as they are.

    Raises:
        UnreadableError: not NIfTI, damaged, not 3-D or 4-D, beyond the limits, voxels that are no real
            numbers, or no place in the world.
    """
    header = _header(ungzipped(head))
    dim = [int(n) for n in header["dim"]]
    sides, more = dim[1 : 1 + min(dim[0], 7)], dim[5 : 1 + dim[0]]
    if dim[0] < 3 or min(sides) < 1:
        raise UnreadableError(f"is {_extent(sides)}, not a volume: give a 3-D image of a head.")
    if any(n > 1 for n in more):
        raise UnreadableError(
            f"is {_extent(sides)}, a field of vectors or the like: give 3-D images, one a sequence."
        )
    dtype = _dtype(header)
    columns, rows, slices = sides[:3]
    volumes = sides[3] if dim[0] > 3 else 1
    check_extent((columns, rows, slices), volumes, dtype)
    affine, sides_known, remarks = _affine(header, (columns, rows, slices))
    return Layout(
        grid_of(affine, columns, rows, slices),
        volumes,
        dtype,
        "nifti",
        header,
        sides_known=sides_known,
        remarks=remarks,
    )


def pixels(file: NamedBytes, about: Layout, image: NamedBytes | None = None) -> npt.NDArray[Any]:
    """All voxels as stored, (volumes, S, H, W), of a file or of a header's `image`.

    No more is unpacked than the header declares, into memory that is allocated once.

    Raises:
        UnreadableError: damaged or cut short.
    """
    header = about.header
    start = 0 if image is not None else int(header.sizeof_hdr) + 4
    offset = float(header["vox_offset"])
    if not 0 <= offset < 2**24:
        raise UnreadableError(_DAMAGED)
    start = max(start, int(offset))
    shape = (about.volumes, *about.grid.shape)
    size = about.voxels * about.volumes * about.dtype.itemsize
    data: bytes | bytearray = (image or file).data
    if data[:2] == b"\x1f\x8b":
        try:
            data = gunzip(data, start + size)
        except (OSError, EOFError, zlib.error):
            raise UnreadableError(_DAMAGED) from None
    if len(data) < start + size:
        raise UnreadableError(
            f"is cut short: it holds {max(0, len(data) - start):,} of {size:,} bytes of voxels: copy or "
            "export it again."
        )
    return np.ndarray(shape, about.dtype, data, start)


def scaled(stored: npt.NDArray[Any], about: Layout) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Voxels in native byte order with slope and intercept applied, and remarks.

    8- and 16-bit integers become float32 where they are scaled, larger ones float64.

    Raises:
        UnreadableError: a slope with an intercept that is no number.
    """
    try:
        slope, intercept = about.header.get_slope_inter()
    except HeaderDataError:
        raise UnreadableError("has an intercept that is no number: export it again.") from None
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if native.dtype.itemsize > 8:
        native = native.astype(np.float64)
    if slope is None or (slope, intercept) == (1.0, 0.0):
        return finite(native)
    small = native.dtype.itemsize <= 2 or native.dtype == np.float32
    values: npt.NDArray[Any] = native.astype(np.float32 if small else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(values, slope, out=values)
        np.add(values, intercept, out=values)
    return finite(values)


def _header(block: bytes) -> Any:
    size = {int.from_bytes(block[:4], order): order for order in ("little", "big")}
    cls, order = next(((_SIZES[n], o) for n, o in size.items() if n in _SIZES), (None, ""))
    magic = block[344:348] if cls is nib.Nifti1Header else block[4:8]
    if cls is None or len(block) < cls.sizeof_hdr:
        raise UnreadableError("is not NIfTI, or its header is damaged: export it again.")
    if magic not in _MAGIC:
        raise UnreadableError(
            "is Analyze 7.5, which does not say which side is left: convert it to NIfTI from its source."
        )
    return cls(block[: cls.sizeof_hdr], endianness="<" if order == "little" else ">", check=False)


def _dtype(header: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (KeyError, HeaderDataError):
        raise UnreadableError("holds voxels of an unknown type: export it again.") from None
    if dtype.names:
        raise UnreadableError("holds colours (RGB), not one number a voxel: give the MRI itself, in grey.")
    if dtype.kind not in "iuf" or not dtype.itemsize:
        raise UnreadableError(f"holds {dtype.name} values, not real numbers: export magnitude images.")
    return dtype


def _affine(header: Any, sides: tuple[int, int, int]) -> tuple[Affine, bool, tuple[str, ...]]:
    """From (column, row, slice, 1) to RAS+ in mm, whether it tells the sides, and remarks."""
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        unit = "unknown"
    found: dict[str, Affine] = {}
    coded = [name for name in ("sform", "qform") if int(header[f"{name}_code"]) > 0]
    failure: UnreadableError | None = None
    for name in coded:
        try:
            with np.errstate(all="ignore"):
                affine = _in_mm(np.asarray(getattr(header, f"get_{name}")(), np.float64), unit)
            grid_of(affine, *sides)
            found[name] = affine
        except UnreadableError as error:
            failure = failure or error
        except (HeaderDataError, ValueError, np.linalg.LinAlgError):
            failure = failure or UnreadableError(
                f"has a {name} that makes no sense: export it again with a valid orientation."
            )
    remarks = [f"{{name}} is measured in {unit}s: it was taken to mm."] if unit in ("meter", "micron") else []
    if failure and not found:
        raise failure
    if not coded:
        spacings = [abs(float(mm)) for mm in header["pixdim"][1:4]]
        remarks.append(
            "{name} does not say how it lies in the patient (sform and qform are not set): spacings are "
            "known, sides are not."
        )
        return _in_mm(shape_zoom_affine(sides, spacings, header.default_x_flip), unit), False, tuple(remarks)
    if failure:
        bad = next(name for name in coded if name not in found)
        remarks.append(f"The {bad} of {{name}} makes no sense: the {next(iter(found))} was used.")
    elif len(found) == 2:
        remarks += _disagreement(found, sides)
    return next(iter(found.values())), True, tuple(remarks)


def _in_mm(affine: Affine, unit: str) -> Affine:
    affine = np.array(affine, np.float64)
    affine[:3] *= _TO_MM.get(unit, 1.0)
    return affine


def _disagreement(found: dict[str, Affine], sides: tuple[int, int, int]) -> list[str]:
    sform, qform = (grid_of(found[name], *sides) for name in ("sform", "qform"))
    apart = furthest_mm(sform, qform)
    if apart <= _ROUNDING * min(sform.spacing_mm):
        return []
    mirrored = np.linalg.det(sform.directions) * np.linalg.det(qform.directions) < 0
    return [
        f"sform and qform of {{name}} place it up to {apart:.3g} mm apart"
        + (", with its sides exchanged" if mirrored else "")
        + ": the sform was used, as nibabel does."
    ]


def _extent(sides: list[int]) -> str:
    return " x ".join(map(str, sides)) if sides else "empty"
