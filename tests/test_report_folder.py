"""Results on disk: one run whole, or nothing; never two runs in one folder."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainseg.report.folder import check_folder, run_of, write_folder
from brainseg.types import BrainsegError, ModelSpec, Source, Study, WeightsCard

STUDY = Study(
    np.zeros((2, 16, 16, 3), np.uint8), "P_1", Source("png", (), "a" * 64), (1, 2), spacing_mm=(5.0, 1.0, 1.0)
)
CARD = WeightsCard("unet", ModelSpec("unet"), {}, 0.5, "all", "b" * 64, "cc0-1.0")
RUN = run_of(STUDY, [CARD], tta=False)
FILES = {"masks/P_1_1_mask.tif": b"mask" * 10, "overlays/P_1_1_overlay.png": b"overlay" * 10_000}


def figures(study: Study = STUDY, card: WeightsCard = CARD, tta: bool = False) -> dict[str, bytes]:
    report: dict[str, Any] = {
        "case_id": study.case_id,
        "source": {"sha256": study.source.sha256},
        "spacing_mm": None if study.spacing_mm is None else list(study.spacing_mm),
        "models": {card.name: {"weights_sha256": card.sha256, "tta": tta}},
    }
    return {"P_1.csv": b"csv", "P_1.json": json.dumps(report).encode()}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def complaint(out: Path, run: dict[str, Any] = RUN) -> str:
    before = contents(out) if os.path.isdir(out) else None
    with pytest.raises(BrainsegError) as caught:
        check_folder(out, run)
    message = str(caught.value)
    assert message.endswith("; choose another --out")
    assert str(out) in message
    assert "\n" not in message
    assert before is None or contents(out) == before
    return message


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_new_folder_holds_the_whole_run(tmp_path: Path) -> None:
    out = tmp_path / "made" / "here"
    check_folder(out, RUN)
    assert not (tmp_path / "made").exists(), "looking leaves nothing behind"
    write_folder(out, FILES, figures())
    assert contents(out) == FILES | figures()


def test_an_empty_folder_will_do_and_so_will_the_same_run(tmp_path: Path) -> None:
    check_folder(tmp_path, RUN)
    write_folder(tmp_path, FILES, figures())
    (tmp_path / "notes.txt").write_text("mine")
    check_folder(tmp_path, RUN)
    write_folder(tmp_path, FILES | {"masks/P_1_1_mask.tif": b"again"}, figures())
    assert contents(tmp_path) == {
        **FILES,
        "masks/P_1_1_mask.tif": b"again",
        "notes.txt": b"mine",
        **figures(),
    }


@pytest.mark.parametrize(
    "other",
    [
        run_of(replace(STUDY, case_id="P_2"), [CARD], tta=False),
        run_of(replace(STUDY, source=Source("png", (), "c" * 64)), [CARD], tta=False),
        run_of(replace(STUDY, spacing_mm=None), [CARD], tta=False),
        run_of(STUDY, [replace(CARD, sha256="d" * 64)], tta=False),
        run_of(STUDY, [replace(CARD, name="other")], tta=False),
        run_of(STUDY, [CARD, replace(CARD, name="other")], tta=False),
        run_of(STUDY, [CARD], tta=True),
    ],
    ids=["patient", "files", "spacing", "weights", "model", "more models", "flips"],
)
def test_another_run_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    write_folder(tmp_path, FILES, figures())
    assert "holds the results of another run (patient P_1, unet)" in complaint(tmp_path, other)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"\xff", b'{"models": {"a": 1}}', b"[" * 100_000])
def test_what_is_no_run_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "package.json").write_bytes(content)
    assert "is not empty (it holds 'package.json')" in complaint(tmp_path)


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert "is a file, not a folder" in complaint(tmp_path / "file")
    assert "cannot write to --out" in complaint(tmp_path / "file" / "below")
    assert "cannot write to --out" in complaint(Path("/proc/nowhere"))
    assert "cannot write to --out" in complaint(tmp_path / ("x" * 300))


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_nothing(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "made" / "here"
    if there:
        out.mkdir(parents=True)
    with room_for(50_000), pytest.raises(BrainsegError, match=r"cannot write to --out .*; choose another"):
        write_folder(out, FILES, figures())
    assert list(tmp_path.iterdir()) == ([tmp_path / "made"] if there else [])
    assert not there or list(out.iterdir()) == []


def test_a_full_disk_leaves_the_run_before(tmp_path: Path) -> None:
    write_folder(tmp_path, FILES, figures())
    with room_for(50_000), pytest.raises(BrainsegError):
        write_folder(tmp_path, {name: data[::-1] for name, data in FILES.items()}, figures())
    assert contents(tmp_path) == FILES | figures()


def test_a_kill_between_files_leaves_no_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    replace_file = os.replace

    def killed(source: Path, target: Path) -> None:
        if len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(target.name)
        replace_file(source, target)

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path, FILES, figures())
    monkeypatch.undo()
    assert "P_1.json" not in contents(tmp_path)
    assert "no results are in it" in complaint(tmp_path)
