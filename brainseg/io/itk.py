"""MetaImage and NRRD by SimpleITK, from memory, and its rigid registration.

SimpleITK reads named files alone, and patients' data never reach the disk: it is given a file in memory,
which Linux has a name for. The one thing read here by hand is where a header says that its voxels lie, since
a header from elsewhere must not make it read any file of this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from brainseg.grid import Grid
from brainseg.io.files import NamedBytes
from brainseg.io.layout import Layout, check_extent, finite, grid_of
from brainseg.io.readers import UnreadableError
from brainseg.io.text import shown
from brainseg.types import Affine, VolumeFormat

INSTALL = "pip install 'brainseg-lgg[itk]'"

_IMAGE_IO: dict[VolumeFormat, str] = {"metaimage": "MetaImageIO", "nrrd": "NrrdImageIO"}
_HEADER = 2**16
# LPS, as ITK has it, to RAS and back.
_FLIP = np.diag((-1.0, -1.0, 1.0, 1.0))
_ELEMENT_FILE = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*?)[ \t]*\r?(?:\n|$)", re.M)
# Only below these do axes mean something; both are fields that SimpleITK and Slicer write.
_PLACED = {
    "metaimage": re.compile(rb"^[ \t]*(?:TransformMatrix|Rotation|Orientation)[ \t]*=", re.M | re.I),
    "nrrd": re.compile(rb"^space directions:", re.M | re.I),
}
_SPACED = {
    "metaimage": re.compile(rb"^[ \t]*ElementSpacing[ \t]*=", re.M | re.I),
    "nrrd": re.compile(rb"^space(?: dimension)?:[ \t]*(?:left|right|lps|ras|las)", re.M | re.I),
}
# Sought in all that may be a header to the library, not in what is one to us: NRRD's ends at the latest
# before an empty line.
_ELSEWHERE = {
    "metaimage": re.compile(rb"ElementDataFile.*ElementDataFile", re.S),
    "nrrd": re.compile(rb"data[ \t]*file[ \t]*:", re.I),
}


def format_of(name: str, head: bytes) -> VolumeFormat | None:
    """By content, else by suffix: MetaImage, NRRD or neither."""
    if head.startswith(b"NRRD0"):
        return "nrrd"
    if head.startswith(b"ObjectType") or head.lstrip().startswith((b"NDims", b"Comment = ")):
        return "metaimage"
    lower = name.lower()
    if lower.endswith((".mha", ".mhd")):
        return "metaimage"
    return "nrrd" if lower.endswith((".nrrd", ".nhdr")) else None


def voxels_file(head: bytes) -> str | None:
    """Base name of the file that a MetaImage header says its voxels lie in; None where they follow it.

    Raises:
        UnreadableError: it says a list, a pattern or a path, or nothing.
    """
    found = _ELEMENT_FILE.search(head)
    if found is None:
        raise UnreadableError("does not say where its voxels are (ElementDataFile): export it again.")
    name = found[1].decode("utf-8", "replace")
    if name.upper() == "LOCAL":
        return None
    if name.upper().startswith("LIST") or "%" in name or PurePosixPath(name.replace("\\", "/")).name != name:
        raise UnreadableError(
            f"has its voxels in {shown(name)}, not in one file beside it: save it as one .mha file."
        )
    return name


def layout(file: NamedBytes, kind: VolumeFormat, image: NamedBytes | None = None) -> Layout:
    """What a MetaImage or NRRD header says.

    Raises:
        UnreadableError: SimpleITK is missing, damaged, not 3-D, beyond the limits, voxels that are no real
            numbers, no place in the world, or voxels elsewhere than in these files.
    """
    # The header is enough: nothing is said of the voxels.
    head = NamedBytes(file.name, file.head(_HEADER))
    with _reader(head, kind, None if image is None else NamedBytes(image.name, b"")) as reader:
        return _layout(reader, kind)


def pixels(
    file: NamedBytes, kind: VolumeFormat, image: NamedBytes | None = None
) -> tuple[Layout, npt.NDArray[Any], tuple[str, ...]]:
    """Layout, voxels (volumes, S, H, W) in native byte order, and remarks.

    Raises:
        UnreadableError: as `layout`, or cut short.
    """
    sitk = _library()
    with _reader(file, kind, image) as reader:
        about = _layout(reader, kind)
        try:
            picture = reader.Execute()
        except RuntimeError:
            raise UnreadableError("is damaged or cut short: copy or export it again.") from None
    values: npt.NDArray[Any] = sitk.GetArrayFromImage(picture)
    if about.volumes > 1:
        values = np.moveaxis(values, -1, 0)
    values, remarks = finite(values.reshape(about.volumes, *about.grid.shape))
    return about, values, remarks


def rigid(
    fixed: tuple[npt.NDArray[Any], Grid], moving: tuple[npt.NDArray[Any], Grid]
) -> tuple[Affine, float, float]:
    """Where a volume lies so that it fits another, by mutual information (Mattes et al. 2003, doi
    10.1109/TMI.2003.809072) over turns and shifts.

    Args:
        fixed: (S, H, W) and its grid.
        moving: likewise.

    Returns:
        (4, 4) from RAS+ mm of the moving volume to those of the fixed one; the angle in degrees; and how far
        the centre of the moving volume goes, in mm.

    Raises:
        UnreadableError: SimpleITK is missing, or finds nothing in common.
    """
    sitk = _library()
    one, other = _picture(*fixed), _picture(*moving)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=200, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    # The sum over threads would come out a little different each time.
    method.SetNumberOfThreads(1)
    try:
        start = sitk.CenteredTransformInitializer(
            one, other, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
        )
        method.SetInitialTransform(start, inPlace=True)
        method.Execute(one, other)
    except RuntimeError:
        raise UnreadableError(
            "could not be registered to FLAIR, as nothing in common was found: register it elsewhere, or "
            "leave it out."
        ) from None
    # ITK's transform takes points of the fixed volume to the moving one.
    columns = [np.array(start.TransformPoint(tuple(p))) for p in (*np.eye(3), np.zeros(3))]
    there = np.eye(4)
    there[:3, 3] = columns[3]
    there[:3, :3] = np.stack(columns[:3], axis=1) - columns[3][:, np.newaxis]
    back: Affine = _FLIP @ np.linalg.inv(there) @ _FLIP
    centre = moving[1].world((np.array(moving[1].shape) - 1) / 2)
    angle = float(np.degrees(np.arccos(np.clip((np.trace(back[:3, :3]) - 1) / 2, -1, 1))))
    return back, angle, float(np.linalg.norm(back[:3, :3] @ centre + back[:3, 3] - centre))


def _library() -> Any:
    try:
        import SimpleITK as sitk  # noqa: N813, PLC0415 - an extra, and half a second
    except ImportError:
        raise UnreadableError(f"needs SimpleITK, which is not installed: {INSTALL}") from None
    return sitk


@contextmanager
def _reader(file: NamedBytes, kind: VolumeFormat, image: NamedBytes | None) -> Iterator[Any]:
    """A reader of the file, its header read."""
    sitk = _library()
    data = file.data
    head = _header(data, kind)
    for needed in (_PLACED, _SPACED):
        if not needed[kind].search(head):
            raise UnreadableError(
                "does not say how it lies in the patient: export it with directions and spacing in mm, or as "
                "NIfTI."
            )
    end = data.find(b"\n\n") if kind == "nrrd" else -1
    if _ELSEWHERE[kind].search(data, 0, end if end >= 0 else len(data)):
        whole = ".nrrd" if kind == "nrrd" else ".mha"
        raise UnreadableError(f"has its voxels in another file: save it as one {whole} file.")
    parts = [data]
    if kind == "metaimage":
        beside = voxels_file(head)
        if beside is not None:
            if image is None:
                raise UnreadableError(f"has its voxels in {shown(beside)}, which was not given: add it.")
            parts = [_ELEMENT_FILE.sub(b"ElementDataFile = LOCAL\n", head), image.data]
    if not hasattr(os, "memfd_create"):
        raise UnreadableError(
            "is read on Linux alone, where it need not be written to the disk: convert it to NIfTI."
        )
    descriptor = os.memfd_create("volume")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            for part in parts:
                stream.write(part)
        reader = sitk.ImageFileReader()
        reader.SetImageIO(_IMAGE_IO[kind])
        reader.SetFileName(f"/proc/self/fd/{descriptor}")
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            raise UnreadableError("has a damaged header: copy or export it again.") from None
        yield reader
    finally:
        os.close(descriptor)


def _header(data: bytes, kind: VolumeFormat) -> bytes:
    """The text before the voxels."""
    head = data[:_HEADER]
    if kind == "nrrd":
        end = re.search(rb"\r?\n\r?\n", head)
        return head[: end.start()] if end else head
    end = _ELEMENT_FILE.search(head)
    return head[: end.end()] if end else head


def _layout(reader: Any, kind: VolumeFormat) -> Layout:
    sitk = _library()
    sides = tuple(int(n) for n in reader.GetSize())
    volumes = int(reader.GetNumberOfComponents())
    if len(sides) == 4 and sides[3] == 1:
        sides = sides[:3]
    if len(sides) != 3:
        raise UnreadableError(f"is {' x '.join(map(str, sides))}, not one volume: give 3-D images of a head.")
    try:
        one = sitk.Image([1, 1, 1], reader.GetPixelID(), volumes if volumes > 1 else 0)
        dtype: np.dtype[Any] = sitk.GetArrayViewFromImage(one).dtype
    except (KeyError, RuntimeError):
        raise UnreadableError("holds voxels of an unknown type: export it again.") from None
    if dtype.kind not in "iuf":
        raise UnreadableError(f"holds {dtype.name} values, not real numbers: export magnitude images.")
    check_extent(sides, volumes, dtype)
    axes = len(reader.GetSize())
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (axes, axes))[:3, :3] * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    segments, parts = _segments(reader, volumes)
    return Layout(grid_of(_FLIP @ affine, *sides), volumes, dtype, kind, segments=segments, parts=parts)


def _picture(values: npt.NDArray[Any], grid: Grid) -> Any:
    sitk = _library()
    picture = sitk.GetImageFromArray(np.ascontiguousarray(values, np.float32))
    affine = _FLIP @ grid.affine[:, [2, 1, 0, 3]]
    picture.SetSpacing(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    picture.SetDirection((affine[:3, :3] / picture.GetSpacing()).ravel().tolist())
    picture.SetOrigin(affine[:3, 3].tolist())
    return picture


def _segments(reader: Any, volumes: int) -> tuple[tuple[tuple[int, str], ...], tuple[tuple[int, int], ...]]:
    """Label and name of a .seg.nrrd's segments; volume and value of each where there are several volumes.

    Where segments overlap they lie in several volumes, and a value may stand for two of them: their labels
    are then 1, 2, ... in the order of the file.
    """
    keys = [key for key in reader.GetMetaDataKeys() if key.startswith("Segment") and key.isascii()]
    said = {key: reader.GetMetaData(key) for key in keys}
    segments, parts = [], []
    for index in range(len(said)):
        value, layer = said.get(f"Segment{index}_LabelValue", ""), said.get(f"Segment{index}_Layer", "0")
        if not (value.isdecimal() and layer.isdecimal() and int(layer) < volumes):
            break
        label = index + 1 if volumes > 1 else int(value)
        segments.append((label, said.get(f"Segment{index}_Name") or f"segment {index + 1}"))
        parts.append((int(layer), int(value)))
    return tuple(segments), tuple(parts) if volumes > 1 else ()
