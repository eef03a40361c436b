from __future__ import annotations

from pathlib import Path

import pytest

from brainseg.files import atomic_write


def test_the_whole_file_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    for data in (b"one", b"two"):
        with atomic_write(path) as file:
            file.write(data)
            assert not path.exists() or path.read_bytes() != data
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(b"one")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.write("text is not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]
