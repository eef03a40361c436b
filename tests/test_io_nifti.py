"""NIfTI, against nibabel and SimpleITK: every voxel stays where it was in the world."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from heads import ORDERS, affine_of, lesion, name_of, nifti, patient, read
from hypothesis import given, settings
from hypothesis import strategies as st

import brainseg
from brainseg.grid import to_origin
from brainseg.io import NamedBytes, find_cases, read_case
from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import InputError, Study

SMALL = (7, 9, 6)
every_order = pytest.mark.parametrize("order", ORDERS, ids=name_of)


def noise(shape: tuple[int, ...] = SMALL, seed: int = 0) -> np.ndarray:
    """Voxels that all differ, one corner marked."""
    values = np.random.default_rng(seed).permutation(np.arange(1, 1 + np.prod(shape))).reshape(shape)
    values[0, 0, 0] = 5000
    return values.astype(np.int16)


def one(data: bytes, name: str = "flair.nii") -> list[NamedBytes]:
    return [NamedBytes(f"P/{name}", data)]


def refusal(files: list[NamedBytes], **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(files, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# --- the world ---------------------------------------------------------------------------------------------


@every_order
@pytest.mark.parametrize("tilt", [0.0, 13.0], ids=["straight", "oblique"])
def test_every_voxel_stays_in_its_place(
    order: tuple[tuple[int, ...], tuple[int, ...]], tilt: float, tmp_path: Path
) -> None:
    # Thick in whatever runs up the patient, so that nothing is interpolated.
    spacing = tuple(5.0 if axis == 2 else 1.0 for axis in order[0])
    affine = affine_of(*order, spacing, SMALL, tilt)
    values = noise()
    mask = (values % 3 == 0).astype(np.uint8)
    files = [
        NamedBytes("P/P_flair.nii", nifti(values, affine)),
        NamedBytes("P/P_t1.nii", nifti(noise(seed=1), affine)),
        NamedBytes("P/P_seg.nii", nifti(mask, affine)),
    ]
    study = read(files)
    flair = study.slices[..., 1]
    assert study.orientation == "LPS"
    assert study.affine is not None
    # nibabel's own way to axial slices: (S, P, L) of slice, row and column.
    image = nib.Nifti1Image(values, affine)
    there = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(("S", "P", "L"))
    )
    expected = image.as_reoriented(there)
    assert np.array_equal(flair, np.asarray(expected.dataobj))
    np.testing.assert_allclose(study.affine, expected.affine, atol=1e-4)
    # The marked corner, in the world of the file as SimpleITK reads it (LPS).
    path = tmp_path / "mask.nii"
    path.write_bytes(files[2].data)
    theirs = sitk.ReadImage(str(path))
    corner = study.affine @ (*np.argwhere(flair == 5000)[0], 1)
    np.testing.assert_allclose(
        corner[:3] * (-1, -1, 1), theirs.TransformIndexToPhysicalPoint((0, 0, 0)), atol=1e-3
    )
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(theirs)
    assert study.reference is not None
    assert study.spacing_mm is not None
    ours = study.reference.sum() * np.prod(study.spacing_mm)
    assert ours == pytest.approx(statistics.GetPhysicalSize(1), rel=1e-5)
    # And back, lossless, in the order of the file.
    assert np.array_equal(to_origin(flair, study).T, values)
    assert np.array_equal(to_origin(study.reference, study).T, mask == 1)
    assert to_origin(study.reference, study).dtype == np.bool_


def test_patient_left_stays_on_the_screens_right() -> None:
    for order in ORDERS:
        spacing = tuple(6.0 if axis == 2 else 4.0 for axis in order[0])
        shape = tuple(24 if axis == 2 else 44 for axis in order[0])
        affine = affine_of(*order, spacing, shape)
        study = read(patient(affine, shape))
        assert study.reference is not None
        _, rows, columns = np.argwhere(study.reference).mean(axis=0) / study.shape
        assert columns > 0.5  # LPS: columns count to the patient's left
        assert rows < 0.5  # and rows to the back; the lesion lies in front


def test_a_brats_case_of_the_sample_gives_the_dice_of_its_tiffs() -> None:
    """Made oblique by nibabel, not by our writers."""
    original = brainseg.read_study(SYNTHETIC_GLIOMA)
    assert original.reference is not None
    shape = original.shape[::-1]
    affine = affine_of((0, 1, 2), (-1, -1, 1), (0.94, 0.94, 5.0), shape, 11.0)
    files = [
        NamedBytes(f"S/S_{name}.nii.gz", gzip.compress(nifti(original.slices[..., c].T, affine)))
        for c, name in enumerate(("t1", "flair", "t1ce"))
    ]
    files.append(
        NamedBytes("S/S_seg.nii.gz", gzip.compress(nifti(original.reference.T.astype("u1"), affine)))
    )
    study = read(files)
    predictor = brainseg.Predictor(brainseg.load("unet"))

    def dice(study: Study) -> float:
        mask = brainseg.find(predictor.predict(study, attention=False)).mask
        assert study.reference is not None
        return float(2 * (mask & study.reference).sum() / (mask.sum() + study.reference.sum()))

    expected = dice(original)
    assert expected > 0.9
    assert dice(study) == pytest.approx(expected, abs=0.01)


# --- voxels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("scale", [None, (0.25, -3.0)])
def test_values_are_nibabels(
    dtype: str, endian: Literal["<", ">"], scale: tuple[float, float] | None
) -> None:
    values = (noise() % 120).astype(dtype)
    image = nib.Nifti1Image(values, affine_of(spacing=(1, 1, 5), shape=SMALL), dtype=dtype)
    image.header.set_slope_inter(*(scale or (1, 0)))
    header = image.header.as_byteswapped(endian)
    header["vox_offset"] = 352
    if scale:
        header["scl_slope"], header["scl_inter"] = scale
    raw = values.astype(values.dtype.newbyteorder(endian)).tobytes(order="F")
    data = header.binaryblock + bytes(4) + raw
    study = read(one(data))
    expected = nib.Nifti1Image.from_bytes(data).get_fdata()
    assert np.allclose(to_origin(study.slices[..., 1], study).T, expected)
    assert study.slices.dtype.isnative
    if scale is None:
        assert study.slices.dtype == np.dtype(dtype)


def test_nan_around_the_brain_is_said() -> None:
    values = noise().astype(np.float32)
    values[0] = np.nan
    study = read(one(nifti(values, affine_of(spacing=(1, 1, 5), shape=SMALL))))
    assert np.isfinite(study.slices).all()
    assert any("NaN" in note and '"flair.nii"' in note for note in study.notes)


@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("packed", [False, True])
def test_nifti_1_and_2_gzipped_or_not(cls: type, packed: bool) -> None:
    affine = affine_of(spacing=(1, 1, 5), shape=SMALL)
    data = nifti(noise(), affine, cls)
    files = one(gzip.compress(data), "flair.nii.gz") if packed else one(data)
    assert np.array_equal(to_origin(read(files).slices[..., 1], read(files)).T, noise())


def test_several_gzip_members_as_parallel_packers_write() -> None:
    data = nifti(noise(), affine_of(spacing=(1, 1, 5), shape=SMALL))
    packed = gzip.compress(data[:500]) + gzip.compress(data[500:])
    study = read(one(packed, "flair.nii.gz"))
    assert np.array_equal(to_origin(study.slices[..., 1], study).T, noise())


def test_header_and_voxels_in_two_files() -> None:
    affine = affine_of(spacing=(1, 1, 5), shape=SMALL)
    pair = nib.Nifti1Pair(noise(), affine)
    buffers = {"header": io.BytesIO(), "image": io.BytesIO()}
    pair.to_file_map({key: nib.FileHolder(fileobj=buffer) for key, buffer in buffers.items()})
    both = [
        NamedBytes("P/flair.hdr", buffers["header"].getvalue()),
        NamedBytes("P/flair.img", buffers["image"].getvalue()),
    ]
    study = read(both)
    assert np.array_equal(to_origin(study.slices[..., 1], study).T, noise())
    assert '"flair.img", which was not given: add it.' in refusal(both[:1])
    assert "voxels without the header" in refusal(both[1:])


def test_the_header_is_kept_for_the_way_out() -> None:
    image = nib.Nifti1Image(noise(), affine_of(spacing=(1, 1, 5), shape=SMALL))
    image.header["descrip"] = b"kept"
    study = read(one(image.to_bytes()))
    assert study.origin is not None
    assert study.origin.format == "nifti"
    [header] = study.origin.headers
    assert header["descrip"] == b"kept"
    assert study.origin.shape == SMALL[::-1]


# --- what headers say of the world -------------------------------------------------------------------------


def with_header(change: Callable[[Any], None], values: np.ndarray | None = None) -> bytes:
    image = nib.Nifti1Image(noise() if values is None else values, affine_of(spacing=(1, 1, 5), shape=SMALL))
    image.header.set_xyzt_units("mm")
    image.update_header()
    data = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(data[:348]), check=False)
    change(header)
    data[:348] = header.binaryblock
    return bytes(data)


def bad_sform(header: Any) -> None:
    header.set_qform(affine_of(spacing=(1, 1, 5), shape=SMALL), 1)
    for row in ("srow_x", "srow_y", "srow_z"):
        header[row] = 0


def test_where_sform_and_qform_disagree_it_is_nibabels_and_said() -> None:
    data = with_header(lambda header: header.set_qform(affine_of(spacing=(1, 1, 5), shape=SMALL, tilt=9), 1))
    study = read(one(data))
    assert any("sform and qform" in note and "sform was used" in note for note in study.notes)
    assert study.origin is not None
    np.testing.assert_allclose(
        study.origin.affine[:, [2, 1, 0, 3]], nib.Nifti1Image.from_bytes(data).affine, atol=1e-5
    )
    mirrored = affine_of(signs=(1, -1, 1), spacing=(1, 1, 5), shape=SMALL)
    study = read(one(with_header(lambda header: header.set_qform(mirrored, 1))))
    assert any("with its sides exchanged" in note for note in study.notes)


def test_rounding_between_sform_and_qform_is_no_disagreement() -> None:
    data = with_header(lambda header: header.set_qform(affine_of(spacing=(1, 1, 5), shape=SMALL), 1))
    assert not any("qform" in note for note in read(one(data)).notes)


def test_a_senseless_sform_leaves_the_qform() -> None:
    study = read(one(with_header(bad_sform)))
    assert any("The sform of" in note and "qform was used" in note for note in study.notes)
    assert study.spacing_mm == pytest.approx((5, 1, 1))


def test_without_orientation_spacings_are_known_and_sides_are_not() -> None:
    def change(header: Any) -> None:
        header["sform_code"] = header["qform_code"] = 0

    study = read(one(with_header(change)))
    assert study.orientation is None
    assert study.spacing_mm == pytest.approx((5, 1, 1))
    assert any("sides are not" in note for note in study.notes)
    assert np.array_equal(to_origin(study.slices[..., 1], study).T, noise())


@pytest.mark.parametrize(
    ("unit", "factor"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1.0), ("unknown", 1.0)]
)
def test_units_of_the_header_are_honoured(unit: str, factor: float) -> None:
    affine = affine_of(spacing=(1, 1, 5), shape=SMALL)
    affine[:3] *= factor
    image = nib.Nifti1Image(noise(), affine)
    image.header.set_xyzt_units(unit)
    study = read(one(image.to_bytes()))
    assert study.spacing_mm == pytest.approx((5, 1, 1))
    assert any(unit in note for note in study.notes) == (factor != 1)


# --- bad input ---------------------------------------------------------------------------------------------

PLAIN = nifti(noise(), affine_of(spacing=(1, 1, 5), shape=SMALL))


def set_dim(*dim: int) -> bytes:
    return with_header(lambda header: header["dim"].__setitem__(slice(0, len(dim)), dim))


def zero_affine(header: Any) -> None:
    header["qform_code"] = 0
    for row in ("srow_x", "srow_y", "srow_z"):
        header[row] = 0


def nan_affine(header: Any) -> None:
    header["qform_code"] = 0
    header["srow_x"] = np.nan


def colours() -> bytes:
    values = np.zeros(SMALL, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    return nifti(values, np.eye(4))


def bomb() -> bytes:
    """A gigabyte of zeros behind a header of 756 bytes of voxels; unpacking it whole would be seen."""
    return gzip.compress(PLAIN[:352] + PLAIN[352:] + bytes(64 * 2**20))


BAD: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "flair.nii", "not NIfTI"),
    "text": (b"patient notes", "flair.nii", "not NIfTI"),
    "cut short": (PLAIN[:600], "flair.nii", "is cut short"),
    "header cut": (PLAIN[:200], "flair.nii", "not NIfTI"),
    "gzip cut": (gzip.compress(PLAIN)[:-100], "flair.nii.gz", "is damaged or cut short"),
    "gzip changed": (gzip.compress(PLAIN)[:-8] + bytes(8), "flair.nii.gz", "is damaged or cut short"),
    "zero affine": (with_header(zero_affine), "flair.nii", "no usable place in the world"),
    "nan affine": (with_header(nan_affine), "flair.nii", "no usable place in the world"),
    "too large": (set_dim(3, 32000, 32000, 32000), "flair.nii", "beyond the limit"),
    "too many": (set_dim(3, 4000, 4000, 4000), "flair.nii", "beyond the limit"),
    "negative": (set_dim(3, -7, 9, 6), "flair.nii", "not a volume"),
    "flat": (set_dim(2, 7, 9), "flair.nii", "not a volume"),
    "time series": (
        nifti(np.ones((*SMALL, 20), "i2"), np.eye(4)),
        "flair.nii",
        "a time series or the like of 20",
    ),
    "vectors": (nifti(np.ones((*SMALL, 1, 3), "f4"), np.eye(4)), "flair.nii", "a field of vectors"),
    "colours": (colours(), "flair.nii", "holds colours (RGB)"),
    "complex": (nifti(noise().astype("c8"), np.eye(4)), "flair.nii", "export magnitude images"),
    "type": (with_header(lambda header: header.__setitem__("datatype", 3)), "flair.nii", "unknown type"),
    "blank": (nifti(np.zeros(SMALL, "i2"), np.eye(4)), "flair.nii", "is blank"),
    "ct": (nifti((noise() * 5 - 1500).astype("i2"), np.eye(4)), "flair.nii", "Hounsfield"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file(case: str) -> None:
    data, name, says = BAD[case]
    message = refusal(one(data, name))
    assert f'"{name}' in message
    assert says in message


@pytest.mark.parametrize(
    "case", sorted(BAD.keys() - {"cut short", "gzip cut", "gzip changed", "blank", "ct"})
)
def test_a_bad_sequence_leaves_the_rest(case: str) -> None:
    """What a header tells is told before anything is decoded: the patient is offered without that file."""
    data, name, _ = BAD[case]
    affine = affine_of(spacing=(1, 1, 5), shape=SMALL)
    files = [
        NamedBytes("P/P_flair.nii", nifti(noise(), affine)),
        NamedBytes(f"P/P_t1ce{name.removeprefix('flair')}", data),
    ]
    study = read(files)
    assert np.array_equal(study.slices[..., 2], study.slices[..., 1])
    assert any("P_t1ce" in note and "set aside" in note for note in study.notes)
    assert any(note.startswith("Post-contrast was not given") for note in study.notes)


def test_no_more_is_unpacked_than_declared() -> None:
    study = read(one(bomb(), "flair.nii.gz"))
    assert np.array_equal(to_origin(study.slices[..., 1], study).T, noise())


def test_a_mask_alone_is_no_patient() -> None:
    assert "a mask without the images" in refusal(
        one(nifti(lesion(np.eye(4), SMALL), np.eye(4)), "p_seg.nii")
    )


# --- nibabel's own files -----------------------------------------------------------------------------------

# Shape of the study or what is said; of what nibabel ships, every file of a volume format.
SHIPPED: dict[str, tuple[int, ...] | str] = {
    "anatomical.nii": (25, 41, 33),
    "analyze.hdr": "Analyze 7.5",
    "example4d.nii.gz": "say which series it is",  # 2 volumes of unknown sequence
    "example_nifti2.nii.gz": "say which series it is",
    "functional.nii": "a time series or the like of 20 volumes",
    "nifti1.hdr": '"nifti1.img", which was not given',
    "nifti2.hdr": '"nifti2.img", which was not given',
    "reoriented_anat_moved.nii": (22, 26, 21),
    "resampled_anat_moved.nii": (3, 21, 17),
    "row_major.dconn.nii": "a field of vectors or the like",
    "standard.nii.gz": (7, 15, 4),  # rows of 3 mm and columns of 1 mm were made square
    "test.mgz": "FreeSurfer MGZ is not read",
    "small.mnc": "HDF5",
    "tiny.mnc": "No image",
    "scaled+tlrc.BRIK": "No image",
    "scaled+tlrc.HEAD": "No image",
    "T1.PAR": "No image",
    "phantom_EPI_asc_CLEAR_2_1.REC": "No image",
    "tinypet.v": "No image",
    "standard.trk": "No image",
}
DATA = Path(nib.__file__).parent / "tests" / "data"


@pytest.mark.parametrize("name", SHIPPED)
def test_what_nibabel_ships(name: str) -> None:
    expected = SHIPPED[name]
    file = NamedBytes(name, (DATA / name).read_bytes())
    if isinstance(expected, str):
        assert expected in refusal([file])
        return
    study = read([file])
    assert study.shape == expected
    assert study.origin is not None
    theirs = nib.load(DATA / name)
    assert study.origin.shape == theirs.shape[::-1]
    np.testing.assert_allclose(study.origin.affine[:, [2, 1, 0, 3]], theirs.affine, atol=1e-5)


def test_the_table_of_shipped_files_is_whole() -> None:
    known = (".nii", ".nii.gz", ".hdr", ".mgz")
    assert {path.name for path in DATA.iterdir() if path.name.endswith(known)} <= SHIPPED.keys()


def test_a_4d_file_by_choice_of_volumes() -> None:
    file = NamedBytes("example4d.nii.gz", (DATA / "example4d.nii.gz").read_bytes())
    [case] = find_cases([file])
    study = read_case(case, roles={"example4d.nii.gz:1": "flair", "example4d.nii.gz:2": "post"})
    theirs = nib.load(DATA / "example4d.nii.gz").get_fdata()
    assert np.array_equal(to_origin(study.slices[..., 1], study).T, theirs[..., 0])
    assert np.array_equal(to_origin(study.slices[..., 2], study).T, theirs[..., 1])


# --- any header at all -------------------------------------------------------------------------------------


def study_or_sentence(files: list[NamedBytes]) -> Study | None:
    """Any other error fails the test."""
    with contextlib.suppress(InputError):
        return read(files)
    return None


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 351), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6),
    st.integers(0, 700),
    st.booleans(),
)
def test_any_header_is_a_study_or_one_sentence(
    changes: list[tuple[int, bytes]], cut: int, packed: bool
) -> None:
    data = bytearray(PLAIN)
    for at, new in changes:
        data[at : at + len(new)] = new
    data = data[: len(data) - cut] if cut < 100 else data
    raw = gzip.compress(bytes(data)) if packed else bytes(data)
    study = study_or_sentence(one(raw, "flair.nii.gz" if packed else "flair.nii"))
    assert study is None or np.isfinite(study.slices).all()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from(["dim", "pixdim", "srow_x", "srow_y", "srow_z"]),
    st.integers(0, 3),
    st.floats(width=32),
    st.sampled_from([0, 1, 3, -1, 32767]),
)
def test_any_field_of_the_world_is_a_study_or_one_sentence(
    field: str, at: int, value: float, code: int
) -> None:
    def change(header: Any) -> None:
        if field == "dim":
            header["dim"][at] = int(np.clip(np.nan_to_num(value), -32768, 32767))
        else:
            header[field][at] = value
        header["sform_code"], header["qform_code"] = code, 1

    with np.errstate(all="ignore"):
        data = with_header(change)
    study_or_sentence(one(data))


def test_values_beyond_the_range_of_floats() -> None:
    """Slope and intercept beyond what the voxels' type holds."""

    def change(header: Any) -> None:
        header["scl_slope"] = header["scl_inter"] = 1e38

    study = read(one(with_header(change)))
    assert np.isfinite(study.slices).all()
