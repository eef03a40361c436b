"""Inputs, weights and recipes mutated by the thousand: none may end in a traceback, a hang or a full memory.

    python benchmarks/fuzz.py                          # 10,000 inputs, 1,000 cards and recipes
    python benchmarks/fuzz.py --seed 7 --inputs 500 --cards 50
    python benchmarks/fuzz.py --seed 7 --only input:123     # one of them again, with its traceback

Everything is made here from a seed: zips, TIFFs of many layouts, PNG, JPEG, names, folders, cards, tensors
and recipes, each then changed in one to a few places. An input is read as an upload or from disk, and what is
accepted goes on through preprocessing, drawing and every export; weights that load predict a small study. A
right end is a result or one sentence (`BrainsegError`). A child process does the work, so that a crash ends
it and not the search. A case that takes a minute is killed; above 10 s of processor time it counts as slow,
above 1.5 GB as too large. Writes benchmarks/results/fuzz.json; exits with 1 if anything was found.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import tifffile
import typer
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from brainseg import __version__
from brainseg.types import BrainsegError, Prediction, Study

# A child imports what its kind of case needs.
# ruff: noqa: PLC0415, T201

try:
    import resource
except ImportError:  # Windows: the time limit alone
    resource = None  # type: ignore[assignment]

RESULTS = Path(__file__).resolve().parent / "results" / "fuzz.json"
SECONDS, PATIENCE, PEAK_MB, LIMIT_GB = 10.0, 60.0, 1500, 6
LONGEST_SENTENCE = 600

Kind = Literal["input", "card"]
KINDS: tuple[Kind, ...] = ("input", "card")
Files = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Outcome:
    """How one case ended.

    Attributes:
        what: the kind of case, for instance ``"zip"`` or ``"card: tensors"``.
        end: ``"accepted"``, ``"refused"`` with a sentence, or a fault: ``"traceback"``, ``"sentence"`` (not
            one printable line), ``"slow"``, ``"memory"``, ``"died"``, ``"hang"``.
        detail: the sentence or the last lines of the traceback.
    """

    what: str
    end: str
    detail: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0

    @property
    def is_fault(self) -> bool:
        """Whether it should not have ended so."""
        return self.end not in ("accepted", "refused")


# --- sound files, of every layout that is read or refused ---------------------------------------------------


def _pixels(seed: int, shape: tuple[int, ...], dtype: Any = np.uint8) -> npt.NDArray[Any]:
    values = np.random.default_rng(seed).integers(0, 200, shape)
    return values.astype(dtype)


def _pillow(pixels: npt.NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, kind, **options)
    return out.getvalue()


def _tifffile(pixels: npt.NDArray[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, **options)
    return out.getvalue()


@functools.cache
def samples() -> tuple[bytes, ...]:
    """Small sound pictures, 32 pixels wide, as many writers make them."""
    colour, grey = _pixels(0, (32, 32, 3)), _pixels(1, (32, 32))
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 10:20] = 255
    rgb: dict[str, Any] = {"photometric": "rgb"}
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngInfo()
    text.add_text("Description", "synthetic")
    pages = [Image.fromarray(_pixels(n, (32, 32, 3))) for n in range(3)]
    bits = Image.fromarray(mask).convert("1")
    palette = Image.fromarray(grey).convert("P")
    made = [
        *(
            _pillow(colour, "TIFF", compression=c)
            for c in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
        ),
        _pillow(colour, "TIFF", compression="jpeg"),
        _pillow(bits, "TIFF", compression="group4"),
        _pillow(bits, "TIFF"),
        _pillow(palette, "TIFF"),
        _pillow(grey.astype(np.int32), "TIFF"),
        _pillow(pages[0], "TIFF", save_all=True, append_images=pages[1:]),
        _pillow(mask, "TIFF"),
        *(
            _tifffile(_pixels(2, (32, 32, 3), dtype), byteorder=order, **rgb)
            for dtype in (np.uint8, np.uint16, np.int16, np.uint32, np.float16, np.float32, np.float64)
            for order in "<>"
        ),
        _tifffile(colour, tile=(16, 16), **rgb),
        _tifffile(colour.astype(np.uint16), tile=(16, 16), compression="zlib", predictor=True, **rgb),
        _tifffile(np.moveaxis(colour, -1, 0), planarconfig="separate", **rgb),
        _tifffile(colour, bigtiff=True, **rgb),
        _tifffile(colour > 100, photometric="minisblack", planarconfig="contig"),
        _tifffile(grey, photometric="miniswhite"),
        _tifffile(_pixels(3, (32, 32, 4)), extrasamples=["unassalpha"], **rgb),
        _tifffile(_pixels(3, (32, 32, 7)), photometric="minisblack", planarconfig="contig"),
        _tifffile(_pixels(4, (32, 32), np.complex64), photometric="minisblack"),
        _tifffile(_pixels(5, (2, 3, 2, 32, 32)), imagej=True, metadata={"axes": "TZCYX"}),
        _tifffile(_pixels(5, (3, 4, 32, 32), np.uint16), ome=True, metadata={"axes": "CZYX"}),
        _tifffile(_pixels(6, (4, 32, 32, 3)), extratags=[(274, 3, 1, 6, True)], **rgb),
        _tifffile(_pixels(6, (96, 32, 3)), **rgb),
        *(_pillow(p, "PNG", pnginfo=text) for p in (colour, grey, mask, _pixels(7, (32, 32, 4)))),
        _pillow(_pixels(8, (32, 32), np.uint16), "PNG"),
        _pillow(bits, "PNG"),
        _pillow(palette, "PNG"),
        _pillow(pages[0], "PNG", save_all=True, append_images=pages[1:]),
        *(_pillow(p, "JPEG", quality=90) for p in (colour, grey)),
        _pillow(colour, "JPEG", progressive=True, exif=exif),
        _pillow(Image.fromarray(_pixels(9, (32, 32, 4)), "RGBA").convert("CMYK"), "JPEG"),
        _pillow(pages[0], "MPO", save_all=True, append_images=pages[1:]),
        b"patient notes\n" * 20,
        bytes(128) + b"DICM" + bytes(100),
    ]
    return tuple(made)


# --- mutations ---------------------------------------------------------------------------------------------

_NUMBERS: tuple[int, ...] = (
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    31,
    32,
    33,
    64,
    127,
    255,
    256,
    4095,
    4096,
    4097,
    32768,
    46336,
    65535,
    65536,
)
_NUMBERS += (2**24, 2**31 - 1, 2**31, 2**32 - 1, 1_000_000_000)


def _changed_bytes(dice: random.Random, data: bytes) -> bytes:
    raw = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        if not raw:
            break
        at = dice.randrange(len(raw)) if dice.random() < 0.5 else dice.randrange(min(len(raw), 400))
        way = dice.randrange(7)
        if way == 0:
            raw[at] ^= 1 << dice.randrange(8)
        elif way == 1:
            raw[at] = dice.choice((0, 1, 127, 128, 255))
        elif way == 2:
            raw[at : at + 4] = struct.pack(dice.choice("<>") + "I", dice.choice(_NUMBERS))
        elif way == 3:
            raw[at : at + 2] = struct.pack(dice.choice("<>") + "H", dice.choice(_NUMBERS) & 0xFFFF)
        elif way == 4:
            del raw[at : at + dice.choice((1, 2, 4, 100))]
        elif way == 5:
            raw[at:at] = raw[at : at + dice.choice((1, 4, 64))] or b"\0"
        elif dice.random() < 0.3:
            del raw[at:]
    return bytes(raw)


_TAGS: tuple[int, ...] = (
    254,
    256,
    257,
    258,
    259,
    262,
    266,
    270,
    273,
    274,
    277,
    278,
    279,
    284,
    317,
    320,
    322,
    323,
    324,
    325,
)
_TAGS += (330, 338, 339, 530, 32997, 34665, 50838)


def _changed_tiff(dice: random.Random, data: bytes) -> bytes:
    """Another value, type, count or tag in the first directory of a classic TIFF."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return _changed_bytes(dice, data)
    raw = bytearray(data)
    (start,) = struct.unpack_from(order + "I", raw, 4)
    if start + 2 > len(raw):
        return _changed_bytes(dice, data)
    (count,) = struct.unpack_from(order + "H", raw, start)
    entries = [at for at in range(start + 2, start + 2 + 12 * count, 12) if at + 12 <= len(raw)]
    for at in dice.sample(entries, min(len(entries), dice.choice((1, 1, 2, 3)))):
        way, value = dice.randrange(5), dice.choice(_NUMBERS)
        if way == 0:
            struct.pack_into(order + "H", raw, at, dice.choice(_TAGS))
        elif way == 1:
            struct.pack_into(order + "H", raw, at + 2, dice.randrange(20))
        elif way == 2:
            struct.pack_into(order + "I", raw, at + 4, value)
        elif struct.unpack_from(order + "H", raw, at + 2)[0] == 3:
            struct.pack_into(order + "H", raw, at + 8, value & 0xFFFF)
        else:
            struct.pack_into(order + "I", raw, at + 8, value)
    return bytes(raw)


def _changed_header(dice: random.Random, data: bytes) -> bytes:
    """Other sizes or depths in a PNG's header, its checksum set right, or in a JPEG's frame."""
    raw = bytearray(data)
    if data[:4] == b"\x89PNG" and len(raw) > 33:
        at = dice.choice((16, 20, 24, 25, 28))
        if at < 24:
            struct.pack_into(">I", raw, at, dice.choice(_NUMBERS))
        else:
            raw[at] = dice.randrange(18)
        struct.pack_into(">I", raw, 29, zlib.crc32(raw[12:29]))
        return bytes(raw)
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    if data[:2] == b"\xff\xd8" and frame > 0:
        at = frame + dice.choice((4, 5, 7, 9))
        raw[at : at + 2] = struct.pack(">H", dice.choice(_NUMBERS) & 0xFFFF)
        return bytes(raw)
    return _changed_tiff(dice, data)


def _picture(dice: random.Random) -> bytes:
    data = dice.choice(samples())
    for _ in range(dice.choice((0, 1, 1, 1, 2))):
        data = dice.choice((_changed_bytes, _changed_tiff, _changed_header))(dice, data)
    return data


_WORDS = (
    *(
        "mask",
        "seg",
        "label",
        "gt",
        "flair",
        "t1",
        "t1ce",
        "pre",
        "post",
        "slice",
        "image",
        "IM",
        "P",
        "0000",
    ),
    *(
        "_",
        "-",
        ".",
        " ",
        "(1)",
        "(",
        ")",
        "1",
        "2",
        "10",
        "007",
        "0" * 300,
        "9" * 40,
        "[/red]",
        "[bold]",
        "{}",
    ),
    *(
        "..",
        "~",
        "\\",
        ":",
        "CON",
        "é",
        "e\u0301",
        "漢",
        "🧠",
        "\u202e",
        "\udcff",
        "\x1b[31m",
        "\n",
        "\0",
        "%s",
    ),
    *("=1+1", "'", '"', "<b>", "&amp;", "mask_" * 20, " " * 200, "a" * 254, "٣", "²", "\u200b"),
)
_SUFFIXES = (
    ".tif",
    ".tiff",
    ".TIF",
    ".png",
    ".jpg",
    ".jpeg",
    ".zip",
    ".dcm",
    ".nii.gz",
    ".txt",
    "",
    ".001",
    ".gz",
)


def _name(dice: random.Random) -> str:
    parts = ["".join(dice.choices(_WORDS, k=dice.randint(1, 5))) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
    if dice.random() < 0.02:
        parts.append(dice.choice(("0", " ", "mask_", "é/")) * 20_000)
    return "/".join(parts) + dice.choice(_SUFFIXES)


def _patient(dice: random.Random) -> Files:
    """Some slices and masks under plain names, in some layout."""
    slices, masks = dice.choice(
        (
            ("SYN_01_{}.tif", "SYN_01_{}_mask.tif"),
            ("images/{}.png", "masks/{}.png"),
            ("s/slice_{:03d}.jpg", "s/slice_{:03d}_seg.png"),
            ("imagesTr/x_{:04d}.tif", "labelsTr/x_{:04d}.tif"),
        )
    )
    colour, mask = samples()[0], samples()[10]
    numbers = range(1, dice.randint(2, 5))
    files = [(slices.format(n), colour) for n in numbers]
    return files + [(masks.format(n), mask) for n in numbers if dice.random() < 0.5]


def _pictures(dice: random.Random) -> Files:
    files = _patient(dice)
    for _ in range(dice.choice((1, 1, 2))):
        at = dice.randrange(len(files))
        files[at] = (files[at][0], _picture(dice))
    return files[:1] if dice.random() < 0.3 else files


def _names(dice: random.Random) -> Files:
    return [(_name(dice), dice.choice(samples()[:12])) for _ in range(dice.randint(1, 6))]


def _mixed(dice: random.Random) -> Files:
    return [(_name(dice), _picture(dice)) for _ in range(dice.randint(1, 4))] + _patient(dice)


def _zip(dice: random.Random) -> Files:
    files = dice.choice((_patient, _pictures, _names))(dice)
    out = io.BytesIO()
    method = dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, *[zipfile.ZIP_DEFLATED] * 6, 12, 14))
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files:
            # The format has 16 bits for the length of a name.
            with contextlib.suppress(UnicodeError):
                info = zipfile.ZipInfo(name.encode()[:65_000].decode(errors="ignore"))
                info.compress_type = method
                if dice.random() < 0.02:
                    info.external_attr = 0o120777 << 16
                archive.writestr(info, data)
        if dice.random() < 0.03:
            archive.writestr("zeros.tif", bytes(80 * 2**20), zipfile.ZIP_DEFLATED)
    raw = bytearray(out.getvalue())
    for header in (b"PK\1\2", b"PK\3\4"):
        at = raw.find(header)
        if at >= 0 and dice.random() < 0.3:
            field = dice.randrange(4, 46 if header == b"PK\1\2" else 30)
            raw[at + field : at + field + 2] = struct.pack("<H", dice.choice(_NUMBERS) & 0xFFFF)
    data = bytes(raw)
    if dice.random() < 0.3:
        data = _changed_bytes(dice, data)
    if dice.random() < 0.1:
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w") as archive:
            archive.writestr("inner.zip", data)
        data = outer.getvalue()
    return [("upload.zip", data)]


_MAKERS: dict[str, Callable[[random.Random], Files]] = {
    "pictures": _pictures,
    "zip": _zip,
    "names": _names,
    "mixed": _mixed,
}


# --- what is done with an input ----------------------------------------------------------------------------


def _run_input(dice: random.Random) -> tuple[str, Callable[[], object]]:
    what = dice.choice(("pictures", "pictures", "pictures", "zip", "zip", "names", "mixed"))
    files = _MAKERS[what](dice)
    if dice.random() < 0.25:
        return f"{what} on disk", lambda: _read_from_disk(files)
    return what, lambda: _read_upload(files)


def _read_upload(files: Files) -> None:
    from brainseg.io import NamedBytes, expand, find_cases, read_case

    # As the page does it: one damaged patient does not keep the others from being read.
    refused: BrainsegError | None = None
    for case in find_cases(expand([NamedBytes(name, data) for name, data in files]))[:4]:
        try:
            _use(read_case(case))
        except BrainsegError as error:
            refused = error
    if refused is not None:
        raise refused


def _read_from_disk(files: Files) -> None:
    from brainseg.io import read_study

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "given")
        root.mkdir()
        for name, data in files:
            path = root / name.lstrip("/").replace("..", "__")
            # Some names are none on this system.
            with contextlib.suppress(OSError, ValueError):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        with contextlib.suppress(OSError):
            (root / "loop").symlink_to(root, target_is_directory=True)
            (root / "gone_1.tif").symlink_to(root / "nowhere")
        _use(read_study(root / "upload.zip" if files[0][0] == "upload.zip" else root))


def _use(study: Study) -> None:
    """Everything that is done with a study beside running a network."""
    from brainseg.measure import measure
    from brainseg.postprocess import find
    from brainseg.preprocess import Preprocess
    from brainseg.report import masks_zip, overlays_zip, report, to_csv, to_json
    from brainseg.ui.wire import study_pack

    for crop in (False, True):
        Preprocess(size=64, crop=crop).apply(study)
    study_pack(study)
    if study.slices.nbytes > 2**22:
        return  # drawing is as slow as a picture is large; reading has been tried
    probability = np.random.default_rng(0).random(study.shape, np.float32)
    finding = find(Prediction("[/x] model", "unet", study.case_id, probability, 0.5, "largest"))
    figures = report(study, [measure(study, finding)])
    to_json(figures)
    to_csv(figures)
    masks_zip(study, [finding], "tif")
    overlays_zip(study, [finding])


# --- cards, tensors and recipes ----------------------------------------------------------------------------


_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 16, 0.5, -0.5, 1e-300, 1e300, float("nan"), float("inf"), 2**31, 2**63),
    *(
        10**30,
        10**400,
        "",
        "x",
        "[/x]",
        "[red]x",
        "a/b",
        "..",
        "\x1b[2J",
        "\ud800",
        "é" * 5,
        "x" * 2000,
        "unet",
    ),
    *("unetpp", "attention_unet", "group", "batch", "all", "largest", [], [1], ["P"], [["P"]], {}, {"a": 1}),
    {"a": {"b": [{"c": None}]}},
)


def _changed_value(dice: random.Random, raw: Any) -> Any:
    """A value of a JSON tree replaced, removed, added or repeated."""
    if isinstance(raw, dict) and raw and dice.random() < 0.9:
        key = dice.choice(list(raw))
        way = dice.randrange(8)
        if way == 0:
            return {k: v for k, v in raw.items() if k != key}
        if way == 1:
            return raw | {dice.choice(("colour", "[/x]", "\n", "thresold", "x" * 5000)): dice.choice(_VALUES)}
        return raw | {key: _changed_value(dice, raw[key])}
    if isinstance(raw, list) and raw and dice.random() < 0.7:
        at = dice.randrange(len(raw))
        return [*raw[:at], _changed_value(dice, raw[at]), *raw[at + 1 :]]
    if dice.random() < 0.05:
        deep: Any = 1
        for _ in range(dice.choice((5, 50, 500))):
            deep = {"a": deep} if dice.random() < 0.5 else [deep]
        return deep
    return dice.choice(_VALUES)


@functools.cache
def weights() -> dict[str, tuple[dict[str, Any], bytes]]:
    """Small random weights of all four networks: card and tensors."""
    import torch

    from brainseg.checkpoint import CONFIG, TENSORS, save
    from brainseg.models import ARCHITECTURES, build
    from brainseg.types import ModelSpec, WeightsCard

    found = {}
    metrics = {"protocol": "none", "dice_mean": 0.5, "cases": 1, "patients": {"P": {"dice": 0.5}}}
    for name in ARCHITECTURES:
        torch.manual_seed(0)
        spec = ModelSpec(name, width=4)
        card = WeightsCard(
            name, spec, {"size": 32}, 0.5, "all", "", "cc0-1.0", ("P",), ("Q",), metrics, "0", "", 1.5
        )
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), build(spec), card)
            raw = json.loads(Path(folder, CONFIG).read_bytes())
            found[name] = (raw, Path(folder, TENSORS).read_bytes())
    return found


def _run_card(dice: random.Random) -> tuple[str, Callable[[], object]]:
    what = dice.choice(("card", "card", "tensors", "recipe"))
    if what == "recipe":
        return what, _recipe(dice)
    raw, tensors = weights()[dice.choice(list(weights()))]
    config = json.dumps(raw).encode()
    if what == "tensors":
        tensors = _changed_tensors(dice, tensors)
        config = json.dumps(raw | {"sha256": hashlib.sha256(tensors).hexdigest()}).encode()
    elif dice.random() < 0.2:
        config = _changed_bytes(dice, config)
    else:
        changed = raw
        for _ in range(dice.choice((1, 1, 2))):
            changed = _changed_value(dice, changed)
        with _endless_digits():
            config = json.dumps(changed).encode()
    by_command = dice.random() < 0.5
    return what, lambda: _load(config, tensors, by_command)


@contextlib.contextmanager
def _endless_digits() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def _changed_tensors(dice: random.Random, data: bytes) -> bytes:
    import safetensors.torch
    import torch

    if dice.random() < 0.4:
        return _changed_bytes(dice, data)
    state = safetensors.torch.load(data)
    for _ in range(dice.choice((1, 1, 3))):
        key = dice.choice(list(state))
        value = state[key]
        way = dice.randrange(6)
        if way == 0 and value.is_floating_point():
            state[key] = torch.full_like(value, dice.choice((float("nan"), float("inf"), -1.0, 6e4, 0.0)))
        elif way == 1:
            dtypes = (
                torch.float64,
                torch.bfloat16,
                torch.int64,
                torch.bool,
                torch.complex64,
                torch.float8_e5m2,
            )
            state[key] = value.to(torch.float32).to(dice.choice(dtypes))
        elif way == 2:
            state[key] = value.reshape(-1)
        elif way == 3:
            del state[key]
        elif way == 4:
            state[dice.choice(("[/x]", "", "extra", "\n"))] = value.clone()
        elif value.is_floating_point():
            state[key] = (value.double() * 10.0 ** dice.choice((30, 200, -300))).contiguous()
    return safetensors.torch.save(state)


def _load(config: bytes, tensors: bytes, by_command: bool) -> None:
    from brainseg.checkpoint import CONFIG, TENSORS, load
    from brainseg.inference import Predictor

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, CONFIG).write_bytes(config)
        Path(folder, TENSORS).write_bytes(tensors)
        model = load(folder)
        if by_command:
            _predict_by_command(folder)
        else:
            study = _study()
            prediction = Predictor(model, "cpu").predict(study)
            assert prediction.probability.shape == study.shape


@functools.cache
def _study() -> Study:
    from brainseg.io import NamedBytes, find_cases, read_case

    (case,) = find_cases([NamedBytes(f"P_{n}.tif", samples()[0]) for n in (1, 2)])
    return read_case(case)


def _predict_by_command(weights_folder: str) -> None:
    """By the command line, as tables there hold the card's name."""
    from brainseg.cli import main

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "[x] P_1.tif").write_bytes(samples()[0])
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(["predict", folder, "--model", weights_folder, "--device", "cpu"])
            except SystemExit as stop:
                if stop.code:
                    said = err.getvalue().removeprefix("error: ").strip()
                    raise (BrainsegError if stop.code == 2 else RuntimeError)(said) from None


_RECIPE = """
name = "fuzz"
seed = 3
[model]
architecture = "unetpp"
width = 16
norm = "group"
[preprocess]
size = 64
low = 0.5
[data]
fold = 1
tumour_fraction = 0.5
[augment]
rotate = 10
[loss]
name = "tversky"
alpha = 0.3
[optim]
lr = 0.002
schedule = "cosine"
[[stages]]
size = 64
epochs = 2
batch = 4
"""
_TOML = (
    *("0", "-1", "1", "1e400", "nan", "inf", "true", '""', '"x"', "[]", "[1]", "{}", "{a = 1}", "2020-01-01"),
    *("07:32:00", "9" * 30, "9" * 5000, "0x" + "f" * 5000, "[" * 3000 + "]" * 3000, '"\\u001b[2J"', '"[/x]"'),
    *(
        "{a.b.c = 1}",
        "'" * 3,
        '"""',
        "1_000",
        "0b" + "1" * 9000,
        "-9223372036854775809",
        '"' + "x" * 5000 + '"',
    ),
    "[" + "[" * 90 + "]" * 90 + "]",
)
_OVERRIDES = ("optim.lr=", "seed=", "stages=", "model=", "a.b.c=", "", "name=", "[/x]=", "x" * 3000 + "=")


def _recipe(dice: random.Random) -> Callable[[], object]:
    lines = _RECIPE.splitlines()
    for _ in range(dice.choice((0, 1, 1, 2))):
        at = dice.randrange(len(lines))
        if "=" in lines[at]:
            lines[at] = lines[at].partition("=")[0] + "= " + dice.choice(_TOML)
        elif dice.random() < 0.5:
            lines.insert(
                at, f"{dice.choice(('sise', 'name', 'a.b', '[x]', '[[x]]', 'é'))} = {dice.choice(_TOML)}"
            )
    data = "\n".join(lines).encode()
    if dice.random() < 0.3:
        data = _changed_bytes(dice, data)
    overrides = [dice.choice(_OVERRIDES) + dice.choice(_TOML) for _ in range(dice.choice((0, 0, 1, 2)))]

    def read() -> None:
        from brainseg.training.config import read_recipe

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "recipe.toml")
            path.write_bytes(data)
            read_recipe(path, overrides)

    return read


# --- one case, a child, the whole --------------------------------------------------------------------------


def run_one(kind: Kind, seed: int, number: int) -> Outcome:
    """Make case `number` of a kind from the seed, run it in this process, and say how it ended."""
    dice = random.Random(f"{seed}/{kind}/{number}")
    what, run = _run_input(dice) if kind == "input" else _run_card(dice)
    _reset_peak()
    started = time.process_time()
    end, detail = "accepted", ""
    try:
        run()
    except BrainsegError as error:
        sentence = str(error)
        fine = sentence.isprintable() and 10 < len(sentence) <= LONGEST_SENTENCE
        end, detail = "refused" if fine else "sentence", sentence[:LONGEST_SENTENCE]
    except Exception:
        end, detail = "traceback", traceback.format_exc()
    seconds, peak = time.process_time() - started, _peak_mb()
    if end in ("accepted", "refused"):
        end = "slow" if seconds > SECONDS else "memory" if peak > PEAK_MB else end
    return Outcome(what, end, detail, round(seconds, 3), round(peak, 1))


def _reset_peak() -> None:
    # Linux alone; elsewhere the peak is that of all cases of a child so far.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    if resource is None:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _child(kind: Kind, seed: int, first: int, last: int) -> None:
    """Run cases one after the other, a line of JSON each; the parent watches."""
    if resource is not None:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_GB * 2**30, LIMIT_GB * 2**30))
    # Libraries print where they like; the lines for the parent keep a descriptor of their own.
    lines = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if kind == "card":
        import torch

        torch.set_num_threads(1)
        weights()
    for number in range(first, last):
        print(json.dumps({"number": number}), file=lines, flush=True)
        print(json.dumps({"number": number, **asdict(run_one(kind, seed, number))}), file=lines, flush=True)


def _run(kind: Kind, seed: int, first: int, last: int) -> Iterator[tuple[int, Outcome]]:
    """Outcomes of the cases in children: a new one after each that died or was killed."""
    while first < last:
        command = [sys.executable, __file__, "--seed", str(seed), "--child", f"{kind}:{first}:{last}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            begun = first
            # The first case waits for the imports.
            watch = _watch(child, PATIENCE * 3)
            for line in child.stdout:
                watch.cancel()
                watch = _watch(child, PATIENCE)
                found = json.loads(line)
                begun = found.pop("number")
                if found:
                    yield begun, Outcome(**found)
                    first = begun + 1
            watch.cancel()
            code = child.wait()
        if first < last:
            end = "hang" if code == -9 else "died"
            yield begun, Outcome("unknown", end, f"the process ended with {code}")
            first = begun + 1


def _watch(child: subprocess.Popen[str], seconds: float) -> threading.Timer:
    watch = threading.Timer(seconds, child.kill)
    watch.daemon = True
    watch.start()
    return watch


def main(
    seed: Annotated[int, typer.Option(help="The same seed makes the same cases.")] = 0,
    inputs: Annotated[int, typer.Option(help="Uploads, folders and zips.")] = 10_000,
    cards: Annotated[int, typer.Option(help="Cards, tensors and recipes.")] = 1_000,
    only: Annotated[str, typer.Option(help="One case, here and now: input:12 or card:12.")] = "",
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Run the cases and report every fault with what repeats it."""
    if child:
        part, first, last = child.split(":")
        _child(_kind(part), seed, int(first), int(last))
        return
    if only:
        part, _, which = only.partition(":")
        outcome = run_one(_kind(part), seed, int(which))
        print(json.dumps(asdict(outcome), indent=2).replace("\\n", "\n"))
        raise typer.Exit(int(outcome.is_fault))
    faults: list[dict[str, Any]] = []
    ends: dict[str, Counter[str]] = {}
    slowest = largest = 0.0
    for kind, count in zip(KINDS, (inputs, cards), strict=True):
        for number, outcome in _run(kind, seed, 0, count):
            ends.setdefault(f"{kind}: {outcome.what}", Counter())[outcome.end] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.peak_mb)
            if outcome.is_fault:
                repeat = f"--seed {seed} --only {kind}:{number}"
                faults.append({"repeat": repeat, **asdict(outcome)})
                print(f"{outcome.end}: {repeat}\n{outcome.detail[-1500:]}", flush=True)
    summary = {
        "brainseg": __version__,
        "seed": seed,
        "inputs": inputs,
        "cards": cards,
        "ends": {what: dict(sorted(found.items())) for what, found in sorted(ends.items())},
        "slowest_seconds": round(slowest, 1),
        "largest_peak_mb": round(largest),
        "faults": faults,
    }
    RESULTS.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(
        f"{len(faults)} faults in {inputs:,} inputs and {cards:,} cards; slowest {slowest:.1f} s of processor"
        f" time, largest peak {largest:.0f} MB; {RESULTS}"
    )
    raise typer.Exit(int(bool(faults)))


def _kind(text: str) -> Kind:
    for kind in KINDS:
        if kind == text:
            return kind
    raise typer.BadParameter(f"{text} is neither input nor card")


if __name__ == "__main__":
    typer.run(main)
