"""Weights by name, from folders and from a Hub on this machine that the real client talks to."""

from __future__ import annotations

import errno
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import fake_hub
import pytest
from fake_hub import TOKEN, FakeHub, Fault, point_at, published, weights
from huggingface_hub import constants, hf_hub_download, scan_cache_dir

import brainseg
from brainseg.checkpoint import (
    CONFIG,
    README,
    TENSORS,
    bundled,
    bundled_names,
    hub,
    is_local,
    load,
    pull,
    read_card,
    whereabouts,
)
from brainseg.models import ARCHITECTURES
from brainseg.types import WeightsError

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "weights"
FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """The client looks for the Hub on this machine, and its cache is empty."""
    with fake_hub.connected(monkeypatch, tmp_path) as served:
        yield served


@pytest.fixture
def mine(online: FakeHub, tmp_path: Path) -> Path:
    """A weights folder that the Hub holds as someone/unet, branch main."""
    folder = weights(tmp_path / "mine", name="tester")
    online.publish("someone/unet", folder, FIRST, "main")
    return folder


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in an installed package: no weights beside it, though a folder of that name."""
    (tmp_path / "site-packages" / "weights").mkdir(parents=True)
    monkeypatch.setattr(hub, "BUNDLED", tmp_path / "site-packages" / "weights")


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, hub.Release]]:
    """The table of releases once there is one."""
    table = published()
    text = json.dumps({name: asdict(row) for name, row in table.items()})
    (tmp_path / "released.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(hub, "RELEASED", tmp_path / "released.json")
    hub.released.cache_clear()
    yield table
    hub.released.cache_clear()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have slept between its tries."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def unplug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens where the Hub was."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    point_at(f"http://127.0.0.1:{port}", monkeypatch)


def complaint(name: str) -> str:
    started = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        load(name)
    assert time.perf_counter() - started < 2 * hub.HUB_TIMEOUT_S
    assert "\n" not in str(caught.value)
    return str(caught.value)


def large(folder: Path, kilobytes: int = 400) -> Path:
    """Tensors of more than one of the client's reads: a comment in the header fills them up."""
    data = (folder / TENSORS).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = {"filler": "x" * (1000 * kilobytes)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + data[8 + length :]
    (folder / TENSORS).write_bytes(data)
    card = json.loads((folder / CONFIG).read_bytes())
    card["sha256"] = fake_hub.sha256(data)
    (folder / CONFIG).write_text(json.dumps(card), encoding="utf-8")
    return folder


# --- Hub ids ---


def test_a_hub_id_is_fetched_once_and_nothing_but_card_and_tensors(online: FakeHub, mine: Path) -> None:
    for name in ("someone/unet", f"someone/unet@{FIRST}"):
        assert load(name).card == read_card(mine)
    assert {line.rpartition("/")[2] for line in online.asked} == {CONFIG, TENSORS}
    assert online.fetched == [""]  # the whole of it, once
    online.asked.clear()
    load(f"someone/unet@{FIRST}")
    assert online.asked == []  # a commit that is here: nobody is asked


def test_a_branch_that_moved_is_fetched_anew_and_never_mixed(
    online: FakeHub, mine: Path, tmp_path: Path
) -> None:
    two = weights(tmp_path / "two", name="other", seed=1)
    assert load("someone/unet").card.name == "tester"
    online.publish("someone/unet", two, SECOND, "main")
    assert load("someone/unet").card == read_card(two)
    assert load(f"someone/unet@{FIRST}").card == read_card(mine)


def test_a_tag_is_a_revision(online: FakeHub, mine: Path) -> None:
    online.repos["someone/unet"].tags["v1.0"] = FIRST
    assert load("someone/unet@v1.0").card == read_card(mine)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("no/such", "the Hub shows no repository no/such; check the name, or log in with `hf auth login`"),
        (
            "someone/unet@v9",
            "the repository someone/unet has no revision 'v9' on the Hub; take a branch, tag",
        ),
        ("some one/ü@@", "'some one/ü@@' is not a Hub id; write owner/name or owner/name@revision"),
        ("someone/other", "someone/other on the Hub holds no config.json, so that it is not a repository of"),
    ],
)
def test_what_the_hub_does_not_have_is_one_sentence(
    online: FakeHub, mine: Path, tmp_path: Path, name: str, expected: str
) -> None:
    (tmp_path / "other").mkdir()
    online.publish("someone/other", tmp_path / "other", FIRST, "main")
    assert complaint(name).startswith(expected)
    assert not list(tmp_path.glob("cache/*/snapshots"))


def test_another_program_s_model_is_refused_before_its_tensors_are_fetched(
    online: FakeHub, tmp_path: Path
) -> None:
    folder = weights(tmp_path / "mine")
    (folder / CONFIG).write_text('{"architectures": ["BertModel"]}', encoding="utf-8")
    online.publish("someone/bert", folder, FIRST, "main")
    message = complaint("someone/bert")
    assert message.startswith("someone/bert from the Hub cannot be used: ")
    assert "config.json is not a brainseg weights card" in message
    assert online.fetched == []


def test_weights_of_another_network_than_the_card_says(online: FakeHub, mine: Path, tmp_path: Path) -> None:
    card = json.loads((mine / CONFIG).read_bytes())
    card["spec"]["architecture"] = "unetpp"
    (mine / CONFIG).write_text(json.dumps(card), encoding="utf-8")
    online.publish("someone/wrong", mine, FIRST, "main")
    message = complaint("someone/wrong")
    assert message.startswith("someone/wrong from the Hub cannot be used: ")
    assert message.endswith("these are weights of another network")


def test_a_card_newer_than_the_program_says_what_to_do(online: FakeHub, mine: Path) -> None:
    card = json.loads((mine / CONFIG).read_bytes())
    card |= {"version": "9.1.0", "atlas": "MNI"}
    (mine / CONFIG).write_text(json.dumps(card), encoding="utf-8")
    online.publish("someone/newer", mine, FIRST, "main")
    message = complaint("someone/newer")
    assert f"was written by brainseg 9.1.0, which knows more than this {brainseg.__version__}" in message
    assert message.endswith("pip install --upgrade brainseg-lgg")
    card["version"] = brainseg.__version__
    (mine / CONFIG).write_text(json.dumps(card), encoding="utf-8")
    assert "is not a brainseg weights card (unknown key atlas" in complaint(str(mine))


# --- downloads that go wrong ---


def test_a_connection_that_breaks_in_the_middle_goes_on_from_there(
    online: FakeHub, tmp_path: Path, no_waiting: list[float]
) -> None:
    folder = large(weights(tmp_path / "mine"))
    online.publish("someone/unet", folder, FIRST, "main")
    online.faults = [Fault("GET /cdn/", drop_after=100_000), Fault("GET /cdn/", drop_after=50_000)]
    assert load("someone/unet").card == read_card(folder)
    gets = [one for one in online.fetched if one]
    starts = [int(one.removeprefix("bytes=").removesuffix("-")) for one in gets]
    assert starts == [100_000, 150_000]


def test_what_a_killed_program_had_fetched_is_not_fetched_again(online: FakeHub, tmp_path: Path) -> None:
    folder = large(weights(tmp_path / "mine"))
    online.publish("someone/unet", folder, FIRST, "main")
    # Half of it comes, and then nothing: the server holds the connection open.
    held = Hold(online, 200_000)
    code = "import sys, brainseg; brainseg.load(sys.argv[1])"
    environment = {"HF_ENDPOINT": online.address, "HF_HUB_CACHE": constants.HF_HUB_CACHE, "PATH": ""}
    child = subprocess.Popen(
        [sys.executable, "-c", code, "someone/unet"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert held.reached.wait(60)
        deadline = time.monotonic() + 30
        parts: list[Path] = []
        while not (parts and parts[0].stat().st_size) and time.monotonic() < deadline:
            parts = list((tmp_path / "cache").glob("*/blobs/*.part"))
            time.sleep(0.05)
    finally:
        child.kill()
        child.communicate()
        held.go_on.set()
    kept = parts[0].stat().st_size
    assert 0 < kept <= 200_000, kept
    assert not list((tmp_path / "cache").glob("*/snapshots/*/model.safetensors"))
    assert load("someone/unet").card == read_card(folder)
    assert online.fetched[-1] == f"bytes={kept}-"
    assert not list((tmp_path / "cache").glob("*/blobs/*.part"))


class Hold(Fault):
    """The next large file stops after some bytes, with the connection open, until told to go on."""

    def __init__(self, hub: FakeHub, after: int) -> None:
        super().__init__("GET /cdn/", drop_after=after)
        self.reached, self.go_on = threading.Event(), threading.Event()
        hub.faults.append(self)

    def dropped(self) -> None:
        self.reached.set()
        self.go_on.wait(60)


def test_a_connection_that_stays_broken_is_one_sentence_and_nothing_is_lost(
    online: FakeHub, mine: Path, tmp_path: Path, no_waiting: list[float]
) -> None:
    load("someone/unet")
    two = large(weights(tmp_path / "two", seed=1))
    online.publish("someone/unet", two, SECOND, "main")
    online.faults = [Fault("GET /cdn/", drop_after=100_000), Fault("GET /cdn/", drop_after=0, times=20)]
    size = (two / TENSORS).stat().st_size
    assert complaint("someone/unet") == (
        f"the connection to the Hub broke off, 100,000 of {size:,} bytes of model.safetensors of "
        f"someone/unet@{SECOND[:12]} are here; try again, and it goes on from there"
    )
    # Offline the version that is whole still serves; later the new one comes, from where it stopped.
    with pytest.MonkeyPatch.context() as context:
        context.setattr(constants, "HF_HUB_OFFLINE", True)
        assert load("someone/unet").card == read_card(mine)
    online.faults.clear()
    assert load("someone/unet").card == read_card(two)
    assert online.fetched[-1] == "bytes=100000-"


def test_bytes_that_arrive_wrong_are_thrown_away_and_the_next_try_is_whole(
    online: FakeHub, mine: Path, tmp_path: Path
) -> None:
    online.faults = [Fault("GET /cdn/", flip=True)]
    assert (
        complaint("someone/unet")
        == f"model.safetensors of someone/unet@{FIRST[:12]} arrived damaged; try again"
    )
    assert not list((tmp_path / "cache").glob("*/snapshots/*/model.safetensors"))
    assert load("someone/unet").card == read_card(mine)


def test_a_server_that_knows_no_ranges_sends_it_all_again(online: FakeHub, tmp_path: Path) -> None:
    folder = large(weights(tmp_path / "mine"))
    online.publish("someone/unet", folder, FIRST, "main")
    online.ranges = False
    online.faults = [Fault("GET /cdn/", drop_after=100_000)]
    assert load("someone/unet").card == read_card(folder)
    assert online.fetched == ["", "bytes=100000-"]


def test_a_disk_without_links_holds_copies(
    online: FakeHub, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", none)
    for _ in range(2):
        assert load("someone/unet").card == read_card(mine)
    assert not any(path.is_symlink() for path in hub.resolve("someone/unet").iterdir())


def test_two_programs_at_once_fetch_it_once(online: FakeHub, tmp_path: Path) -> None:
    online.publish("someone/unet", large(weights(tmp_path / "mine")), FIRST, "main")
    with ThreadPoolExecutor(4) as pool:
        cards = list(pool.map(lambda name: load(name).card, ["someone/unet"] * 4))
    assert all(card == cards[0] for card in cards)
    assert online.fetched == [""]


def test_what_was_cached_by_the_client_itself_is_taken(online: FakeHub, mine: Path) -> None:
    for name in (CONFIG, TENSORS):
        hf_hub_download("someone/unet", name, revision=FIRST)
    online.asked.clear()
    assert load(f"someone/unet@{FIRST}").card == read_card(mine)
    assert online.asked == []


def test_what_was_cached_by_us_is_taken_by_the_client(online: FakeHub, mine: Path) -> None:
    load("someone/unet")
    online.asked.clear()
    path = hf_hub_download("someone/unet", TENSORS, local_files_only=True)
    assert Path(path).read_bytes() == (mine / TENSORS).read_bytes()
    [repo] = scan_cache_dir(constants.HF_HUB_CACHE).repos
    assert (repo.repo_id, {revision.commit_hash for revision in repo.revisions}) == ("someone/unet", {FIRST})
    assert online.asked == []


def test_a_truncated_answer_is_completed(online: FakeHub, mine: Path) -> None:
    """The server says that this is all, and it is less than it had stated."""
    online.faults = [Fault("GET /cdn/", headers={"Content-Length": "1000"}, drop_after=1000)]
    assert load("someone/unet").card == read_card(mine)
    assert online.fetched[-1] == "bytes=1000-"


def test_the_sha256_of_what_the_hub_gives_is_checked(online: FakeHub, mine: Path) -> None:
    data = bytearray((mine / TENSORS).read_bytes())
    data[-1] ^= 1
    (mine / TENSORS).write_bytes(data)
    online.publish("someone/unet", mine, FIRST, "main")
    message = complaint("someone/unet")
    assert message.startswith("someone/unet from the Hub cannot be used: ")
    assert "is not the file its card describes" in message


def test_a_file_of_the_cache_that_was_damaged_is_fetched_again(online: FakeHub, mine: Path) -> None:
    [path] = [path for path in hub.resolve("someone/unet").iterdir() if path.name == TENSORS]
    whole = path.read_bytes()
    path.resolve().write_bytes(whole[:-100])
    assert load("someone/unet").card == read_card(mine)
    assert path.read_bytes() == whole


# --- refusals ---


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (401, {}, "the Hub shows no repository someone/unet; check the name, or log in with `hf auth login`"),
        (403, {"X-Error-Code": "GatedRepo"}, "the repository someone/unet is gated; ask for access at http"),
        (403, {}, "this login may not read someone/unet; ask its owner for access, or log in with `hf auth"),
        (429, {"Retry-After": "30"}, "the Hub wants fewer requests; try someone/unet again in 30 seconds"),
        (429, {"RateLimit": '"api";r=0;t=55'}, "the Hub wants fewer requests; try someone/unet again in 55 "),
        (429, {}, "the Hub wants fewer requests; try someone/unet again in a few minutes"),
        (500, {}, "the Hub failed on someone/unet (HTTP 500); try again in a few minutes"),
        (503, {}, "the Hub failed on someone/unet (HTTP 503); try again in a few minutes"),
        (418, {}, "the Hub refuses to let this program read someone/unet (HTTP 418); look at http"),
    ],
)
def test_each_refusal_has_its_sentence_and_its_remedy(
    online: FakeHub,
    mine: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    expected: str,
) -> None:
    online.faults = [Fault("/resolve/", status, headers)]
    assert complaint("someone/unet").startswith(expected)
    assert len(online.asked) == 1  # and nobody is pressed
    # What is here serves all the same.
    load("someone/unet")
    online.faults = [Fault("/resolve/", status, headers)]
    assert load("someone/unet").card == read_card(mine)


def test_a_gated_repository_names_the_page_that_gives_access(online: FakeHub, mine: Path) -> None:
    online.repos["someone/unet"].gated = True
    assert complaint("someone/unet") == (
        f"the repository someone/unet is gated; ask for access at {online.address}/someone/unet, then log "
        "in with `hf auth login`"
    )


def test_a_private_repository_needs_the_login_and_the_login_goes_nowhere_else(
    online: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = weights(tmp_path / "mine")
    online.publish("mine/unet", folder, FIRST, "main")
    online.repos["mine/unet"].private = True
    assert "shows no repository mine/unet" in complaint("mine/unet")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load("mine/unet").card == read_card(folder)
    hosts = {host for host, login in online.logins if login}
    assert hosts == {online.address.removeprefix("http://")}
    assert online.fetched  # the other address was asked, without it


@pytest.mark.parametrize("token", ["hf_notThisOne", "hf_not\tA token", "hf_ü"])
def test_a_login_that_is_not_accepted_is_not_shown(
    online: FakeHub, mine: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(WeightsError) as caught:
        load("someone/unet")
    error: BaseException | None = caught.value
    if token == "hf_notThisOne":
        assert str(error) == (
            "the Hub refuses the login of this computer for someone/unet; log in with `hf auth login` again"
        )
    while error is not None:
        assert token not in str(error) + repr(error)
        error = error.__cause__


def test_a_refusal_in_the_middle_is_one_sentence_too(online: FakeHub, mine: Path) -> None:
    online.faults = [Fault("GET /cdn/", 429, {"Retry-After": "7"})]
    assert complaint("someone/unet") == "the Hub wants fewer requests; try someone/unet again in 7 seconds"
    assert load("someone/unet").card == read_card(mine)


def test_a_full_disk_is_named(online: FakeHub, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(url: str, out: BinaryIO) -> Iterator[bytes]:
        yield b"some"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub, "_rest", full)
    assert complaint("someone/unet") == (
        f"the cache of the Hub, {constants.HF_HUB_CACHE}, cannot be used (No space left on device); make "
        "room there, or name another place in HF_HOME"
    )
    monkeypatch.undo()


def test_a_cache_that_cannot_be_made_is_named(online: FakeHub, mine: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    assert complaint("someone/unet").startswith(f"the cache of the Hub, {tmp_path}/cache, cannot be used (")


# --- without a network ---


def test_without_a_network_what_is_cached_is_used_and_the_rest_is_one_sentence_at_once(
    online: FakeHub, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("someone/unet")
    unplug(monkeypatch)
    assert load("someone/unet").card == load(f"someone/unet@{FIRST}").card == read_card(mine)
    assert complaint("someone/other") == (
        "someone/other is neither a folder, nor in the cache, nor within reach on the Hub; "
        "check the name and the network connection"
    )


def test_offline_mode_asks_nobody(online: FakeHub, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load("someone/unet")
    online.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load("someone/unet").card == read_card(mine)
    assert complaint("someone/other") == (
        "someone/other is not in the cache, and HF_HUB_OFFLINE forbids asking the Hub; unset it, or give a "
        "weights folder"
    )
    assert online.asked == []


def test_a_hub_that_never_answers_is_given_up_soon(
    online: FakeHub, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("someone/unet")
    monkeypatch.setattr(hub, "HUB_TIMEOUT_S", 0.5)
    monkeypatch.setattr(hub, "NEWER_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        point_at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        started = time.perf_counter()
        with pytest.raises(WeightsError, match="within reach"):
            load("someone/other")
        assert load("someone/unet").card == read_card(mine)
        assert load(f"someone/unet@{FIRST}").card == read_card(mine)
    assert time.perf_counter() - started < 5


def test_a_page_that_asks_for_a_login_is_not_taken_for_the_hub(
    online: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in hotels: every address is answered, by something else."""
    online.faults = [Fault("/resolve/", 204)]
    assert complaint("someone/unet").startswith("what answers for someone/unet is not the Hugging Face Hub")


# --- into a folder ---


def test_pull_copies_what_it_checked_and_nothing_else_is_overwritten(
    online: FakeHub, mine: Path, tmp_path: Path
) -> None:
    to = tmp_path / "to" / "here"
    assert pull("someone/unet", to) == (to, read_card(mine))
    assert {path.name for path in to.iterdir()} == {CONFIG, TENSORS, README}
    assert all((to / name).read_bytes() == (mine / name).read_bytes() for name in (CONFIG, TENSORS, README))
    assert pull("someone/unet", to)[0] == to  # again is no harm
    (to / README).write_text("notes of mine", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"README.md is of something else; give a new folder"):
        pull("someone/unet", to)
    assert (to / README).read_text(encoding="utf-8") == "notes of mine"


def test_pull_does_without_a_model_card(online: FakeHub, mine: Path, tmp_path: Path) -> None:
    (mine / README).unlink()
    online.publish("someone/bare", mine, FIRST, "main")
    pull("someone/bare", tmp_path / "to")
    assert {path.name for path in (tmp_path / "to").iterdir()} == {CONFIG, TENSORS}


# --- bundled names of an installed package ---


def test_the_table_of_releases_is_that_of_the_weights_in_the_repository() -> None:
    stated = {name: json.loads((WEIGHTS / name / CONFIG).read_bytes())["sha256"] for name in ARCHITECTURES}
    assert {name: release.sha256 for name, release in hub.released().items()} == stated
    for release in hub.released().values():
        if release.revision or release.repo:  # empty until published
            assert len(release.revision) == 40
            assert int(release.revision, 16) > 0
            assert release.repo.count("/") == 1


@pytest.mark.usefixtures("installed")
def test_before_the_first_release_an_installed_package_says_what_to_do(online: FakeHub) -> None:
    unpublished = [name for name, release in hub.released().items() if not release.revision]
    for name in unpublished:
        assert whereabouts(name) == "not published yet"
        assert complaint(name) == (
            f"the weights {name!r} of this version of brainseg are not published on the Hub yet; give a "
            "weights folder or a Hub id (owner/name) instead, or work in a clone of the repository, which "
            "holds them"
        )
    assert online.asked == []


@pytest.mark.usefixtures("installed")
def test_an_installed_package_has_its_names_from_the_hub(
    online: FakeHub, released: dict[str, hub.Release]
) -> None:
    for name, release in released.items():
        online.publish(release.repo, WEIGHTS / name, release.revision)
    assert bundled_names() == tuple(ARCHITECTURES)
    assert {whereabouts(name) for name in ARCHITECTURES} == {"to be fetched"}
    assert online.asked == []
    cards = bundled()
    assert list(cards) == list(ARCHITECTURES)
    assert not any(line.endswith(TENSORS) for line in online.asked)  # a list of cards is a few kilobytes
    assert not is_local("unet")
    model = load("unet")
    assert model.card == cards["unet"] == read_card(WEIGHTS / "unet")
    assert [whereabouts(name) for name in ("unet", "unetpp")] == ["cached", "to be fetched"]
    online.asked.clear()
    assert load("unet").card == model.card
    assert online.asked == []


@pytest.mark.usefixtures("installed")
def test_other_weights_under_a_released_name_are_refused(
    online: FakeHub, released: dict[str, hub.Release], tmp_path: Path
) -> None:
    """Sound in themselves, and yet not those that this version pins."""
    release = released["unet"]
    online.publish(release.repo, weights(tmp_path / "changed"), release.revision)
    message = complaint("unet")
    assert "does not hold the weights unet of this version" in message
    assert release.sha256[:12] in message


@pytest.mark.usefixtures("installed")
def test_a_bundled_name_without_network_or_cache_is_one_sentence_at_once(
    online: FakeHub, released: dict[str, hub.Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    unplug(monkeypatch)
    place = f"brainseg/unet@{released['unet'].revision}"
    assert complaint("unet") == (
        f"weights 'unet' are not here yet: {place} is neither a folder, nor in the cache, nor within reach "
        "on the Hub; check the name and the network connection, or give a weights folder"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids asking the Hub" in complaint("unet")


def test_a_clone_asks_nobody(online: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(WEIGHTS / "unet", tmp_path / "weights" / "unet")
    monkeypatch.setattr(hub, "BUNDLED", tmp_path / "weights")
    assert bundled_names() == ("unet",)
    assert (whereabouts("unet"), whereabouts("unetpp")) == ("here", "not installed")
    assert load("unet").card == bundled()["unet"]
    assert is_local("unet")
    assert not is_local("unetpp")
    assert "bundled weights 'unetpp' are not installed" in complaint("unetpp")
    assert online.asked == []
