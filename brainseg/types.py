"""What passes between the parts of brainseg: frozen dataclasses over numpy arrays.

Axis letters used everywhere: S slices, H rows, W columns. Nothing here imports more than numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

CHANNELS = ("pre", "flair", "post")
"""Channel order of every study: T1 before contrast, FLAIR, T1 after contrast."""

RESEARCH_USE = "Research use only, not a medical device."

Affine = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]
FileRole = Literal["slice", "mask", "ignored"]
VolumeFormat = Literal["nifti", "dicom", "metaimage", "nrrd"]
Keep = Literal["all", "largest"]
Say = Callable[[str, int, int], None]
"""Told in a sentence what is being done, how much of it is done, and how much there is."""

# World axis that a letter of an orientation lies on, and whether it is its positive end in RAS+.
_WORLD_AXES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
_SIGNS = {"R": 1, "L": -1, "A": 1, "P": -1, "S": 1, "I": -1}


class BrainsegError(Exception):
    """Anything the user can mend; the message is one sentence naming the file and the remedy."""


class InputError(BrainsegError):
    """The files given cannot be read as one patient's study."""


class WeightsError(BrainsegError):
    """A weights folder is missing, damaged or made for another network."""


class Cancelled(BrainsegError):  # noqa: N818 - an outcome the user chose, not an error
    """The user stopped a prediction before it ended."""


@dataclass(frozen=True)
class SourceFile:
    """One file the user gave, what it was taken as, and why."""

    name: str
    role: FileRole
    note: str = ""


@dataclass(frozen=True)
class Source:
    """Where a study came from.

    Attributes:
        format: what the files were, for instance ``"lgg-tiff"``, ``"png"``.
        files: every file given, each with its role, in the order the study uses.
        sha256: digest over the names and contents of the files used.
    """

    format: str
    files: tuple[SourceFile, ...]
    sha256: str


@dataclass(frozen=True, eq=False)
class Origin:
    """The grid that a study's FLAIR had in its files, and what a writer needs to answer in their format.

    Attributes:
        affine: (4, 4) from (slice, row, column, 1) of the files' own voxel order to millimetres in RAS+.
        shape: (S, H, W) in that order. NIfTI's, MetaImage's and NRRD's arrays (i, j, k) count columns, rows
            and slices, so theirs is (k, j, i).
        format: of the FLAIR's file.
        headers: known to that format's writer alone. NIfTI: the nibabel header as read. DICOM: one Dataset
            without pixels a slice, in the order of `shape`; of an enhanced multi-frame file the one there is.
            MetaImage, NRRD: none, `affine` says all.
    """

    affine: Affine
    shape: tuple[int, int, int]
    format: VolumeFormat
    headers: tuple[Any, ...] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class Study:
    """One patient's volume.

    Attributes:
        slices: (S, H, W, 3), any real dtype as read, channels in the order of `CHANNELS`.
        case_id: the patient as the files name it.
        source: which files were taken as what.
        slice_numbers: S numbers, as the files number the slices, ascending.
        reference: (S, H, W) bool, the supplied mask, or None.
        spacing_mm: between slices, between rows, between columns, in mm; None when unknown.
        orientation: anatomical axes, for instance ``"LPS"``; None when unknown.
        notes: what was assumed while reading, in sentences for the user.
        affine: (4, 4) from (slice, row, column, 1) of `slices` to millimetres in RAS+; None when unknown.
            Slices are then axial, in the order of `brainseg.grid.to_axial`. Without an orientation it is
            right in sizes alone.
        origin: the grid that results go back to; None where the files knew no space.

    Raises:
        ValueError: if the arrays do not fit together, or spacing and orientation do not fit the affine.
    """

    slices: npt.NDArray[Any]
    case_id: str
    source: Source
    slice_numbers: tuple[int, ...]
    reference: BoolArray | None = None
    spacing_mm: Spacing | None = None
    orientation: str | None = None
    notes: tuple[str, ...] = ()
    affine: Affine | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if self.slices.ndim != 4 or self.slices.shape[-1] != len(CHANNELS):
            raise ValueError(f"slices must be (S, H, W, 3), not {self.slices.shape}")
        if len(self.slice_numbers) != self.slices.shape[0]:
            raise ValueError(f"{len(self.slice_numbers)} numbers for {self.slices.shape[0]} slices")
        if self.reference is not None:
            if self.reference.shape != self.shape:
                raise ValueError(f"reference is {self.reference.shape}, slices are {self.shape}")
            if self.reference.dtype != np.bool_:
                raise ValueError(f"reference must be bool, not {self.reference.dtype}")
        if self.affine is not None:
            self._check_affine(self.affine)
        elif self.origin is not None:
            raise ValueError("an origin needs the affine of the slices")

    def _check_affine(self, affine: Affine) -> None:
        if affine.shape != (4, 4):
            raise ValueError(f"the affine must be (4, 4), not {affine.shape}")
        steps = affine[:3, :3]
        if self.spacing_mm is None or not np.allclose(np.linalg.norm(steps, axis=0), self.spacing_mm):
            raise ValueError(f"a spacing of {self.spacing_mm} does not fit the affine")
        if self.orientation is None:  # sizes may be known without sides
            return
        # Letters name the directions of columns, rows and slices; each axis must point that way at all.
        letters = self.orientation[::-1]
        if len(letters) != 3 or any(
            steps[_WORLD_AXES[letter], axis] * _SIGNS[letter] < 0 for axis, letter in enumerate(letters)
        ):
            raise ValueError(f"an orientation of {self.orientation} does not fit the affine")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, H, W)."""
        s, h, w, _ = self.slices.shape
        return s, h, w


class Box(NamedTuple):
    """A rectangle in slice pixels; it may reach over the edges of the slice."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Letterbox:
    """How a study's slices became network input, enough to undo it.

    The `box` of a slice of `original` (H, W), zeros where it reaches over the edges, was resized to `scaled`,
    then padded at the bottom and right to `padded`.
    """

    original: tuple[int, int]
    box: Box
    scaled: tuple[int, int]
    padded: tuple[int, int]


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The coefficients of one attention gate over a whole study.

    Attributes:
        gate: the gate's name inside the network, for instance ``"x1_3.skip0"``.
        level: resolution level of the gated skip, 0 the finest.
        coefficients: (S, h, w) float16 in 0..1 on the gate's own grid, which covers `letterbox.padded`.
        letterbox: how that grid lies over the slices.
    """

    gate: str
    level: int
    coefficients: npt.NDArray[np.float16]
    letterbox: Letterbox


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one network found in one study.

    Attributes:
        model: name of the weights, for instance ``"attention_unet"``.
        architecture: key into `brainseg.models.ARCHITECTURES`.
        case_id: the study's.
        probability: (S, H, W) float32 in 0..1 on the original grid of the study.
        threshold: operating point stored with the weights; a voxel is tumour at or above it.
        keep: which connected components of the thresholded mask count, as stored with the weights.
        attention: one map a gate, finest level first; empty for networks without gates.
        seconds: wall-clock time of the networks' work.
        weights_sha256: digest of the weights file used.
        seen_in_training: the patient is among those the weights were trained on.
        tta: probabilities are the mean over flips.
    """

    model: str
    architecture: str
    case_id: str
    probability: FloatArray
    threshold: float
    keep: Keep
    attention: tuple[AttentionMap, ...] = ()
    seconds: float = 0.0
    weights_sha256: str = ""
    seen_in_training: bool = False
    tta: bool = False


@dataclass(frozen=True)
class Undefined:
    """A figure that cannot be computed, and why; shown as "not computable: reason"."""

    reason: str

    def __str__(self) -> str:
        return f"not computable: {self.reason}"


Figure = float | Undefined


@dataclass(frozen=True)
class Metrics:
    """Agreement of one mask with a reference over one volume or one slice.

    `hd95` and `assd` are in mm when the spacing is known, in voxels otherwise (`hd95_unit`).
    """

    dice: Figure
    iou: Figure
    sensitivity: Figure
    precision: Figure
    hd95: Figure
    assd: Figure
    hd95_unit: Literal["mm", "voxels"]
    tumour_voxels: int
    reference_voxels: int


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build a network and to use it as it was trained.

    Attributes:
        architecture: key into `brainseg.models.ARCHITECTURES`.
        width: channels of the finest level; level k has ``width * 2**k``.
        norm: ``"batch"`` or ``"group"`` (16 groups).
        dropout: probability of dropping a channel after each block, in training.
        gate_norm: the gates normalise their one channel before the sigmoid; of no matter without gates.
    """

    architecture: str
    width: int = 32
    norm: Literal["batch", "group"] = "batch"
    dropout: float = 0.0
    gate_norm: bool = False


@dataclass(frozen=True)
class WeightsCard:
    """What a weights folder says of itself (config.json).

    Attributes:
        name: of the weights, the folder's name.
        spec: the network.
        preprocess: fields of `brainseg.preprocess.Preprocess`.
        threshold: operating point, chosen on validation patients.
        keep: post-processing, chosen on validation patients.
        temperature: logits are divided by it before the sigmoid; fitted on validation patients.
        sha256: of model.safetensors.
        licence: SPDX-like identifier of the weights' licence.
        training_patients: IDs the weights were fitted on.
        validation_patients: IDs that chose the epoch, threshold and post-processing.
        metrics: figures with their protocol, as `brainseg evaluate` prints them.
        version: of brainseg that wrote the folder.
        init: weights the training started from, as name@sha256, or empty for a random start.
    """

    name: str
    spec: ModelSpec
    preprocess: dict[str, Any]
    threshold: float
    keep: Keep
    sha256: str
    licence: str
    training_patients: tuple[str, ...] = ()
    validation_patients: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    init: str = ""
    temperature: float = 1.0
