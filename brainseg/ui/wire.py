"""What travels to the browser: one small binary format, packed here and unpacked in viewer/wire.js.

A message is a little-endian uint32 with the length of a JSON header, the header, then deflated blocks.
``header["blocks"]`` names each block with its shape, coding, start and size. Codings:

- ``plane``: uint8; every row and column holds the difference from its neighbour (modulo 256), which
  deflates as small as PNG does;
- ``bits``: bool, eight to a byte, first voxel in the highest bit;
- ``raw``: uint8 as it is.

Not PNG, because a browser can give its pixels back only through a canvas, and privacy settings of several
browsers add noise to what is read from one; a reader must see the values that were sent.

A *pack* holds what stays the same while someone works (images, probabilities, attention) and is sent once;
a *view* holds what a slider changes (masks, figures) and is small.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainseg.overlay import display_range, palette
from brainseg.types import CHANNELS, AttentionMap, BoolArray, FloatArray, Prediction, Study

Coding = Literal["plane", "bits", "raw"]
Box = tuple[int, int, int, int]
ByteArray = npt.NDArray[np.uint8]

# Above 1 nothing shrinks much and a slow machine waits four times as long.
DEFLATE_LEVEL = 1


@dataclass(frozen=True, eq=False)
class Block:
    """An array to send: (..., H, W) for ``plane``, any shape otherwise; bool for ``bits``, else uint8."""

    array: npt.NDArray[Any]
    coding: Coding

    def encode(self) -> bytes:
        if self.coding == "bits":
            return zlib.compress(np.packbits(self.array).tobytes(), DEFLATE_LEVEL)
        if self.coding == "raw":
            return zlib.compress(np.ascontiguousarray(self.array).tobytes(), DEFLATE_LEVEL)
        zero = np.uint8(0)
        steps = np.diff(np.diff(self.array, axis=-2, prepend=zero), axis=-1, prepend=zero)
        return zlib.compress(steps.tobytes(), DEFLATE_LEVEL)


@dataclass(frozen=True, eq=False)
class Grey:
    """One channel as grey levels the browser can window.

    Attributes:
        levels: (S, H, W) uint8.
        scale: intensity of one grey step, so that intensity = level * scale + offset.
        offset: intensity of level 0.
        window: levels first shown black and white.
    """

    levels: ByteArray
    scale: float
    offset: float
    window: tuple[float, float]


def grey(channel: npt.NDArray[Any]) -> Grey:
    """Grey levels of one channel (S, H, W) of any real dtype.

    8-bit intensities are sent as they are. Others are spread over 0..255 so that the display window
    fills the middle half and a reader can still widen it.
    """
    low, high = display_range(channel)
    if channel.dtype == np.uint8:
        return Grey(channel, 1.0, 0.0, (low, high))
    scale = (high - low) / 128
    offset = low - 64 * scale
    values = np.nan_to_num(channel.astype(np.float64), nan=offset, posinf=np.inf, neginf=-np.inf)
    levels = np.rint(np.clip((values - offset) / scale, 0, 255)).astype(np.uint8)
    return Grey(levels, scale, offset, (64.0, 192.0))


def box_of(mask: BoolArray) -> Box | None:
    """Top, left, bottom, right of what (..., H, W) marks anywhere; None if it marks nothing."""
    flat = np.any(mask.reshape(-1, *mask.shape[-2:]), axis=0)
    rows, columns = np.flatnonzero(np.any(flat, axis=1)), np.flatnonzero(np.any(flat, axis=0))
    if not rows.size:
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def head_box(channels: Sequence[ByteArray]) -> Box | None:
    """Where the head lies in grey levels (S, H, W), with a small margin; None for an empty volume."""
    brightest = np.max([channel.max(axis=0) for channel in channels], axis=0)
    head = brightest > np.percentile(brightest, 99) * 0.15
    # Rows and columns of a few bright pixels are noise, not head.
    rows, columns = head.sum(axis=1) > 0.02 * head.shape[1], head.sum(axis=0) > 0.02 * head.shape[0]
    box = box_of(rows[:, None] & columns)
    if box is None:
        return None
    margin = round(0.02 * max(head.shape))
    top, left, bottom, right = box
    height, width = head.shape
    return (
        max(0, top - margin),
        max(0, left - margin),
        min(height, bottom + margin),
        min(width, right + margin),
    )


def message(header: Mapping[str, Any], blocks: Mapping[str, Block]) -> bytes:
    """Header and blocks as one run of bytes."""
    index: dict[str, dict[str, Any]] = {}
    body = bytearray()
    for name, block in blocks.items():
        data = block.encode()
        index[name] = {
            "shape": list(block.array.shape),
            "coding": block.coding,
            "start": len(body),
            "size": len(data),
        }
        body += data
    text = json.dumps({**header, "blocks": index}, allow_nan=False, separators=(",", ":")).encode()
    return struct.pack("<I", len(text)) + text + bytes(body)


def study_pack(study: Study) -> bytes:
    """The three channels, the reference and the colour maps: everything before any network has run."""
    blocks: dict[str, Block] = {}
    channels = []
    for i, name in enumerate(CHANNELS):
        channel = grey(study.slices[..., i])
        blocks[name] = Block(channel.levels, "plane")
        channels.append(
            {"name": name, "scale": channel.scale, "offset": channel.offset, "window": channel.window}
        )
    if study.reference is not None:
        blocks["reference"] = Block(study.reference, "bits")
    head = head_box([blocks[name].array for name in CHANNELS])
    blocks["viridis"] = Block(palette("viridis"), "raw")
    blocks["magma"] = Block(palette("magma"), "raw")
    return message({"kind": "pack", "id": study.source.sha256, "channels": channels, "head": head}, blocks)


def prediction_pack(prediction: Prediction, pack_id: str) -> bytes:
    """The probability of one network, in steps of 1/255."""
    header = {"kind": "pack", "id": pack_id}
    return message(header, {"probability": Block(_to_bytes(prediction.probability), "plane")})


def attention_id(pack_id: str, gate: str) -> str:
    """Name under which one gate's coefficients are sent, given that of the prediction's pack."""
    return f"{pack_id}/{gate}"


def grid_of(attention: AttentionMap) -> tuple[float, float, float, float]:
    """What a gate's own grid covers, padding included: top, left, height and width in slice pixels.

    It reaches over the edges of the slice where the letterbox's box or its padding does.
    """
    letterbox = attention.letterbox
    top, left, height, width = letterbox.box
    (padded_height, padded_width), (scaled_height, scaled_width) = letterbox.padded, letterbox.scaled
    return top, left, padded_height * height / scaled_height, padded_width * width / scaled_width


def attention_pack(attention: AttentionMap, pack_id: str) -> bytes:
    """One gate's coefficients on the gate's own grid, in steps of 1/255; ``grid`` is `grid_of` it.

    The browser draws it unsmoothed, so a coarse gate looks as coarse as it is.
    """
    header = {"kind": "pack", "id": attention_id(pack_id, attention.gate), "grid": grid_of(attention)}
    return message(header, {"attention": Block(_to_bytes(attention.coefficients), "plane")})


def _to_bytes(values: FloatArray | npt.NDArray[np.float16]) -> ByteArray:
    return np.rint(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
