"""Zip archives into memory, without trusting them."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import stat
import zipfile

from brainseg.io.limits import MAX_FILES, MAX_NAME, MAX_PART, MAX_RATIO, MAX_UNZIPPED, RATIO_FROM
from brainseg.io.text import shown
from brainseg.types import InputError

_DRIVE = re.compile(r"^[A-Za-z]:")
_CENTRAL_HEADER = b"PK\1\2"
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# APPNOTE.TXT of the zip format, 4.4.5.
_METHODS = {
    1: "Shrink",
    6: "Implode",
    9: "Deflate64",
    12: "bzip2",
    14: "LZMA",
    93: "Zstandard",
    94: "MP3",
    95: "XZ",
    96: "JPEG",
    97: "WavPack",
    98: "PPMd",
    99: "AES",
}


def unzip(name: str, data: bytes) -> list[tuple[str, bytes]]:
    """Members of a zip as (path, bytes), paths beginning with `name` less its ``.zip``.

    Zips within are unpacked too, one level deep. Folders are left out; nothing is written to disk.

    Raises:
        InputError: damaged, encrypted, compressed by another method than Deflate, a path that leaves the
            archive, a link, a name too long, too many or too large.
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


def gunzip(data: bytes | bytearray, size: int) -> bytearray:
    """The first `size` bytes that gzip data unpack to, or all if there are fewer.

    Whatever follows is never unpacked, so that a file unpacks to no more than its own header declares.

    Raises:
        OSError, EOFError, zlib.error: damaged or cut short.
    """
    out = bytearray(size)
    done = 0
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed, memoryview(out) as view:
        while done < size and (count := packed.readinto(view[done:])):
            done += count
        if done == size:
            packed.read(1)  # the checksum is compared where the data end
    del out[done:]
    return out


def check_name(name: str, holder: str = "") -> None:
    """Refuse a relative path longer than file systems allow; `holder` is the archive it lies in.

    It costs the same for any name, so it comes before whatever looks for words and numbers in one.

    Raises:
        InputError: over 255 bytes in one part or 1,000 in all.
    """
    where = f"{shown(holder)} holds {shown(name)}, whose" if holder else f"{shown(name)} has a path whose"
    whole = len(name.encode("utf-8", "surrogatepass"))
    if whole > MAX_NAME:
        raise InputError(
            f"{where} {whole:,} bytes are more than {MAX_NAME:,}: shorten the names of its folders."
        )
    longest = max(len(part.encode("utf-8", "surrogatepass")) for part in name.replace("\\", "/").split("/"))
    if longest > MAX_PART:
        raise InputError(
            f"{where} part of {longest} bytes is longer than {MAX_PART}: give it a shorter name."
        )


class _Budget:
    # Shared by an archive and those within it, so that nesting cannot multiply the limits.
    def __init__(self) -> None:
        self.bytes = 0
        self.files = 0


def _unzip(name: str, data: bytes, *, packed: int, budget: _Budget, depth: int) -> list[tuple[str, bytes]]:
    stem = name[:-4]
    out: list[tuple[str, bytes]] = []
    # zipfile makes an object of every entry before it tells how many there are; half of them may be folders.
    if data.count(_CENTRAL_HEADER) > 2 * MAX_FILES:
        raise InputError(_too_many(name))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        budget.files += len(members)
        if budget.files > MAX_FILES:
            raise InputError(_too_many(name))
        for info in members:
            _check(name, info)
        # Sizes are checked as declared, before anything is unpacked; no more than declared is unpacked.
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
            content = _content(archive, info)
            if not inner.lower().endswith(".zip"):
                out.append((inner, content))
            elif depth:
                raise InputError(f"{shown(inner)} is a zip in a zip in a zip: unpack it and give its folder.")
            else:
                out += _unzip(inner, content, packed=packed, budget=budget, depth=1)
    return out


def _too_many(name: str) -> str:
    return f"{shown(name)} holds more than {MAX_FILES:,} files: pack one patient or data set."


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as member:
        # Without a size, zipfile unpacks whatever the stream holds and cuts it to what was declared after.
        content = member.read(info.file_size)
    if len(content) != info.file_size:
        raise zipfile.BadZipFile("shorter than declared")
    return content


def _check(name: str, info: zipfile.ZipInfo) -> None:
    path = _decoded(info)
    check_name(path, name)
    if path.startswith("/") or _DRIVE.match(path) or ".." in path.split("/"):
        raise InputError(
            f"{shown(name)} holds {shown(path)}, a path that leads out of the archive: pack the folder again."
        )
    if info.flag_bits & 0x1:
        raise InputError(f"{shown(name)} is encrypted: unpack it with its password and give the folder.")
    if info.compress_type not in _READ:
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise InputError(
            f"{shown(name)} is compressed with {method}, and only Deflate is read: unpack it and give the "
            "folder, or pack it again as an ordinary zip."
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError(f"{shown(name)} holds {shown(path)}, a link: pack the files themselves.")


def _decoded(info: zipfile.ZipInfo) -> str:
    path = info.filename
    if not info.flag_bits & 0x800:
        # Many packers write UTF-8 without saying so; zipfile then decodes it as the DOS code page.
        with contextlib.suppress(UnicodeError):
            path = path.encode("cp437").decode("utf-8")
    return path.replace("\\", "/")
