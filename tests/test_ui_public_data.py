"""Fetching one public patient, with Kaggle played by a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from brainseg.types import InputError
from brainseg.ui import public_data


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
        assert handle == public_data.DATASET
        if not (tmp_path / path).exists():
            raise NotFoundError(path)
        return str(tmp_path / path)

    kaggle(monkeypatch, download)
    files = public_data.fetch_patient("P1")
    assert len(files) == 22
    assert files[0].name == "P1/P1_1.tif"
    with pytest.raises(InputError, match="no such patient"):
        public_data.fetch_patient("P2")


def test_offline_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(handle: str, path: str) -> str:
        raise ConnectionError("name resolution failed")

    kaggle(monkeypatch, download)
    with pytest.raises(InputError, match="cannot be reached from here"):
        public_data.fetch_patient("P1")


def test_a_firewall_that_swallows_packets_is_the_same_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def swallowed(url: str, timeout: float) -> None:
        assert timeout <= 5
        raise TimeoutError(url)

    kaggle(monkeypatch, lambda *_, **__: pytest.fail("kagglehub would wait without limit"))
    monkeypatch.setitem(sys.modules, "requests", SimpleNamespace(head=swallowed))
    with pytest.raises(InputError, match="cannot be reached from here"):
        public_data.fetch_patient("P1")


def test_without_kagglehub_the_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(InputError, match="install brainseg again"):
        public_data.fetch_patient("P1")
