"""What a file is, by its first bytes and its suffix."""

from __future__ import annotations

import struct
import zlib

from brainseg.io.names import IMAGE_SUFFIXES

ACCEPTED = "TIFF, PNG or JPEG"
"""Formats of pictures that are read."""

READ = f"DICOM, NIfTI, {ACCEPTED}"
"""Formats that are read."""

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

HEAD = 2**16
"""First bytes of a file that tell what it is; the fields that our own masks carry end before."""

_SOFTWARE_TAG = 305

VOLUME_FORMATS = ("FreeSurfer MGZ",)
"""Formats of whole studies that are not read; what lies beside them is rarely a study of its own."""

NIFTI_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img.gz", ".img")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr", ".raw.gz", ".raw", ".zraw")
"""MetaImage and NRRD, and files of voxels beside their headers."""

_NIFTI = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")

_NOT_READ = {
    ".mgz": "FreeSurfer MGZ",
    ".bmp": "a BMP image",
    ".gif": "a GIF image",
    ".webp": "a WebP image",
    ".jp2": "a JPEG 2000 image",
    ".npy": "a NumPy array",
    ".npz": "a NumPy array",
    ".h5": "HDF5",
    ".mat": "MATLAB data",
    ".rar": "a RAR archive",
    ".7z": "a 7z archive",
    ".tar": "a tar archive",
    ".gz": "gzip data",
    ".tgz": "a tar archive",
    ".zip": "a zip that was not unpacked",
}
_MAGIC = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"NRRD0", "NRRD"),
    (b"ObjectType", "MetaImage"),
    (b"\x89HDF\r\n", "HDF5"),
    (b"MATLAB 5.0", "MATLAB data"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GIF8", "a GIF image"),
    (b"8BPS", "a Photoshop image"),
    (b"BM", "a BMP image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
)
_NO_IMAGE = (
    *(
        ".csv",
        ".tsv",
        ".json",
        ".xml",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
        ".log",
        ".db",
        ".xls",
        ".xlsx",
        ".ods",
    ),
    *(".txt", ".md", ".rst", ".html", ".htm", ".pdf", ".doc", ".docx", ".odt", ".rtf", ".pptx", ".svg"),
    *(".py", ".ipynb", ".m", ".r", ".sh", ".exe", ".dll"),
)


OWN_MARK = "brainseg"
"""Results that we wrote ourselves begin so: the Software of pictures, the Manufacturer of DICOM, the
description of NIfTI."""


def has_image_suffix(name: str) -> bool:
    """Whether the name ends as TIFF, PNG or JPEG do."""
    return name.lower().endswith(tuple(IMAGE_SUFFIXES))


def format_not_read(name: str) -> str | None:
    """By suffix, the name of an image or archive format that is not read in this release, or None."""
    lower = name.lower()
    # Longest first: .nii.gz before .gz.
    for suffix in sorted(_NOT_READ, key=len, reverse=True):
        if lower.endswith(suffix):
            return _NOT_READ[suffix]
    return None


def is_no_image(name: str) -> bool:
    """By suffix, whether a file is a table, text, document or program."""
    return name.lower().endswith(_NO_IMAGE)


def is_dicom(head: bytes) -> bool:
    """Whether a file's first bytes are DICOM: behind a preamble, whatever that holds, or without one."""
    if head[128:132] == b"DICM":
        return True
    # Groups 0002 and 0008 in the order of little-endian DICOM, as files without a preamble begin.
    group, element, vr = head[:2], head[2:4], head[4:6]
    return (
        group in (b"\2\0", b"\x08\0")
        and element[:1] in (b"\0", b"\1", b"\5", b"\x08", b"\x10")
        and element[1:] == b"\0"
        and (vr in (b"UL", b"OB", b"CS", b"UI", b"SH") or head[6:8] == b"\0\0")
    )


def ungzipped(head: bytes, size: int = 1024) -> bytes:
    """The first bytes of a file, unpacked where they are gzip data."""
    if head[:2] != b"\x1f\x8b":
        return head[:size]
    try:
        return zlib.decompressobj(wbits=31).decompress(head, size)
    except zlib.error:
        return b""


def is_nifti(head: bytes) -> bool:
    """Whether a file's first bytes, gzipped or not, are a NIfTI header."""
    head = ungzipped(head)
    return head[344:348] in _NIFTI or head[4:8] in _NIFTI


def is_volume(name: str, head: bytes) -> bool:
    """Whether a file is NIfTI, MetaImage or NRRD, by name or content, or holds the voxels of one."""
    if name.lower().endswith((*NIFTI_SUFFIXES, *ITK_SUFFIXES)):
        return True
    return is_nifti(head) or format_by_content(head) in ("NRRD", "MetaImage")


def format_by_content(head: bytes) -> str | None:
    """By the first 352 bytes, the name of an image or archive format that is not read, or None."""
    if is_dicom(head):
        return "DICOM"
    if is_nifti(head):
        return "NIfTI"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    return "a WebP image" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def is_own_result(head: bytes) -> bool:
    """Whether a file is a mask or picture that brainseg wrote, by the Software field it carries.

    Args:
        head: a PNG's or TIFF's first bytes, at least those before its pixels.
    """
    try:
        return _software(head).startswith(OWN_MARK)
    except (struct.error, ValueError):
        return False


def looks_like(head: bytes) -> str:
    """In words, what the content of a file that is no image seems to be."""
    known = format_by_content(head)
    if known:
        return known
    if head[:4] == b"%PDF":
        return "a PDF document"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, whose content was not fetched"
    if head.startswith(b"/annex/objects/"):
        return "a git-annex pointer, whose content was not fetched"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head[:512]):
        return "text"
    return "other data"


def _software(head: bytes) -> str:
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return _png_software(head)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or head[2:4] not in (b"*\0", b"\0*"):
        return ""
    # We write classic TIFF: entries of 12 bytes.
    (at,) = struct.unpack_from(f"{order}I", head, 4)
    (entries,) = struct.unpack_from(f"{order}H", head, at)
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        tag, _, count, where = struct.unpack_from(f"{order}HHII", head, entry)
        if tag == _SOFTWARE_TAG:
            start = where if count > 4 else entry + 8
            return head[start : start + min(count, 64)].decode("latin-1")
    return ""


def _png_software(head: bytes) -> str:
    at = 8
    while True:
        size, kind = struct.unpack_from(">I4s", head, at)
        if kind in (b"IDAT", b"IEND"):
            return ""
        if kind in (b"tEXt", b"iTXt") and head[at + 8 : at + 17] == b"Software\0":
            return head[at + 17 : at + 8 + min(size, 64)].decode("latin-1").lstrip("\0")
        at += 12 + size
