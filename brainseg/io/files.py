"""Files in memory: gathered from a folder, a zip or a list of paths."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from brainseg.io.archive import check_name, unzip
from brainseg.io.limits import MAX_FILES
from brainseg.io.text import shown
from brainseg.types import InputError

_DANGLING = "a link to content that is not here (git-annex: get it first)"


@dataclass(frozen=True, eq=False)
class NamedBytes:
    """One file in memory.

    Attributes:
        name: relative path with forward slashes.
        data: the file's bytes.
        absent: why there is no content, for what was found and cannot be read; `data` is then empty.
    """

    name: str
    data: bytes = field(repr=False)
    absent: str = ""

    def head(self, size: int) -> bytes:
        """The first `size` bytes, or all."""
        return self.data[:size]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamedBytes) and self.name == other.name and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.name)


class _OnDisk(NamedBytes):
    # A whole data set is about a gigabyte: bytes are read at each use, so that only the chosen patient's
    # are ever held.
    def __init__(self, name: str, path: Path) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "_path", path)

    @property
    def data(self) -> bytes:
        return self._read(-1)

    def head(self, size: int) -> bytes:
        return self._read(size)

    def _read(self, size: int) -> bytes:
        path: Path = self.__dict__["_path"]
        try:
            with path.open("rb") as stream:
                return stream.read(size)
        except OSError as error:
            raise InputError(
                f"{shown(self.name)} cannot be opened ({error.strerror}): check that it is still there "
                "and that you may read it."
            ) from None


def collect(source: str | Path | Sequence[str | Path]) -> list[NamedBytes]:
    """Every file of a folder (recursively), a zip, or a list of files, folders and zips on disk.

    Names are relative to the parent of what was given, so a folder's own name is the first part of its
    files' names; zips are expanded as `expand` does. Bytes are read from disk when `data` is used.

    Raises:
        InputError: nothing there, not readable, too many files, or an unsafe zip.
    """
    given = [Path(source)] if isinstance(source, (str, Path)) else [Path(path) for path in source]
    if not given:
        raise InputError("No files were given: choose a patient's folder, a zip or image files.")
    paths = [Path(os.path.abspath(path)) for path in given]
    try:
        base = Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:
        base = Path()  # several drives: no common parent
    found: list[NamedBytes] = []
    for path in paths:
        for file, absent in _walk(path):
            if len(found) == MAX_FILES:
                raise InputError(
                    f"{shown(path.name)} holds more than {MAX_FILES:,} files: choose the folder of one "
                    "patient or of one data set."
                )
            # A hidden folder that was chosen itself is meant.
            name = _relative(file, base).lstrip(".")
            found.append(NamedBytes(name, b"", absent) if absent else _OnDisk(name, file))
    files = expand(found)
    if not files:
        kind = "The folder" if paths[0].is_dir() else "The archive"
        raise InputError(
            f"{kind} {shown(paths[0].name)} is empty: choose one that holds a patient's slices as TIFF, "
            "PNG or JPEG."
        )
    return files


def expand(files: Sequence[NamedBytes]) -> list[NamedBytes]:
    """The files with every zip replaced by its members, and hidden and system files left out.

    Members are named ``<path of the zip without .zip>/<member>``. A zip may hold zips, one level deep.

    Raises:
        InputError: a zip is damaged, encrypted, unsafe (paths that leave it, links) or too large, or a name
            is too long.
    """
    out: list[NamedBytes] = []
    for file in files:
        check_name(file.name)
        name = tidy(file.name)
        if is_junk(name):
            continue
        if name.lower().endswith(".zip") and not file.absent:
            members = unzip(name, file.data)
            out += [NamedBytes(tidy(n), data) for n, data in members if not is_junk(n)]
        else:
            out.append(_renamed(file, name))
        if len(out) > MAX_FILES:
            raise InputError(f"More than {MAX_FILES:,} files were given: choose one patient or one data set.")
    return out


def tidy(name: str) -> str:
    """The name as a plain relative path: forward slashes, no ``..``, printable, Unicode's composed form.

    Characters that cannot be printed (control, direction, undecodable bytes) become ``_``.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    # macOS writes decomposed accents, other systems composed ones: the same patient must get one name.
    composed = unicodedata.normalize("NFC", "/".join(parts))
    # Names become case ids, table cells, terminal lines and names of exported files.
    return "".join(c if c.isprintable() else "_" for c in composed)


def is_junk(name: str) -> bool:
    """Whether a relative path is a hidden or system file (`__MACOSX`, `.DS_Store`, `Thumbs.db`)."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(
        (part.startswith(".") and part not in (".", ".."))
        or part.lower() in ("__macosx", "thumbs.db", "desktop.ini")
        for part in parts
    )


def _renamed(file: NamedBytes, name: str) -> NamedBytes:
    if name == file.name:
        return file
    if isinstance(file, _OnDisk):
        return _OnDisk(name, file.__dict__["_path"])
    return NamedBytes(name, file.data, file.absent)


def _relative(file: Path, base: Path) -> str:
    try:
        return file.relative_to(base).as_posix()
    except ValueError:
        return file.name


def _walk(path: Path) -> Iterator[tuple[Path, str]]:
    """Files below `path`, each with the reason why it has no content, or ``""``."""
    if path.is_file():
        yield path, ""
        return
    if not path.is_dir():
        if path.is_symlink():
            raise InputError(f"{shown(path.name)} is {_DANGLING}: fetch the file it stands for.")
        raise InputError(f"{shown(path.name)} does not exist: check the path.")

    def refuse(error: OSError) -> None:
        name = Path(error.filename or path).name
        raise InputError(
            f"The folder {shown(name)} cannot be opened ({error.strerror}): check its permissions."
        )

    entered = {path.resolve()}
    for folder, subfolders, names in os.walk(path, onerror=refuse, followlinks=True):
        # Before os.walk goes down, a call deeper for each folder.
        check_name(os.path.relpath(folder, path.parent))
        walked = []
        for name in sorted(name for name in subfolders if not is_junk(name)):
            inside = Path(folder, name)
            if inside.is_symlink():
                # A link to a folder above or already read would be walked for ever, or twice.
                target = inside.resolve()
                if any(target == one or target in one.parents or one in target.parents for one in entered):
                    yield inside, "a link to a folder that is read anyway, or that holds this one"
                    continue
                entered.add(target)
            walked.append(name)
        subfolders[:] = walked
        for name in sorted(names):
            file = Path(folder, name)
            if is_junk(name):
                continue
            if file.is_file():
                yield file, ""
            elif file.is_symlink():
                yield file, _DANGLING
            else:
                # Pipes and devices would block for ever.
                yield file, "a pipe or device, not a file"
