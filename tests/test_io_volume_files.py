"""Names of volume files: whose they are and which sequence they hold."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from heads import affine_of, nifti, patient, read
from PIL import Image

from brainseg.grid import to_origin
from brainseg.io import NamedBytes, find_cases
from brainseg.types import InputError

SHAPE = (5, 6, 4)
AFFINE = affine_of(spacing=(1.0, 1.0, 5.0), shape=SHAPE)


def volume(seed: int = 0, count: int = 1) -> bytes:
    shape = SHAPE if count == 1 else (*SHAPE, count)
    return nifti(np.random.default_rng(seed).integers(1, 1000, shape).astype(np.int16), AFFINE)


VOLUME = volume()


def found(*names: str, count: int = 1) -> dict[str, str]:
    """Case id -> what each of its series was recognised as."""
    data = volume(count=count)
    return {
        case.case_id: " ".join(
            f"{one.key.removesuffix('.nii').removesuffix('.nii.gz')}={one.role}" for one in case.series
        )
        for case in find_cases([NamedBytes(name, data) for name in names])
    }


LAYOUTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "BraTS 2020": (
        tuple(
            f"B/BraTS20_Training_00{n}/BraTS20_Training_00{n}_{s}.nii"
            for n in (1, 2)
            for s in ("t1", "flair", "t1ce", "t2", "seg")
        ),
        {
            f"BraTS20_Training_00{n}": " ".join(
                f"BraTS20_Training_00{n}_{s}={r}"
                for s, r in (
                    ("flair", "flair"),
                    ("seg", "mask"),
                    ("t1", "pre"),
                    ("t1ce", "post"),
                    ("t2", None),
                )
            )
            for n in (1, 2)
        },
    ),
    "BraTS 2023": (
        tuple(
            f"BraTS-GLI-00000-000/BraTS-GLI-00000-000-{s}.nii" for s in ("t1n", "t1c", "t2f", "t2w", "seg")
        ),
        {
            "BraTS-GLI-00000-000": "BraTS-GLI-00000-000-seg=mask BraTS-GLI-00000-000-t1c=post "
            "BraTS-GLI-00000-000-t1n=pre BraTS-GLI-00000-000-t2f=flair BraTS-GLI-00000-000-t2w=None"
        },
    ),
    "BraTS 2020, a mask of another name": (
        ("P/BraTS20_355_flair.nii", "P/BraTS20_355_t1.nii", "P/W39_1998.09.19_Segm.nii"),
        {"BraTS20_355": "BraTS20_355_flair=flair BraTS20_355_t1=pre W39_1998.09.19_Segm=mask"},
    ),
    "nnU-Net, three channels": (
        (
            *(f"D/imagesTr/A_00{n}_000{c}.nii" for n in (1, 2) for c in range(3)),
            *("D/labelsTr/A_001.nii", "D/labelsTr/A_002.nii"),
        ),
        {f"A_00{n}": f"A_00{n}_0000=pre A_00{n}_0001=flair A_00{n}_0002=post A_00{n}=mask" for n in (1, 2)},
    ),
    "nnU-Net, one channel": (
        ("D/imagesTr/A_001_0000.nii", "D/imagesTr/A_002_0000.nii", "D/labelsTr/A_001.nii"),
        {"A_001": "A_001_0000=flair A_001=mask", "A_002": "A_002_0000=flair"},
    ),
    "nnU-Net, four channels that nothing names": (
        tuple(f"D/imagesTs/A_00{n}_000{c}.nii" for n in (1, 2) for c in range(4)),
        {f"A_00{n}": " ".join(f"A_00{n}_000{c}=None" for c in range(4)) for n in (1, 2)},
    ),
    "BIDS": (
        tuple(
            f"sub-0{n}/anat/sub-0{n}_{s}.nii" for n in (1, 2) for s in ("FLAIR", "T1w", "ce-gadolinium_T1w")
        ),
        {
            f"sub-0{n}": f"sub-0{n}_ce-gadolinium_T1w=post sub-0{n}_FLAIR=flair sub-0{n}_T1w=pre"
            for n in (1, 2)
        },
    ),
    "plain names, a folder a patient": (
        ("a/flair.nii", "a/t1.nii", "a/mask.nii", "b/FLAIR.nii", "b/T1_post.nii"),
        {"a": "flair=flair mask=mask t1=pre", "b": "FLAIR=flair T1_post=post"},
    ),
    "one folder, FLAIR alone": (
        ("d/p1_flair.nii", "d/p2_flair.nii"),
        {"p1": "p1_flair=flair", "p2": "p2_flair=flair"},
    ),
    "as dcm2niix names them": (
        ("s/301_AX_FLAIR.nii", "s/401_AX_T1.nii", "s/501_AX_T1_GD.nii", "s/601_DWI_ADC.nii"),
        {"s": "301_AX_FLAIR=flair 401_AX_T1=pre 501_AX_T1_GD=post 601_DWI_ADC=None"},
    ),
    "two FLAIRs of one patient": (
        ("s/3_FLAIR.nii", "s/4_FLAIR_reformat.nii", "s/5_T1.nii"),
        {"s": "3_FLAIR=flair 4_FLAIR_reformat=flair 5_T1=pre"},
    ),
    "UCSF-PDGM": (
        tuple(
            f"U/UCSF-PDGM-0004_{s}.nii"
            for s in ("FLAIR", "T1", "T1c", "ADC", "tumor_segmentation", "brain_segmentation")
        ),
        {
            "UCSF-PDGM-0004": "UCSF-PDGM-0004_ADC=None UCSF-PDGM-0004_brain_segmentation=None "
            "UCSF-PDGM-0004_FLAIR=flair UCSF-PDGM-0004_T1=pre UCSF-PDGM-0004_T1c=post "
            "UCSF-PDGM-0004_tumor_segmentation=mask"
        },
    ),
    "MPRAGE and TIRM": (
        ("p/t1_mprage.nii", "p/t1_mprage_gd.nii", "p/t2_tirm.nii"),
        {"p": "t1_mprage=pre t1_mprage_gd=post t2_tirm=flair"},
    ),
    "one unnamed image": (("p/scan.nii", "p/scan_mask.nii"), {"p": "scan=flair scan_mask=mask"}),
    "train and test of one name": (
        ("D/imagesTr/A_flair.nii", "D/imagesTs/A_flair.nii"),
        {"A": "A_flair=flair", "A (2)": "A_flair=flair"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_data_sets(layout: str) -> None:
    names, expected = LAYOUTS[layout]
    assert found(*names) == expected
    assert found(*reversed(names)) == expected


def test_dataset_json_names_the_channels() -> None:
    files = [NamedBytes(f"D/imagesTr/A_001_000{c}.nii", volume(c)) for c in range(4)]
    named = {"channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}}
    [case] = find_cases([*files, NamedBytes("D/dataset.json", json.dumps(named).encode())])
    assert [one.role for one in case.series] == ["pre", "post", None, "flair"]
    for damaged in (b"{", b"[1]", b'{"modality": {"1": "T1"}}', b'{"modality": 5}'):
        [case] = find_cases([*files, NamedBytes("D/dataset.json", damaged)])
        assert [one.role for one in case.series] == [None] * 4


def test_4d_files() -> None:
    assert found("p/x.nii", count=3) == {"x": "x.nii:1=pre x.nii:2=flair x.nii:3=post"}
    decathlon = found("D/imagesTr/BRATS_001.nii", "D/imagesTr/BRATS_002.nii", count=4)
    assert decathlon == {
        f"BRATS_00{n}": f"BRATS_00{n}.nii:1=flair BRATS_00{n}.nii:2=pre BRATS_00{n}.nii:3=post "
        f"BRATS_00{n}.nii:4=None"
        for n in (1, 2)
    }
    files = [NamedBytes("p/x.nii", volume(count=3))]
    study, turned = read(files), read(files, channels=["post", "pre", "flair"])
    assert np.array_equal(turned.slices[..., 2], study.slices[..., 0])
    assert np.array_equal(turned.slices[..., 0], study.slices[..., 1])
    assert study.source.files[0].note.count("taken in the order pre, flair, post") == 3
    with pytest.raises(InputError, match="No FLAIR was recognised"):
        read([NamedBytes("p/x.nii", volume(count=4))])


def test_several_patients_are_told_apart_from_slices_and_each_other() -> None:
    cases = find_cases([NamedBytes("a/x_flair.nii", VOLUME), NamedBytes("b/x_flair.nii", VOLUME)])
    assert [case.case_id for case in cases] == ["x", "x (2)"]


def test_pictures_beside_volumes_are_set_aside() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, "PNG")
    [case] = find_cases([NamedBytes("p/flair.nii", VOLUME), NamedBytes("p/preview.png", buffer.getvalue())])
    assert case.kind == "nifti"
    assert [(file.name, file.note) for file in case.ignored] == [
        ("preview.png", "a picture beside volumes, which were taken instead")
    ]


def test_content_counts_where_the_name_says_nothing() -> None:
    [case] = find_cases([NamedBytes("p/flair", VOLUME)])
    assert case.kind == "nifti"
    assert [one.role for one in case.series] == ["flair"]


def test_two_flairs_need_a_choice() -> None:
    files = [NamedBytes("s/3_FLAIR.nii", volume(0)), NamedBytes("s/4_FLAIR.nii", volume(1))]
    [case] = find_cases([*files, NamedBytes("s/5_T1.nii", volume(2))])
    with pytest.raises(InputError, match=r"--sequence flair=3_FLAIR\.nii"):
        read([*files, NamedBytes("s/5_T1.nii", volume(2))])
    study = read([*files, NamedBytes("s/5_T1.nii", volume(2))], roles={"4_FLAIR.nii": "flair"})
    assert case.series[0].title == "3_FLAIR.nii, 4 x 6 x 5 voxels of 5 x 1 x 1 mm"
    values = np.random.default_rng(1).integers(1, 1000, SHAPE).astype(np.int16)
    assert np.array_equal(to_origin(study.slices[..., 1], study).T, values)


def test_equal_names_have_keys_of_their_own() -> None:
    [case] = find_cases([NamedBytes("p/FLAIR/image.nii", volume(0)), NamedBytes("p/T1/image.nii", volume(1))])
    assert {one.key: one.role for one in case.series} == {
        "p/FLAIR/image.nii": "flair",
        "p/T1/image.nii": "pre",
    }


def test_folder_zip_and_upload_give_one_study() -> None:
    files = patient(affine_of(), (40, 44, 24))
    moved = [NamedBytes(f"elsewhere/{file.name}", file.data) for file in reversed(files)]
    assert read(moved).source.sha256 == read(files).source.sha256
    assert [f.name for f in read(moved).source.files] == [f.name for f in read(files).source.files]
