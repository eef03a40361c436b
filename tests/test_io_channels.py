"""Sequences in files, folders, pages and channels -> one study of three channels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from brainseg.io import NamedBytes, find_cases, read_case
from brainseg.types import CHANNELS, InputError, Study

HEIGHT, WIDTH = 24, 32
Pixels = npt.NDArray[Any]
TITLES = {"pre": "T1", "flair": "FLAIR", "post": "T1CE"}


def volume(slices: int = 4) -> Pixels:
    """(S, H, W, 3) in the order of CHANNELS, each channel another."""
    return np.random.default_rng(5).integers(1, 256, (slices, HEIGHT, WIDTH, 3), np.uint8)


def encoded(pixels: Pixels, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def stack(pixels: Pixels, **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, photometric="minisblack", **options)
    return out.getvalue()


def mask() -> bytes:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[3:6, 4:9] = 255
    return encoded(pixels)


def files_of(name: str, sequences: Sequence[str] = CHANNELS, slices: int = 4) -> list[NamedBytes]:
    """One grey file a slice and sequence; `name` has a field for each."""
    pixels = volume(slices)
    return [
        NamedBytes(name.format(TITLES[s], n + 1), encoded(pixels[n, ..., CHANNELS.index(s)]))
        for s in sequences
        for n in range(slices)
    ]


def read(files: list[NamedBytes], **options: Any) -> Study:
    (case,) = find_cases(files)
    return read_case(case, **options)


def refusal(files: list[NamedBytes], **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(files, **options)
    message = str(caught.value)
    assert message.endswith(".")
    assert ":" in message
    return message


# --- one file or folder a sequence -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "P_{}_{:03d}.png",
        "P_{1:03d}_{0}.png",
        "P/{}/{:03d}.png",
        "P/{}/images/IM{:04d}.png",
        "set/P_{}/{}.png",
        "P/AX {}/{}.png",
        "BraTS20_Training_001_{}_{}.png",
        "{}-{:03d}.png",
    ],
)
def test_sequences_are_combined(name: str) -> None:
    study = read(files_of(name))
    np.testing.assert_array_equal(study.slices, volume())
    assert study.slice_numbers == (1, 2, 3, 4)
    assert [file.role for file in study.source.files] == ["slice"] * 12
    note = study.notes[0]
    assert note.startswith("Sequences were combined by name: pre-contrast from ")
    assert "FLAIR from" in note
    assert len(study.notes) == 1


def test_sequences_with_masks() -> None:
    files = files_of("P/{}/{}.png") + [NamedBytes(f"P/GT/{n}.png", mask()) for n in range(1, 5)]
    study = read(files)
    assert study.reference is not None
    assert study.reference.any((1, 2)).all()
    np.testing.assert_array_equal(study.slices, volume())
    named = files_of("P_{}_{}.png") + [NamedBytes(f"P_seg_{n}.png", mask()) for n in range(1, 5)]
    assert np.array_equal(read(named).reference, study.reference)


def test_one_stack_a_sequence() -> None:
    pixels = volume()
    files = [NamedBytes(f"P_{TITLES[s]}.tif", stack(pixels[..., i])) for i, s in enumerate(CHANNELS)]
    marks = np.zeros((4, HEIGHT, WIDTH), np.uint8)
    marks[1, 3:6, 4:9] = 1
    study = read([*files, NamedBytes("P_seg.tif", stack(marks))])
    np.testing.assert_array_equal(study.slices, pixels)
    assert study.reference is not None
    np.testing.assert_array_equal(study.reference, marks > 0)
    assert study.source.format == "tiff-stack"


def test_one_slice_of_three_files() -> None:
    files = [NamedBytes(f"{TITLES[s]}.png", encoded(volume()[0, ..., i])) for i, s in enumerate(CHANNELS)]
    np.testing.assert_array_equal(read(files).slices, volume()[:1])


def test_order_of_files_does_not_matter() -> None:
    files = files_of("P_{}_{}.png")
    one, other = read(files), read(files[::-1])
    assert np.array_equal(one.slices, other.slices)
    assert one.source == other.source
    changed = [
        NamedBytes(file.name, encoded(volume(9)[8, ..., 0])) if "T1_2" in file.name else file
        for file in files
    ]
    assert read(changed).source.sha256 != one.source.sha256


def test_t2_is_left_aside_and_said() -> None:
    extra = [NamedBytes(f"P_T2_{n}.png", encoded(volume()[0, ..., 0])) for n in range(1, 5)]
    study = read([*files_of("P_{}_{}.png"), *extra])
    np.testing.assert_array_equal(study.slices, volume())
    assert sum(file.role == "ignored" for file in study.source.files) == 4
    assert any("T2 is none of the three" in note for note in study.notes)


@pytest.mark.parametrize(("given", "missing"), [(("flair", "post"), "pre"), (("flair", "pre"), "post")])
def test_a_missing_sequence_is_flair_and_said(given: tuple[str, ...], missing: str) -> None:
    study = read(files_of("P_{}_{}.png", given))
    expected = volume()
    expected[..., CHANNELS.index(missing)] = expected[..., CHANNELS.index("flair")]
    np.testing.assert_array_equal(study.slices, expected)
    assert any("was not given: FLAIR was used in its place" in note for note in study.notes)


def test_sequences_that_do_not_fit_are_refused() -> None:
    assert "no FLAIR" in refusal(files_of("P_{}_{}.png", ("pre", "post")))
    files = files_of("P_{}_{}.png")
    assert "Post-contrast is missing for slice 4" in refusal(files[:-1])
    odd = [*files[:-1], NamedBytes(files[-1].name, encoded(volume()[0, :-1, :, 0]))]
    assert "to one grid" in refusal(odd)
    colour = [*files[:-1], NamedBytes(files[-1].name, encoded(volume()[0]))]
    assert "one sequence" in refusal(colour)
    assert "names no sequence" in refusal([*files, NamedBytes("P_9.png", encoded(volume()[0, ..., 0]))])
    twice = [*files, NamedBytes("P_T1_04.png", encoded(volume()[0, ..., 0]))]
    assert "both pre-contrast of slice 4" in refusal(twice)


def test_one_named_sequence_is_one_sequence() -> None:
    study = read(files_of("P_{}_{}.png", ("flair",)))
    assert (study.slices == study.slices[..., :1]).all()
    assert "only one sequence was given" in study.notes[0].lower()


# --- nnU-Net -----------------------------------------------------------------------------------------------


def nnunet(channels: int = 3, cases: Sequence[str] = ("P_001", "P_002", "P_004")) -> list[NamedBytes]:
    pixels = volume(len(cases))
    pixels = np.concatenate([pixels, pixels], -1)
    return [
        NamedBytes(f"imagesTr/{case}_{c:04d}.png", encoded(pixels[i, ..., c]))
        for i, case in enumerate(cases)
        for c in range(channels)
    ]


def test_nnunet_endings_are_channels() -> None:
    labels = [NamedBytes(f"labelsTr/P_00{n}.png", mask()) for n in (1, 2, 4)]
    study = read([*nnunet(), *labels])
    np.testing.assert_array_equal(study.slices, volume(3))
    assert study.slice_numbers == (1, 2, 4)
    assert study.reference is not None
    assert study.reference.any((1, 2)).all()
    assert any("three channels of a slice" in note for note in study.notes)
    assert any("assumed to come in the order pre, flair, post" in note for note in study.notes)


def test_nnunet_of_one_slice() -> None:
    for case in ("glioma_001", "case"):
        study = read(nnunet(cases=(case,)))
        np.testing.assert_array_equal(study.slices, volume(1))


def test_nnunet_of_one_channel_is_grey() -> None:
    study = read(nnunet(channels=1))
    np.testing.assert_array_equal(study.slices[..., 0], volume(3)[..., 0])
    assert study.slice_numbers == (1, 2, 4)


@pytest.mark.parametrize("channels", [2, 4])
def test_nnunet_of_other_channels_is_refused(channels: int) -> None:
    assert f"have {channels} channels a slice" in refusal(nnunet(channels=channels))


def test_nnunet_with_a_channel_missing_is_said() -> None:
    *_, last = find_cases(nnunet()[:-1])
    with pytest.raises(InputError, match="have 2 channels a slice"):
        read_case(last)


def test_colour_slices_numbered_from_0000_are_slices() -> None:
    files = [NamedBytes(f"P_{n:04d}.png", encoded(volume()[n])) for n in range(3)]
    study = read(files)
    np.testing.assert_array_equal(study.slices, volume()[:3])
    assert study.slice_numbers == (0, 1, 2)


# --- pages -------------------------------------------------------------------------------------------------


def test_named_channels_of_ome_are_ordered() -> None:
    pixels = volume()
    order = ("flair", "post", "pre")
    planes = np.moveaxis(pixels[..., [CHANNELS.index(name) for name in order]], -1, 0)
    for names in (["FLAIR", "T1ce", "T1"], ["t2f", "T1 Gd", "T1w"]):
        data = stack(planes, ome=True, metadata={"axes": "CZYX", "Channel": {"Name": names}})
        study = read([NamedBytes("P.ome.tif", data)])
        np.testing.assert_array_equal(study.slices, pixels)
        assert any("as the file names them" in note for note in study.notes)
    data = stack(planes, ome=True, metadata={"axes": "CZYX", "Channel": {"Name": ["FLAIR", "T2", "T1"]}})
    assert "names its channels" in refusal([NamedBytes("P.ome.tif", data)])
    study = read([NamedBytes("P.ome.tif", data)], channels=order)
    np.testing.assert_array_equal(study.slices, pixels)


def test_channels_of_a_stack_are_assumed_and_said() -> None:
    planes = np.moveaxis(volume(), -1, 1)
    for options in ({"imagej": True}, {"ome": True}, {}):
        study = read([NamedBytes("P.tif", stack(planes, metadata={"axes": "ZCYX"}, **options))])
        np.testing.assert_array_equal(study.slices, volume())
        assert any("assumed to come in the order" in note for note in study.notes)


def test_three_grey_pages_are_slices_or_channels_as_the_rest_says() -> None:
    pages = np.moveaxis(volume()[0], -1, 0)
    one = NamedBytes("P.tif", stack(pages))
    assert "3 grey pages" in refusal([one])
    study = read([one, NamedBytes("P_mask.png", mask())])
    np.testing.assert_array_equal(study.slices, volume()[:1])
    study = read([one], channels=CHANNELS)
    np.testing.assert_array_equal(study.slices, volume()[:1])
    marks = stack(np.stack([np.eye(HEIGHT, WIDTH, dtype=np.uint8)] * 3))
    study = read([one, NamedBytes("P_mask.tif", marks)])
    np.testing.assert_array_equal(study.slices[..., 1], pages)
    many = [NamedBytes(f"P_{n}.tif", stack(np.moveaxis(volume()[n], -1, 0))) for n in range(1, 4)]
    np.testing.assert_array_equal(read(many).slices, volume()[1:])


# --- the stated order --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("flair", "pre", "post"), ("post", "flair", "pre"), CHANNELS])
def test_stated_order(order: tuple[str, ...]) -> None:
    stored = volume()[..., [CHANNELS.index(name) for name in order]]
    files = [NamedBytes(f"P_{n + 1}.png", encoded(pixels)) for n, pixels in enumerate(stored)]
    study = read(files, channels=order)
    np.testing.assert_array_equal(study.slices, volume())
    assert study.notes == (f"Channels were taken in the stated order: {', '.join(order)}.",)
    endings = [
        NamedBytes(f"P_001_{c:04d}.png", encoded(np.ascontiguousarray(stored[0, ..., c]))) for c in range(3)
    ]
    np.testing.assert_array_equal(read(endings, channels=order).slices, volume()[:1])


def test_stated_order_is_not_needed_where_names_speak() -> None:
    for files in (files_of("P_{}_{}.png"), files_of("P_{}_{}.png", ("flair",))):
        study = read(files, channels=("flair", "post", "pre"))
        np.testing.assert_array_equal(study.slices, read(files).slices)
        assert any("stated channel order was not used" in note for note in study.notes)


@pytest.mark.parametrize(
    "wrong",
    [
        ("flair",),
        ("flair", "flair", "pre"),
        ("t1", "flair", "post"),
        ("pre", "flair", "post", "t2"),
        "pre",
        (),
    ],
)
def test_no_order_is_refused(wrong: Any) -> None:
    assert "channel order" in refusal(files_of("P_{}_{}.png"), channels=wrong)
