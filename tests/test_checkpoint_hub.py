"""Weights by name, from folders and from a Hub on this machine that the real client talks to."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import fake_hub
import pytest
from fake_hub import FakeHub, point_at
from huggingface_hub import constants

from brainseg.checkpoint import CONFIG, TENSORS, bundled, bundled_names, hub, is_local, load, read_card, save
from brainseg.models import ARCHITECTURES, build
from brainseg.types import ModelSpec, WeightsCard, WeightsError

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """The client looks for the Hub on this machine, and its cache is empty."""
    with fake_hub.running() as served:
        point_at(served.address, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        yield served


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in an installed package: no weights beside it, though a folder of that name."""
    (tmp_path / "site-packages" / "weights").mkdir(parents=True)
    monkeypatch.setattr(hub, "BUNDLED", tmp_path / "site-packages" / "weights")


def unplug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens where the Hub was."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    point_at(f"http://127.0.0.1:{port}", monkeypatch)


def weights(folder: Path, name: str = "tester", architecture: str = "unet") -> Path:
    spec = ModelSpec(architecture, 4)
    card = WeightsCard(name, spec, {"size": 64, "low": 0.5, "high": 99.5}, 0.35, "largest", "", "test")
    save(folder, build(spec), card)
    (folder / "README.md").write_text("card", encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return folder


def complaint(name: str) -> str:
    started = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        load(name)
    assert time.perf_counter() - started < 2 * hub.HUB_TIMEOUT_S
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Hub ids ---


def test_a_hub_id_is_fetched_once_and_nothing_but_card_and_tensors(online: FakeHub, tmp_path: Path) -> None:
    folder = weights(tmp_path / "mine")
    online.publish("someone/unet", folder, FIRST, "main")
    for name in ("someone/unet", f"someone/unet@{FIRST}"):
        assert load(name).card == read_card(folder)
    assert {line.rpartition("/")[2] for line in online.asked} == {CONFIG, TENSORS}
    online.asked.clear()
    load(f"someone/unet@{FIRST}")
    assert online.asked == []  # a commit that is here: nobody is asked


def test_a_branch_that_moved_is_fetched_anew_and_never_mixed(online: FakeHub, tmp_path: Path) -> None:
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two", "other")
    online.publish("someone/unet", one, FIRST, "main")
    assert load("someone/unet").card.name == "tester"
    online.publish("someone/unet", two, SECOND, "main")
    assert load("someone/unet").card == read_card(two)
    assert load(f"someone/unet@{FIRST}").card == read_card(one)


def test_the_sha256_of_what_the_hub_gives_is_checked(online: FakeHub, tmp_path: Path) -> None:
    folder = weights(tmp_path / "mine")
    data = bytearray((folder / TENSORS).read_bytes())
    data[-1] ^= 1
    (folder / TENSORS).write_bytes(data)
    online.publish("someone/unet", folder, FIRST, "main")
    assert "is not the file its card describes" in complaint("someone/unet")


@pytest.mark.parametrize("name", ["no/such", "someone/unet@v9", "some one/ü@@"])
def test_what_the_hub_does_not_have_is_one_sentence(online: FakeHub, tmp_path: Path, name: str) -> None:
    online.publish("someone/unet", weights(tmp_path / "mine"), FIRST, "main")
    assert "neither a folder nor within reach on the Hub" in complaint(name)


def test_without_a_network_what_is_cached_is_used_and_the_rest_is_one_sentence_at_once(
    online: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = weights(tmp_path / "mine")
    online.publish("someone/unet", folder, FIRST, "main")
    load("someone/unet")
    unplug(monkeypatch)
    assert load("someone/unet").card == load(f"someone/unet@{FIRST}").card == read_card(folder)
    assert complaint("someone/other") == (
        "weights 'someone/other' are neither a folder nor within reach on the Hub; "
        "check the name and the network connection"
    )


def test_a_hub_that_never_answers_is_given_up_soon(online: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HUB_TIMEOUT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        point_at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        started = time.perf_counter()
        with pytest.raises(WeightsError, match="within reach"):
            load("someone/unet")
    assert time.perf_counter() - started < 5


# --- bundled names of an installed package ---


def test_the_table_of_releases_is_that_of_the_weights_in_the_repository() -> None:
    stated = {name: json.loads((WEIGHTS / name / CONFIG).read_bytes())["sha256"] for name in ARCHITECTURES}
    assert {name: release.sha256 for name, release in hub.released().items()} == stated
    for name, release in hub.released().items():
        assert release.repo.rpartition("/")[2] == name
        assert len(release.revision) == 40
        assert int(release.revision, 16) >= 0


@pytest.mark.usefixtures("installed")
def test_an_installed_package_has_its_names_from_the_hub(online: FakeHub, tmp_path: Path) -> None:
    for name, release in hub.released().items():
        online.publish(release.repo, WEIGHTS / name, release.revision)
    assert bundled_names() == tuple(ARCHITECTURES)
    assert online.asked == []
    cards = bundled()
    assert list(cards) == list(ARCHITECTURES)
    assert not any(line.endswith(TENSORS) for line in online.asked)  # a list of cards is a few kilobytes
    assert not is_local("unet")
    model = load("unet")
    assert model.card == cards["unet"] == read_card(WEIGHTS / "unet")
    online.asked.clear()
    assert load("unet").card == model.card
    assert online.asked == []


@pytest.mark.usefixtures("installed")
def test_other_weights_under_a_released_name_are_refused(online: FakeHub, tmp_path: Path) -> None:
    """Sound in themselves, and yet not those that this version pins."""
    release = hub.released()["unet"]
    online.publish(release.repo, weights(tmp_path / "changed", "unet"), release.revision)
    message = complaint("unet")
    assert "does not hold the weights unet of this version" in message
    assert release.sha256[:12] in message


@pytest.mark.usefixtures("installed")
def test_a_bundled_name_without_network_or_cache_is_one_sentence_at_once(
    online: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    unplug(monkeypatch)
    expected = (
        "weights 'unet' are neither here nor within reach on the Hub (brainseg/unet); "
        "check the network connection, or give a weights folder"
    )
    assert complaint("unet") == expected
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert complaint("unet") == expected


def test_a_clone_asks_nobody(online: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(WEIGHTS / "unet", tmp_path / "weights" / "unet")
    monkeypatch.setattr(hub, "BUNDLED", tmp_path / "weights")
    assert bundled_names() == ("unet",)
    assert load("unet").card == bundled()["unet"]
    assert is_local("unet")
    assert not is_local("unetpp")
    assert "bundled weights 'unetpp' are not installed" in complaint("unetpp")
    assert online.asked == []
