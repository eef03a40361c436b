"""The LGG set: layout, IDs, folds, and fetching with Kaggle played by a folder."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from brainseg.datasets import lgg
from brainseg.datasets.lgg import institution, patient_folders, read_fold, read_patients, without_mask
from brainseg.types import BrainsegError, InputError

FOLDS = Path(__file__).resolve().parent.parent / "recipes" / "lgg_folds.json"


def write_patient(folder: Path, numbers: Sequence[int], masks: Sequence[int] | None = None) -> None:
    """Slices whose grey level is ten times their number, in the layout of the LGG data."""
    folder.mkdir(parents=True)
    for number in numbers:
        pixels = np.full((16, 16, 3), 10 * number, np.uint8)
        pixels[0], pixels[1] = 0, 5
        name = f"{folder.name}_{number}"
        tifffile.imwrite(folder / f"{name}.tif", pixels, photometric="rgb")
        if masks is None or number in masks:
            mask = np.zeros((16, 16), np.uint8)
            mask[4:8, 4:8] = 255
            tifffile.imwrite(folder / f"{name}_mask.tif", mask)


# --- patients ---------------------------------------------------------------------------------------------


def test_slices_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_patient(tmp_path / "SYN_AA_0001", range(1, 13))
    (one,) = read_patients(tmp_path, ["SYN_AA_0001"])
    assert one.slice_numbers == tuple(range(1, 13))
    assert [int(image.max()) for image in one.slices] == [10 * n for n in range(1, 13)]
    assert without_mask(one) == 0


def test_patient_folders_in_natural_order_without_the_empty_and_the_hidden(tmp_path: Path) -> None:
    for name in ("P_A_10", "P_A_2", "P_A_3", ".cache"):
        (tmp_path / "kaggle_3m" / name).mkdir(parents=True)
        (tmp_path / "kaggle_3m" / name / "x.tif").touch()
    (tmp_path / "kaggle_3m" / "P_A_1").mkdir()
    (tmp_path / "kaggle_3m" / "data.csv").touch()
    assert list(patient_folders(tmp_path)) == ["P_A_2", "P_A_3", "P_A_10"]
    assert list(patient_folders(tmp_path / "kaggle_3m")) == ["P_A_2", "P_A_3", "P_A_10"]
    assert list(patient_folders(tmp_path, empty=True)) == ["P_A_1", "P_A_2", "P_A_3", "P_A_10"]


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        patient_folders(tmp_path / "none")
    with pytest.raises(InputError, match="no patient folders"):
        patient_folders(tmp_path)


def test_training_asks_for_every_mask(tmp_path: Path) -> None:
    write_patient(tmp_path / "SYN_AA_0001", [1, 2, 3], masks=[1, 3])
    write_patient(tmp_path / "SYN_AA_0002", [1, 2], masks=[])
    with pytest.raises(InputError, match=r"SYN_AA_0001 has no mask for 1 slice;"):
        read_patients(tmp_path, ["SYN_AA_0001"])
    with pytest.raises(InputError, match=r"SYN_AA_0002 has no mask for 2 slices;"):
        read_patients(tmp_path, ["SYN_AA_0002"])
    with pytest.raises(InputError, match=r"lacks 2 patients of the split, first SYN_AA_0008"):
        read_patients(tmp_path, ["SYN_AA_0001", "SYN_AA_0008", "SYN_AA_0009"])


# --- folds ------------------------------------------------------------------------------------------------


def check_folds(folds: Sequence[Sequence[str]], patients: Sequence[str]) -> None:
    """Disjoint, complete, of even sizes, and each institution spread evenly."""
    assert sorted(patient for fold in folds for patient in fold) == sorted(patients)
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for name in {institution(patient) for patient in patients}:
        counts = [sum(institution(patient) == name for patient in fold) for fold in folds]
        assert max(counts) - min(counts) <= 1, name


def test_the_committed_folds() -> None:
    folds = json.loads(FOLDS.read_text())["folds"]
    patients = [patient for fold in folds for patient in fold]
    assert len(patients) == len(set(patients)) == 95
    assert Counter(map(institution, patients)) == {"DU": 39, "HT": 29, "CS": 14, "FG": 12, "EZ": 1}
    check_folds(folds, patients)


@pytest.mark.parametrize("fold", range(5))
def test_training_and_validation_are_disjoint(fold: int) -> None:
    training, validation = read_fold(FOLDS, fold)
    assert len(set(training) | set(validation)) == len(training) + len(validation) == 95
    assert len(validation) == 19


@pytest.mark.parametrize(
    ("text", "fold", "says"),
    [
        ('{"folds": [["a"], ["b"]]}', 2, "has folds 0 to 1, not 2"),
        ('{"folds": [["a"], ["b"]]}', -1, "has folds 0 to 1, not -1"),
        ('{"folds": [["a", "b"], ["c", "a"]]}', 0, "names a twice"),
        ('{"folds": 3}', 0, "is not a split"),
        ('{"other": 3}', 0, "is not a split"),
        ("[1]", 0, "is not a split"),
        ("{", 0, "is not a split"),
        (None, 0, "is not a split"),
    ],
)
def test_a_split_that_is_none(tmp_path: Path, text: str | None, fold: int, says: str) -> None:
    path = tmp_path / "folds.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=says):
        read_fold(path, fold)


# --- fetching ---------------------------------------------------------------------------------------------


def pretend(monkeypatch: pytest.MonkeyPatch, download: Any, head: Any = lambda *_, **__: None) -> None:
    """Stand-ins for kagglehub and requests."""
    hub, requests = ModuleType("kagglehub"), ModuleType("requests")
    hub.dataset_download = download  # type: ignore[attr-defined]
    requests.head = head  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    monkeypatch.setitem(sys.modules, "requests", requests)
    monkeypatch.setattr(lgg, "find_spec", lambda name: object())


def sentence(caught: pytest.ExceptionInfo[BrainsegError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert "https://www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation" in text
    return text


def test_fetch_returns_the_folder_of_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(handle: str, output_dir: str | None = None) -> str:
        asked.append((handle, output_dir))
        print("an advertisement")  # noqa: T201
        assert not logging.getLogger("kagglehub").isEnabledFor(logging.CRITICAL)
        folder = Path(output_dir or tmp_path / "cache")
        (folder / "kaggle_3m").mkdir(parents=True)
        return str(folder)

    pretend(monkeypatch, download)
    assert lgg.fetch(tmp_path / "here") == tmp_path / "here" / "kaggle_3m"
    assert lgg.fetch() == tmp_path / "cache" / "kaggle_3m"
    assert asked == [(lgg.SLUG, str(tmp_path / "here")), (lgg.SLUG, None)]
    assert capsys.readouterr().out == ""
    assert logging.getLogger("kagglehub").level != logging.CRITICAL + 1


def test_fetch_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(url: str, *, timeout: float) -> None:
        assert timeout <= 10
        raise ConnectionError("name not resolved\nand more")

    pretend(monkeypatch, lambda *_, **__: pytest.fail("it gave up before"), no_network)
    with pytest.raises(BrainsegError) as caught:
        lgg.fetch(tmp_path)
    assert "could not be fetched from Kaggle (ConnectionError); check the network" in sentence(caught)


def test_fetch_without_kagglehub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lgg, "find_spec", lambda name: None)
    with pytest.raises(BrainsegError) as caught:
        lgg.fetch()
    assert "pip install kagglehub" in sentence(caught)


def test_fetch_of_another_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda *_, **__: str(tmp_path))
    with pytest.raises(BrainsegError) as caught:
        lgg.fetch()
    assert "holds no kaggle_3m folder" in sentence(caught)


class NotFoundError(Exception):
    """As kagglehub names it."""


def kaggle(monkeypatch: pytest.MonkeyPatch, download: Callable[..., str]) -> None:
    """Put `download` in kagglehub's place, with a Kaggle that answers."""
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=download))
    monkeypatch.setitem(sys.modules, "requests", SimpleNamespace(head=lambda url, timeout: None))


def test_fetches_slices_and_masks_until_there_are_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "kaggle_3m" / "P1"
    folder.mkdir(parents=True)
    for n in range(1, 12):
        (folder / f"P1_{n}.tif").write_bytes(b"slice")
        (folder / f"P1_{n}_mask.tif").write_bytes(b"mask")

    def download(handle: str, path: str) -> str:
        assert handle == lgg.SLUG
        if not (tmp_path / path).exists():
            raise NotFoundError(path)
        return str(tmp_path / path)

    kaggle(monkeypatch, download)
    files = lgg.fetch_patient("P1")
    assert len(files) == 22
    assert files[0].name == "P1/P1_1.tif"
    with pytest.raises(InputError, match="no such patient"):
        lgg.fetch_patient("P2")


def test_offline_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(handle: str, path: str) -> str:
        raise ConnectionError("name resolution failed")

    kaggle(monkeypatch, download)
    with pytest.raises(InputError, match="cannot be reached from here"):
        lgg.fetch_patient("P1")


def test_a_firewall_that_swallows_packets_is_the_same_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def swallowed(url: str, timeout: float) -> None:
        assert timeout <= 5
        raise TimeoutError(url)

    kaggle(monkeypatch, lambda *_, **__: pytest.fail("kagglehub would wait without limit"))
    monkeypatch.setitem(sys.modules, "requests", SimpleNamespace(head=swallowed))
    with pytest.raises(InputError, match="cannot be reached from here"):
        lgg.fetch_patient("P1")


def test_without_kagglehub_the_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(InputError, match="install brainseg again"):
        lgg.fetch_patient("P1")
