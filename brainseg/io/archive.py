"""Zip archives into memory, without trusting them."""

from __future__ import annotations

import contextlib
import io
import re
import stat
import zipfile

from brainseg.io.limits import MAX_FILES, MAX_RATIO, MAX_UNZIPPED, RATIO_FROM
from brainseg.io.text import shown
from brainseg.types import InputError

_DRIVE = re.compile(r"^[A-Za-z]:")


def unzip(name: str, data: bytes) -> list[tuple[str, bytes]]:
    """Members of a zip as (path, bytes), paths beginning with `name` less its ``.zip``.

    Zips within are unpacked too, one level deep. Folders are left out; nothing is written to disk.

    Raises:
        InputError: damaged, encrypted, a path that leaves the archive, a link, too many or too large.
    """
    try:
        return _unzip(name, data, packed=len(data), budget=_Budget(), depth=0)
    except InputError:
        raise
    # Hostile archives make zipfile and its decompressors raise almost anything.
    except Exception:
        raise InputError(
            f"{shown(name)} is damaged or not a zip archive: pack or download it again."
        ) from None


class _Budget:
    # Shared by an archive and those within it, so that nesting cannot multiply the limits.
    def __init__(self) -> None:
        self.bytes = 0
        self.files = 0


def _unzip(name: str, data: bytes, *, packed: int, budget: _Budget, depth: int) -> list[tuple[str, bytes]]:
    stem = name[:-4]
    out: list[tuple[str, bytes]] = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        budget.files += len(members)
        if budget.files > MAX_FILES:
            raise InputError(
                f"{shown(name)} holds more than {MAX_FILES:,} files: pack one patient or data set."
            )
        for info in members:
            _check(name, info)
        # Sizes are checked as declared, before anything is unpacked; zipfile never yields more than declared.
        budget.bytes += sum(info.file_size for info in members)
        if budget.bytes > MAX_UNZIPPED:
            raise InputError(
                f"{shown(name)} unpacks to more than {MAX_UNZIPPED // 2**30} GB: pack fewer patients."
            )
        if budget.bytes > RATIO_FROM and budget.bytes > MAX_RATIO * packed:
            raise InputError(
                f"{shown(name)} unpacks to over {MAX_RATIO} times its size, as a zip bomb does: "
                "give the folder or the files instead."
            )
        for info in members:
            inner = f"{stem}/{_decoded(info)}"
            content = archive.read(info)
            if not inner.lower().endswith(".zip"):
                out.append((inner, content))
            elif depth:
                raise InputError(f"{shown(inner)} is a zip in a zip in a zip: unpack it and give its folder.")
            else:
                out += _unzip(inner, content, packed=packed, budget=budget, depth=1)
    return out


def _check(name: str, info: zipfile.ZipInfo) -> None:
    path = _decoded(info)
    if path.startswith("/") or _DRIVE.match(path) or ".." in path.split("/"):
        raise InputError(
            f"{shown(name)} holds {shown(path)}, a path that leads out of the archive: pack the folder again."
        )
    if info.flag_bits & 0x1:
        raise InputError(f"{shown(name)} is encrypted: unpack it with its password and give the folder.")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError(f"{shown(name)} holds {shown(path)}, a link: pack the files themselves.")


def _decoded(info: zipfile.ZipInfo) -> str:
    path = info.filename
    if not info.flag_bits & 0x800:
        # Many packers write UTF-8 without saying so; zipfile then decodes it as the DOS code page.
        with contextlib.suppress(UnicodeError):
            path = path.encode("cp437").decode("utf-8")
    return path.replace("\\", "/")
