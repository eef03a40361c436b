"""A synthetic patient in the layout of the LGG data set: real anatomy, invented head, invented tumour.

The anatomy is the ICBM 2009a symmetric average of 152 brains (Fonov et al., NeuroImage 47 S102, 2009, doi
10.1016/S1053-8119(09)70884-5; Fonov et al., NeuroImage 54:313, 2011, doi 10.1016/j.neuroimage.2010.07.033),
read from the copies that nilearn ships, so no network is needed. The average has no skull, no eyes and
softened sulci; those, the three contrasts, the scanner's blur, shading and noise, and the lesion are
simulated here from one seed. It is nobody's brain and proves nothing about accuracy: it is there to try the
program on.

    python benchmarks/phantom.py brainseg/sample/synthetic_glioma    # makes the sample of the package again

Needs the `test` extra.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from skimage.morphology import convex_hull_image

from brainseg.types import BoolArray, FloatArray, Source, SourceFile, Study

CASE_ID = "SYNTHETIC_0001"
SIZE = 256
SLICES = 28
SPACING_MM = (5.0, 0.9375, 0.9375)
"""Between slices, rows, columns: a 240 mm field of view."""

# ICBM152 brains are larger than life, about a tenth in length; slices are laid out in millimetres of a head.
_LIFE_SIZE = 0.92
_LOWEST_MM = -50.0
# Two thin planes a slice stand for its thickness: edges that slope through a slice come out soft, as scanned.
_PLANES_MM = (-1.25, 1.25)
_GRID_MM = 2.0

# Grey levels of pre, FLAIR and post, near those of the LGG slices; noise and shading come on top.
_LEVELS: dict[str, tuple[float, float, float]] = {
    "white": (66, 56, 68),
    "grey": (55, 67, 60),
    "csf": (22, 17, 24),
    "muscle": (50, 46, 66),
    "fat": (150, 138, 126),
    "bone": (10, 9, 11),
    "marrow": (58, 46, 54),
    "air": (1, 1, 1),
    "globe": (24, 18, 27),
    "vessel": (24, 24, 122),
    "choroid": (40, 48, 104),
    "lesion": (45, 112, 48),
}

# Centres in white matter (x to the right, y forward, z up, ICBM152 mm) and half-axes in mm.
_SITES: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = (
    ((30.0, 28.0, 22.0), (17.0, 23.0, 17.0)),
    ((-44.0, -14.0, -16.0), (14.0, 22.0, 14.0)),
    ((32.0, -42.0, 34.0), (17.0, 20.0, 16.0)),
    ((-28.0, 30.0, 24.0), (16.0, 22.0, 18.0)),
)


def make_phantom(seed: int = 0, case_id: str = CASE_ID) -> Study:
    """Make one synthetic patient with a low-grade-glioma-like lesion.

    Args:
        seed: decides pose, folding, noise and the lesion's shape; the lesion's site is ``seed % 4`` of right
            frontal, left temporal, right parietal, left frontal. The same seed and library versions give the
            same bytes.
        case_id: names the study and its files.

    Returns:
        A study of slices (28, 256, 256, 3) uint8 in channel order pre, FLAIR, post, from below upwards,
        patient right on screen left and front at the top; reference (28, 256, 256) bool; spacing in mm;
        orientation "LPS": columns run to the patient's left, rows to the back, slices upwards.

    Raises:
        ImportError: without nilearn, which the extra ``train`` installs.
    """
    rng = np.random.default_rng(seed)
    template = _template()
    inner, head = _head_distances(template[0] > 0)
    points = _pose(rng, _scanner_points())

    # Everything below works on the points inside the head alone, a third of all.
    # The margin leaves room for the bending.
    inside = _sample_grid(head, points) > -9
    centre, radii = _SITES[seed % len(_SITES)]
    p = _bend(rng, points[:, inside], 2.0, 75)
    layers = _outside(rng, p, _sample_grid(inner, p), _sample_grid(head, p))
    p = _mass_effect(_bend(rng, p, 1.3, 24), centre, radii)
    tissue = _tissues(rng, p, template, _sample_grid(inner, p), layers)
    lesion = _lesion(rng, p, tissue, centre, radii)
    signal = _contrast(rng, p, tissue, lesion)

    planes = np.zeros((3, inside.size), np.float32)
    planes[:, inside] = signal
    shape = (SLICES, len(_PLANES_MM), SIZE, SIZE)
    slices = _scan(rng, planes.reshape(3, *shape).mean(2))

    share = np.zeros(inside.size, np.float32)
    share[inside] = lesion * (tissue["brain"] > 0.5)
    reference = _clean(share.reshape(shape).mean(1) >= 0.5)

    digest = hashlib.sha256(slices.tobytes() + reference.tobytes()).hexdigest()
    files: list[SourceFile] = []
    for n in range(1, SLICES + 1):
        files += [SourceFile(f"{case_id}_{n}.tif", "slice"), SourceFile(f"{case_id}_{n}_mask.tif", "mask")]
    return Study(
        slices=slices,
        case_id=case_id,
        source=Source("synthetic", tuple(files), digest),
        slice_numbers=tuple(range(1, SLICES + 1)),
        reference=reference,
        spacing_mm=SPACING_MM,
        orientation="LPS",
        notes=("Synthetic: made by benchmarks/phantom.py from the ICBM152 average brain; not a patient.",),
    )


def write_lgg(study: Study, folder: str | Path) -> None:
    """Write a study as the LGG data set lays out a patient.

    `folder` gets ``<case>_<n>.tif``, (H, W, 3) uint8, and ``<case>_<n>_mask.tif``, (H, W) uint8 of 0 and
    255, for every slice number n; both deflated, without loss. That layout has no place for spacing and
    orientation.

    Raises:
        ValueError: if the slices are not uint8 or the study has no reference.
    """
    if study.slices.dtype != np.uint8 or study.reference is None:
        raise ValueError("the LGG layout holds uint8 slices, each with a mask")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for n, image, mask in zip(study.slice_numbers, study.slices, study.reference, strict=True):
        stem = folder / f"{study.case_id}_{n}"
        Image.fromarray(image).save(f"{stem}.tif", compression="tiff_adobe_deflate")
        Image.fromarray(mask.astype(np.uint8) * 255).save(
            f"{stem}_mask.tif", compression="tiff_adobe_deflate"
        )


def _template() -> tuple[FloatArray, FloatArray, FloatArray]:
    """T1, grey and white matter, (197, 233, 189) float32 in 0..1, 1 mm, axes right, front, up."""
    from nilearn import datasets  # noqa: PLC0415 - not a runtime dependency

    t1, grey, white = (
        np.asarray(load(resolution=1).dataobj, np.float32)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    )
    return t1, grey, white


_TEMPLATE_ORIGIN = np.array([-98.0, -134.0, -72.0], np.float32)
# Room around the template for scalp and nose, in cells of the coarse grid.
_PAD = ((10, 10), (10, 16), (0, 0))
_GRID_ORIGIN = _TEMPLATE_ORIGIN - _GRID_MM * np.array([lo for lo, _ in _PAD], np.float32)


def _head_distances(brain: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Signed distances in mm on the coarse grid: outwards from the inner skull, inwards from the skin."""

    def distance(mask: BoolArray) -> npt.NDArray[np.float64]:
        return _GRID_MM * np.asarray(ndimage.distance_transform_edt(mask), np.float64)

    brain = np.pad(brain[::2, ::2, ::2], _PAD)

    def close(mask: BoolArray, reach: float) -> BoolArray:
        return np.asarray(distance(distance(~mask) <= reach) > reach, np.bool_)

    closed = close(brain, 20)
    inner = distance(~closed) - distance(closed)
    # Muscle fills the hollows of the skull under the scalp, so the head is rounder than the brain.
    hull = np.zeros_like(brain)
    for k in np.flatnonzero(brain.any((0, 1))):
        hull[:, :, k] = convex_hull_image(brain[:, :, k])
    head = _blur(distance(~hull) - distance(hull), 5.0) < 13
    level = int((-16.0 - _GRID_ORIGIN[2]) / _GRID_MM)
    for below in range(1, level + 1):
        # The face hangs from the forehead: each plane keeps the outline above it, drawn in a little.
        outline = head[:, :, level - below + 1]
        head[:, :, level - below] |= ndimage.binary_erosion(outline) if below % 4 == 0 else outline
    axes = (_GRID_ORIGIN[i] + _GRID_MM * np.arange(head.shape[i]) for i in range(3))
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    head |= (x / 14) ** 2 + ((y - 86) / 17) ** 2 + ((z + 56) / 26) ** 2 < 1
    skin = distance(head) - distance(~head)
    return _blur(inner, 1.0), _blur(skin, 1.2)


def _scanner_points() -> FloatArray:
    """(3, SLICES * planes * SIZE * SIZE) positions in mm of a head, axes right, front, up."""
    middle = (SIZE - 1) / 2
    z = (_LOWEST_MM + SPACING_MM[0] * np.arange(SLICES))[:, None] + np.array(_PLANES_MM)
    y = (middle - np.arange(SIZE)) * SPACING_MM[1] - 13
    x = (middle - np.arange(SIZE)) * SPACING_MM[2]
    zz, yy, xx = np.meshgrid(z.ravel(), y, x, indexing="ij")
    return np.stack([xx.ravel(), yy.ravel(), zz.ravel()]).astype(np.float32)


def _pose(rng: np.random.Generator, points: FloatArray) -> FloatArray:
    """Tilt the head a few degrees, as no head lies straight, and go over to template millimetres."""
    roll, pitch, yaw = np.deg2rad(np.array([1.5, 4.0, 0.0]) + rng.uniform(-2, 2, 3))
    (cr, sr), (cp, sp), (cy, sy) = ((np.cos(a), np.sin(a)) for a in (roll, pitch, yaw))
    turn = (
        np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    )
    return np.asarray((turn / _LIFE_SIZE) @ points, np.float32)


def _bend(rng: np.random.Generator, p: FloatArray, by_mm: float, over_mm: float) -> FloatArray:
    """Bend the average, a mirror image of itself, into somebody: every axis by about `by_mm`."""
    return np.asarray(p + by_mm * np.stack([_noise(rng, p, over_mm) for _ in range(3)]), np.float32)


def _mass_effect(
    p: FloatArray, centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> FloatArray:
    """Push the surroundings away from the lesion."""
    away = p - np.array(centre, np.float32)[:, None]
    rho2 = ((away / np.array(radii, np.float32)[:, None]) ** 2).sum(0)
    return np.asarray(p - 0.2 * away * np.exp(-rho2 / 2), np.float32)


def _tissues(
    rng: np.random.Generator,
    p: FloatArray,
    template: tuple[FloatArray, FloatArray, FloatArray],
    inner: FloatArray,
    layers: dict[str, FloatArray],
) -> dict[str, FloatArray]:
    """Shares in 0..1 of the tissues at N points; all but "brain" are named as in `_LEVELS` and sum to 1.

    Args:
        p: (3, N) template mm.
        template: T1, grey and white matter.
        inner: (N,) mm outside the inner skull.
        layers: from `_outside`, seen where there is no brain.
    """
    at_t1, at_grey, at_white = (_sample_template(v, p) for v in template)
    brain = _step(_sample_template((template[0] > 0).astype(np.float32), p) - 0.5, 0.1)

    # Averaging 152 people closed the sulci: the T1 still dips there, and the dip is taken for fluid.
    fluid = np.maximum(1 - at_grey - at_white, np.clip((0.68 - at_t1) / 0.24, 0, 1))
    fluid = np.clip(fluid + 0.10 * _noise(rng, p, 7), 0, 1)
    # Folds of this one head: the zero surfaces of a smooth field are sheets, thin and curved like sulci.
    depth = np.clip(1 + inner / 16, 0, 1)
    sheet = np.exp(-((_noise(rng, p, 11) / 0.10) ** 2))
    fold = depth * np.clip(at_grey * 1.6, 0, 1) * sheet * (p[2] > -30)
    fluid = np.maximum(fluid, 0.9 * fold)
    shares = np.stack([at_white, at_grey, fluid]) + 1e-3
    shares = shares**2.8
    shares /= shares.sum(0)
    shares *= brain

    out = {name: share * (1 - brain) for name, share in layers.items()}
    out["white"], out["grey"] = shares[0], shares[1]
    out["csf"] = shares[2] + out.pop("csf")
    _add_vessels(rng, p, inner, out)
    return {"brain": brain, **out}


def _outside(
    rng: np.random.Generator, p: FloatArray, inner: FloatArray, skin: FloatArray
) -> dict[str, FloatArray]:
    """Shares of what lies between brain and air, and of the air, at N points."""
    wavy = _noise(rng, p, 22)
    fine = _noise(rng, p, 5)
    body = _step(skin, 0.35)
    scalp = _step(6.6 + 1.2 * wavy - skin, 0.5)
    fluid = _step(1.6 + 0.5 * wavy - inner, 0.4) * (1 - scalp)
    deep = _step(inner - 7.5, 0.8) * (1 - scalp) * _step(skin - 8, 1.0) * _step(2 - p[2], 3)
    skull = np.clip(1 - scalp - fluid - deep, 0, 1) * _step(7.6 + wavy - inner, 0.5)
    across = np.clip((inner - 1.6) / np.clip(inner + skin - 8.2, 1.5, 6), 0, 1)
    diploe = np.exp(-(((across - 0.5) / 0.2) ** 2)) * np.clip(0.65 + 0.3 * wavy, 0, 1)

    patches = _noise(rng, p, 9) + 0.4 * fine
    fat = _step(patches - 0.75, 0.15)
    air = _step(-0.55 - patches, 0.15)
    out = {
        "fat": scalp * _step(skin - 1.3, 0.4) * np.clip(0.93 + 0.10 * fine, 0, 1) + deep * fat * 0.7,
        "csf": fluid,
        "marrow": skull * diploe,
        "bone": skull * (1 - diploe) + deep * air * 0.5,
        "air": deep * air * 0.5,
    }
    out["muscle"] = np.clip(1 - sum(out.values()), 0, 1)

    out = _add_face(p, inner, scalp, fine, {name: np.asarray(v, np.float32) for name, v in out.items()})
    out = {name: np.asarray(share * body, np.float32) for name, share in out.items()}
    out["air"] += 1 - body
    return out


def _add_face(
    p: FloatArray, inner: FloatArray, scalp: FloatArray, fine: FloatArray, out: dict[str, FloatArray]
) -> dict[str, FloatArray]:
    """Shares `out` with nasal cavity, orbits and eyes put in wherever there is no scalp."""
    eye = np.hypot(np.hypot(np.abs(p[0]) - 32, p[1] - 58), p[2] + 38)
    back = np.clip((58 - p[1]) / 34, 0, 1)
    cone = np.hypot(np.abs(p[0]) - 32 + 16 * back, p[2] + 38 - 4 * back) + 10 * back
    orbit = _step(17 - eye, 0.7) + _step(15 - cone, 0.7) * _step(58 - p[1], 1) * _step(p[1] - 26, 1)
    orbit = np.clip(orbit, 0, 1) * _step(inner - 2.0, 0.5)
    nerve = _step(2.6 - np.abs(cone - 10 * back), 0.4) * _step(48 - p[1], 1)
    lids = _step(eye - 12.6, 0.3) * _step(14.2 - eye, 0.4)
    globe = _step(12.2 - eye, 0.4)
    nose = _step(11 - np.abs(p[0]), 0.8) * _step(-32 - p[2], 1) * _step(p[1] - 20, 1)
    nothing = np.zeros_like(eye)
    contents: tuple[tuple[FloatArray, dict[str, FloatArray]], ...] = (
        (nose, {"air": 0.75 * _step(fine + 0.5, 0.2), "bone": nothing + 0.25}),
        (orbit, {"fat": 0.9 * (1 - nerve) * (1 - lids), "globe": nothing}),
        (globe, {"globe": nothing + 1}),
    )
    for share, content in contents:
        region = share * (1 - scalp)
        content["muscle"] = np.clip(1 - sum(content.values(), nothing), 0, 1)
        out = {name: there * (1 - region) for name, there in out.items()}
        for name, part in content.items():
            out[name] = out.get(name, nothing) + region * part
    return out


def _add_vessels(
    rng: np.random.Generator, p: FloatArray, inner: FloatArray, out: dict[str, FloatArray]
) -> None:
    """Put the sagittal and transverse sinuses, pial vessels and choroid plexus into the shares `out`."""
    x, y, z = p
    rim = _step(inner + 1.5, 0.6) * _step(6.0 - inner, 0.6)
    width = 1.6 + 2.6 * np.clip((30 - y) / 90, 0, 1)
    sagittal = _step(width - np.abs(x) - 0.35 * np.clip(-inner, 0, 9), 0.5) * rim * _step(z + 12, 1)
    transverse = _step(4.0 - np.abs(z + 22), 0.8) * rim * (y < -55)
    # Two fields vanish together along curves, and a curve with a width is a vessel.
    tube = np.exp(-((_noise(rng, p, 13) ** 2 + _noise(rng, p, 13) ** 2) / 0.035))
    pial = tube * np.clip(1.5 * out["csf"], 0, 1) * _step(inner + 30, 3)
    plexus = _step(9 - np.hypot(np.hypot(np.abs(x) - 24, (y + 38) / 1.6), (z - 8) / 1.6), 1.0) * out["csf"]
    for name, share in (
        ("choroid", 0.7 * plexus),
        ("vessel", np.maximum(np.clip(sagittal + transverse, 0, 1), pial)),
    ):
        for other, there in out.items():
            out[other] = np.asarray(there * (1 - share), np.float32)
        out[name] = np.asarray(share, np.float32)


def _lesion(
    rng: np.random.Generator,
    p: FloatArray,
    tissue: dict[str, FloatArray],
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
) -> FloatArray:
    """(N,) share of lesion: an ellipsoid with a ragged rim that runs along white matter, spares fluid."""
    rho = np.sqrt((((p - np.array(centre)[:, None]) / np.array(radii)[:, None]) ** 2).sum(0))
    level = 1 - rho + 0.26 * _noise(rng, p, 20) + 0.08 * _noise(rng, p, 8) + 0.16 * (tissue["white"] - 0.6)
    return np.asarray(_step(level, 0.07), np.float32)


def _contrast(
    rng: np.random.Generator, p: FloatArray, tissue: dict[str, FloatArray], lesion: FloatArray
) -> FloatArray:
    """(3, N) noiseless grey levels of pre, FLAIR, post."""
    levels = {name: np.array(level, np.float32)[:, None] for name, level in _LEVELS.items()}
    signal = np.zeros((3, p.shape[1]), np.float32)
    for name, share in tissue.items():
        if name != "brain":
            signal += levels[name] * share
    mottle = _noise(rng, p, 6)
    signal *= 1 + 0.025 * mottle
    # Infiltrated tissue keeps a trace of what it was; fluid within the outline stays fluid.
    swap = 0.92 * lesion * np.clip(tissue["white"] + tissue["grey"], 0, 1)
    texture = 0.7 * _noise(rng, p, 11) + 0.5 * mottle
    swing = np.array([-4.0, 11.0, -4.5], np.float32)[:, None]
    return np.asarray(signal * (1 - swap) + (levels["lesion"] + swing * texture) * swap, np.float32)


def _scan(rng: np.random.Generator, volume: FloatArray) -> npt.NDArray[np.uint8]:
    """Shade, blur and add noise to (3, S, H, W) levels; returns (S, H, W, 3) uint8."""
    s, h, w = volume.shape[1:]
    z, y, x = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) for n in (s, h, w)), indexing="ij", sparse=True
    )
    out = np.empty((s, h, w, 3), np.uint8)
    for c, (blur, sigma) in enumerate(((0.45, 2.3), (0.6, 2.6), (0.45, 2.1))):
        a, b, d, e = rng.uniform(-0.06, 0.06, 4)
        # Receive coils sit around the head: the rim is brighter than the middle.
        shade = 1 + a * x + b * y + d * z + e * x * y + 0.12 * (x * x + y * y - 0.35)
        image = ndimage.gaussian_filter(volume[c], (0, blur, blur)) * shade
        # A coarser matrix was interpolated to this one, so the noise has a grain; in air, where a magnitude
        # image has less of it and where it costs most to store, it is nearly off.
        grain = ndimage.gaussian_filter(rng.standard_normal((s, h, w), np.float32), (0, 0.6, 0.6))
        image += 1.7 * sigma * grain * np.clip(image / 15, 0.12, 1)
        out[..., c] = np.clip(np.rint(image), 0, 255)
    return out


def _clean(mask: BoolArray) -> BoolArray:
    """Largest component of (S, H, W), smoothed and without holes in any slice: as a hand would outline it."""
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), (0, 1.2, 1.2)) > 0.5
    labels, count = ndimage.label(smooth)
    if count > 1:
        smooth = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.stack([np.asarray(ndimage.binary_fill_holes(plane), np.bool_) for plane in smooth])


def _noise(rng: np.random.Generator, p: FloatArray, size_mm: float) -> FloatArray:
    """(N,) smooth random field of mean 0 and variance about 1 at (3, N) points; blobs of about `size_mm`."""
    lattice = rng.standard_normal((48, 48, 48), np.float32)
    lattice = ndimage.gaussian_filter(lattice, 1.5, mode="wrap")
    lattice /= lattice.std()
    step = size_mm / 3
    return _lookup(lattice, (p + 200) / step, "grid-wrap")


def _lookup(volume: FloatArray, index: npt.NDArray[Any], mode: str) -> FloatArray:
    return np.asarray(ndimage.map_coordinates(volume, index, order=1, mode=mode, prefilter=False), np.float32)


def _sample_template(volume: FloatArray, p: FloatArray) -> FloatArray:
    return _lookup(volume, p - _TEMPLATE_ORIGIN[:, None], "constant")


def _sample_grid(volume: FloatArray, p: FloatArray) -> FloatArray:
    return _lookup(volume, (p - _GRID_ORIGIN[:, None]) / _GRID_MM, "nearest")


def _blur(volume: npt.NDArray[Any], sigma: float) -> FloatArray:
    return np.asarray(ndimage.gaussian_filter(volume.astype(np.float32), sigma), np.float32)


def _step(x: npt.NDArray[Any], width: float) -> FloatArray:
    """A soft threshold: 0 well below zero, 1 well above, over about `width`."""
    return np.asarray(0.5 * (1 + np.tanh(x / (2 * width))), np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: ``python benchmarks/phantom.py DEST [--seed N] [--case-id ID]``."""
    parser = argparse.ArgumentParser(prog="python benchmarks/phantom.py", description=__doc__.split("\n")[0])
    parser.add_argument("dest", type=Path, help="folder that gets the slices and masks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case-id", default=CASE_ID)
    options = parser.parse_args(arguments)
    write_lgg(make_phantom(options.seed, options.case_id), options.dest)


if __name__ == "__main__":
    main()
