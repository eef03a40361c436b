"""Names: patients, numbers, sequences, channels, masks; in time that grows with their length."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainseg.io.names import Name, masks_by_name, natural, parse, parse_all
from brainseg.io.text import shown


@pytest.mark.parametrize(
    ("name", "patient", "number", "mask"),
    [
        ("ABC_01_0001_20000101_10_mask.tif", "ABC_01_0001_20000101", 10, True),
        ("ABC_01_0001_20000101_2.tif", "ABC_01_0001_20000101", 2, False),
        ("ABC_01_0001_20000101.tif", "ABC_01_0001_20000101", None, False),
        ("ABC_mask_007.png", "ABC", 7, True),
        ("slice_001 (1).png", "", 1, False),
        ("scan (12).png", "", 12, False),
        ("scan(12).png", "", 12, False),
        ("(12).png", "", 12, False),
        ("scan (12)_mask.png", "", 12, True),
        ("scan_mask (12).png", "", 12, True),
        ("t1.png", "", None, False),
        ("flair.jpeg", "", None, False),
        ("Mask12.PNG", "", 12, True),
        ("12mask.png", "", 12, True),
        ("damask_3.png", "damask", 3, False),
        ("a/b/IM000123.png", "", 123, False),
        ("0" * 6000 + "7.png", "", 7, False),
        ("9" * 5000 + ".png", "9" * 5000, None, False),
        ("BraTS20_Training_001_seg_77.png", "BraTS20_Training_001", 77, True),
    ],
)
def test_parse(name: str, patient: str, number: int | None, mask: bool) -> None:
    parsed = parse(name)
    assert (parsed.patient, parsed.number, parsed.mask) == (patient, number, mask)


@pytest.mark.parametrize(
    ("name", "sequence", "patient", "folder"),
    [
        ("P_flair_001.png", "flair", "P", ""),
        ("P_001_flair.png", "flair", "P", ""),
        ("P_t1_001.png", "pre", "P", ""),
        ("P_T1CE_001.png", "post", "P", ""),
        ("P_t1_gd_001.png", "post", "P", ""),
        ("P_t1_post_001.png", "post", "P", ""),
        ("P_t2_001.png", "t2", "P", ""),
        ("P_t2_flair_001.png", "flair", "P", ""),
        ("BraTS20_Training_001_t1ce_77.png", "post", "BraTS20_Training_001", ""),
        ("BraTS-GLI-00001-000-t2f_077.png", "flair", "BraTS-GLI-00001-000", ""),
        ("BraTS-GLI-00001-000-t1n_077.png", "pre", "BraTS-GLI-00001-000", ""),
        ("T1C12.png", "post", "", ""),
        ("FLAIR001.png", "flair", "", ""),
        ("P/T1/1.png", "pre", "", "P"),
        ("P/t1/images/1.png", "pre", "", "P"),
        ("P/FLAIR/IM0001.png", "flair", "", "P"),
        ("P/T1+C/1.png", "post", "", "P"),
        ("P/AX T1 post gad/1.png", "post", "", "P"),
        ("P/T2 FLAIR SAG/1.png", "flair", "", "P"),
        ("P1_T1CE/1.png", "post", "", "P1"),
        ("P/flairs of imagination/1.png", None, "", "P/flairs of imagination"),
        ("AT1_3.png", None, "AT1", ""),
        ("CT2/3.png", None, "", "CT2"),
    ],
)
def test_sequences(name: str, sequence: str | None, patient: str, folder: str) -> None:
    parsed = parse(name)
    assert (parsed.sequence, parsed.patient, parsed.folder) == (sequence, patient, folder)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("imagesTr", "labelsTr"),
        ("imagesTs", "labelsTs"),
        ("train_images", "train_masks"),
        ("images", "GT"),
        ("images", "gt"),
        ("images", "ground_truth"),
        ("img", "Ground Truth"),
        ("png_images", "png_masks"),
        ("images", "image_labels"),
        ("slices", "manual segmentation"),
        ("scans", "tumour_masks"),
        ("validation-images", "validation-labels"),
    ],
)
def test_pairs_of_folders(images: str, masks: str) -> None:
    names = [f"P/{folder}/{number}.png" for folder in (images, masks) for number in (1, 2)]
    parsed = parse_all(names)
    assert masks_by_name(names, parsed) == [False, False, True, True]
    assert {name.folder for name in parsed} == {"P"}


def numbers(names: list[str]) -> list[tuple[str, int | None, int | None]]:
    return [(name.patient, name.number, name.channel) for name in parse_all(names)]


def test_channels_by_ending() -> None:
    one = [f"i/glioma_001_{c:04d}.png" for c in range(3)]
    assert numbers(one) == [("glioma", 1, c) for c in range(3)]
    assert numbers([*one, "l/glioma_001.png"])[:3] == numbers(one)
    many = [f"imagesTr/P_{s:03d}_{c:04d}.png" for s in range(9) for c in range(3)]
    assert numbers(many) == [("P", s, c) for s in range(9) for c in range(3)]
    assert numbers([f"x/P_{s}_0000.png" for s in (3, 4)]) == [("P", 3, 0), ("P", 4, 0)]
    assert numbers([f"x/P_{c:04d}.png" for c in range(3)]) == [("P", None, c) for c in range(3)]


@pytest.mark.parametrize(
    "names",
    [
        [f"x/P_{n:04d}.png" for n in range(20)],
        [f"x/P_{n:04d}.png" for n in range(1, 4)],
        [f"x/P_{n:04d}{kind}.png" for n in range(3) for kind in ("", "_mask")],
        [f"x/P_{n:03d}.png" for n in range(3)],
        ["x/P_0000.png"],
        ["x/P_0000.png", "x/P_0001.png"],
    ],
)
def test_numbers_of_slices_are_no_channels(names: list[str]) -> None:
    assert all(name.channel is None for name in parse_all(names))
    assert [name.number for name in parse_all(names)] == [parse(name).number for name in names]


def test_numbers_in_brackets() -> None:
    renamed = [f"Patient 7 ({n}).png" for n in (1, 2, 3)]
    assert numbers(renamed) == [("Patient 7", n, None) for n in (1, 2, 3)]
    masks = [f"Patient 7 ({n})_mask.png" for n in (1, 2, 3)]
    assert numbers([*renamed, *masks]) == numbers(renamed) * 2
    # A copy beside its original is not a slice of its own.
    assert [name.number for name in parse_all(["s_001.png", "s_001 (1).png"])] == [1, 1]


HOSTILE = [
    "0",
    "9",
    " ",
    "(",
    ")",
    "(1)",
    " (1)",
    "_mask",
    "mask",
    "t1",
    "t1_",
    "ce_",
    "1 ",
    "a1",
    "Tr",
    "_-",
    "/",
    "x/",
    "masks/",
    "é",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_long_names_cost_little(piece: str) -> None:
    seconds = []
    for size in (20_000, 80_000):
        name = piece * (size // len(piece))
        names = [f"{name}.png", f"t1_{name}", f"{name}/1.png", f"{name}_0000"]
        begin = time.process_time()
        parse_all(names)
        sorted(names, key=natural)
        seconds.append(time.process_time() - begin)
    # Four times the length, at most nine times the time: what is quadratic takes sixteen times.
    assert seconds[1] < max(9 * seconds[0], 0.2)


WORDS = st.sampled_from(
    [
        "P",
        "mask",
        "seg",
        "flair",
        "t1",
        "t1ce",
        "post",
        "slice",
        "0001",
        "12",
        "_",
        "-",
        " ",
        "(3)",
        "/",
        "images",
        "GT",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(WORDS | st.text(max_size=6), max_size=8).map("".join), max_size=6))
def test_any_names_are_read(names: list[str]) -> None:
    parsed = parse_all(names)
    assert len(parsed) == len(masks_by_name(names, parsed)) == len(names)
    for name, one in zip(names, parsed, strict=True):
        assert isinstance(one, Name)
        assert one.number is None or 0 <= one.number < 10**9
        assert one.sequence in (None, "pre", "flair", "post", "t2")
        assert len(shown(name)) <= 62
    assert parsed == parse_all(names)


@settings(max_examples=100, deadline=None)
@given(
    st.from_regex(r"Q[A-Z]{1,5}_[0-9]{5,8}", fullmatch=True),
    st.integers(0, 9999),
    st.sampled_from(["", "_mask", "_seg"]),
    st.sampled_from(["", "a/", "Mrs X/images/", "x/GT/"]),
    st.sampled_from([".tif", ".PNG", ".jpeg"]),
)
def test_what_is_written_is_read(patient: str, number: int, kind: str, folder: str, suffix: str) -> None:
    parsed = parse(f"{folder}{patient}_{number}{kind}{suffix}")
    assert (parsed.patient, parsed.number, parsed.mask) == (patient, number, bool(kind))
    assert parsed.in_mask_folder == ("GT" in folder)


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order(some: list[int]) -> None:
    assert sorted((f"x_{n}.tif" for n in some), key=natural) == [f"x_{n}.tif" for n in sorted(some)]
