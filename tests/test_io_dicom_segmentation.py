"""DICOM-SEG as highdicom writes it, on its own grid."""

from __future__ import annotations

from dataclasses import replace

import dicom_maker as maker
import highdicom
import numpy as np
import numpy.typing as npt
import pytest
from dicom_maker import OBLIQUE
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless
from test_io_dicom import only, taken, volume

from brainseg.io.dicom import acquisitions
from brainseg.io.volumes import Acquisition
from brainseg.types import InputError

IMAGES = maker.datasets(volume((6, 24, 20)), 4, geometry=OBLIQUE)


def blocks() -> dict[str, npt.NDArray[np.bool_]]:
    """Two overlapping segments that leave the outer slices empty, and one that is empty."""
    edema, core, nothing = (np.zeros((6, 24, 20), np.bool_) for _ in range(3))
    edema[1:5, 4:12, 3:9] = True
    core[2:4, 6:9, 5:14] = True
    return {"Edema": edema, "Core": core, "Nothing": nothing}


def disc(seg: object) -> maker.Disc:
    assert isinstance(seg, highdicom.seg.Segmentation)
    return {**maker.files({"S": IMAGES}), "SEG": maker.as_bytes(seg)}


def mask(members: maker.Disc, labels: tuple[int, ...] = ()) -> Acquisition:
    """The segmentation, decoded."""
    case = taken(only(members), {"9": "mask"})
    series = tuple(replace(one, labels=labels) if one.key == "9" else one for one in case.series)
    (found,) = acquisitions(replace(case, series=series))
    return found


def on_images(found: Acquisition) -> npt.NDArray[np.int64]:
    """The labels of a mask at the voxels of the images, by world position."""
    out = np.zeros((6, 24, 20), np.int64)
    for at in range(6):
        rows, columns = np.mgrid[:24, :20]
        # Positions and axes as the images' headers state them.
        header = IMAGES[at]
        right, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        between_rows, between_columns = map(float, header.PixelSpacing)
        points = (
            np.array(header.ImagePositionPatient, float)
            + columns[..., None] * right * between_columns
            + rows[..., None] * down * between_rows
        ) * (-1, -1, 1)
        index = found.grid.voxels(points)
        nearest = index.round().astype(int)
        assert np.abs(index - nearest).max() < 1e-3
        inside = ((nearest >= 0) & (nearest < found.grid.shape)).all(axis=-1)
        out[at][inside] = found.pixels[tuple(nearest[inside].T)]
    return out


def test_segments_are_listed_and_united() -> None:
    members = disc(maker.segmentation(IMAGES, blocks(), 9))
    (info,) = (one for one in only(members).series if one.key == "9")
    assert info.role == "mask"
    assert info.segments == ((1, "Edema"), (2, "Core"), (3, "Nothing"))
    assert info.why == "a segmentation of Edema, Core and Nothing"
    found = on_images(mask(members))
    assert np.array_equal(found > 0, blocks()["Edema"] | blocks()["Core"])
    assert (found[blocks()["Edema"]] == 1).all()


def test_one_segment_is_chosen() -> None:
    members = disc(maker.segmentation(IMAGES, blocks(), 9))
    assert np.array_equal(on_images(mask(members, (2,))) == 2, blocks()["Core"])
    assert not on_images(mask(members, (3,))).any()
    with pytest.raises(InputError, match=r'^"SEG" of series 9 holds none of the segments that were chosen'):
        mask(members, (8,))


def test_a_fractional_segmentation_is_cut_at_a_half() -> None:
    values = np.linspace(0, 1, 6 * 24 * 20).reshape(6, 24, 20).astype(np.float32)
    seg = maker.segmentation(IMAGES, {"Tumour": values > 0}, 9, kind="FRACTIONAL", values=values)
    found = mask(disc(seg))
    assert found.remarks == ("Series 9 is fractional; voxels of a half and more count as marked.",)
    # The file holds 255 steps.
    assert np.array_equal(on_images(found) > 0, np.round(values * 255) / 255 >= 0.5)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_compressed_segmentations(syntax: UID) -> None:
    images = maker.datasets(volume((3, 40, 48)), 4)
    values = np.linspace(0, 1, 3 * 40 * 48).reshape(3, 40, 48).astype(np.float32)
    seg = maker.segmentation(images, {"A": values > 0}, 9, kind="FRACTIONAL", values=values)
    members = {**maker.files({"S": images}), "SEG": maker.as_bytes(seg)}
    plain = mask(members).pixels
    assert 0 < np.count_nonzero(plain) < plain.size
    members["SEG"] = maker.as_bytes(seg, syntax)
    assert np.array_equal(mask(members).pixels, plain)


def test_a_label_map_segmentation() -> None:
    labels = np.zeros((6, 24, 20), np.uint8)
    labels[2:4, 5:9, 5:9] = 1
    labels[4, 5:9, 5:9] = 2
    seg = maker.segmentation(IMAGES, {"A": labels == 1, "B": labels == 2}, 9, kind="LABELMAP", values=labels)
    assert np.array_equal(on_images(mask(disc(seg))), labels)


def test_a_segmentation_of_one_slice_takes_its_thickness() -> None:
    only_one = {"A": np.zeros((6, 24, 20), np.bool_)}
    only_one["A"][3, 5:9, 5:9] = True
    found = mask(disc(maker.segmentation(IMAGES, only_one, 9)))
    assert np.isclose(found.grid.spacing_mm[0], 5)
    assert np.array_equal(on_images(found) > 0, only_one["A"])


def test_a_segmentation_is_no_image() -> None:
    case = only(disc(maker.segmentation(IMAGES, blocks(), 9)))
    with pytest.raises(InputError, match=r'^Series 9 \("SEG"\) is a segmentation, not images'):
        list(acquisitions(taken(case, {"9": "flair"})))


def test_the_segmentation_of_a_tumour_is_taken_before_that_of_anatomy() -> None:
    tumour = maker.segmentation(IMAGES, {"Glioma": blocks()["Core"]}, 8)
    anatomy = maker.segmentation(IMAGES, {"Left hippocampus": blocks()["Edema"]}, 9)
    members = {**maker.files({"S": IMAGES}), "A": maker.as_bytes(anatomy), "T": maker.as_bytes(tumour)}
    assert {one.key: one.role for one in only(members).series} == {"4": "flair", "8": "mask", "9": None}


def test_a_segmentation_far_from_any_grid_is_refused() -> None:
    seg = maker.segmentation(IMAGES, blocks(), 9)
    frames = seg.PerFrameFunctionalGroupsSequence
    frames[0].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 98765.4]
    with pytest.raises(InputError, match=r'^"SEG" of series 9 is a segmentation (whose frames|that is too)'):
        mask(disc(seg))
