"""What a file is, by its first bytes and its suffix."""

from __future__ import annotations

from typing import Literal

from brainseg.io.names import IMAGE_SUFFIXES

Kind = Literal["tiff", "png", "jpeg"]

ACCEPTED = "TIFF, PNG or JPEG"

# Little- and big-endian, classic and BigTIFF.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_NOT_READ = {
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".ima": "DICOM",
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".hdr": "Analyze/NIfTI",
    ".img": "Analyze/NIfTI",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".nrrd": "NRRD",
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


def kind_of(data: bytes) -> Kind | None:
    """The image format that the first bytes announce, or None."""
    if data[:4] in _TIFF:
        return "tiff"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    return "jpeg" if data[:3] == b"\xff\xd8\xff" else None


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


def looks_like(data: bytes) -> str:
    """In words, what the content of a file that is no image seems to be."""
    if data[:4] == b"PK\x03\x04":
        return "a zip archive"
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[:2] == b"\x1f\x8b":
        return "gzip data"
    if data[:4] == b"%PDF":
        return "a PDF document"
    head = data[:512]
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return "text"
    return "other data"
