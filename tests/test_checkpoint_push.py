"""Weights folders put on a Hub on this machine by the real client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fake_hub
import pytest
import torch
from fake_hub import TOKEN, FakeHub, Fault, Repo, point_at, weights
from huggingface_hub import ModelCard, constants

from brainseg.checkpoint import (
    CONFIG,
    README,
    TENSORS,
    check_release,
    hub,
    load,
    pull,
    push,
    read_card,
    state_release,
)
from brainseg.checkpoint.push import is_tag
from brainseg.models import ARCHITECTURES
from brainseg.types import WeightsError

FILES = {CONFIG, TENSORS, README}


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """The client looks for the Hub on this machine, and is logged in as who may write to mine/."""
    with fake_hub.connected(monkeypatch, tmp_path) as served:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return weights(tmp_path / "unet")


def held(online: FakeHub, repo: str, revision: str = "main") -> dict[str, bytes]:
    at = online.repos[repo]
    commit = at.commit_of(revision)
    assert commit is not None
    return {name: data for name, data in at.commits[commit].items() if name != ".gitattributes"}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def complaint(*arguments: str | Path | None) -> str:
    with pytest.raises(WeightsError) as caught:
        push(*arguments)  # type: ignore[arg-type]
    error: BaseException | None = caught.value
    assert "\n" not in str(error)
    while error is not None:
        assert TOKEN not in str(error) + repr(error)
        error = error.__cause__
    return str(caught.value)


# --- there and back ---


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_come_back_as_they_went(online: FakeHub, tmp_path: Path, name: str) -> None:
    folder = weights(tmp_path / "made", name)
    pushed = push(folder, f"mine/{name}")
    assert pushed.changed
    assert pushed.url == f"{online.address}/mine/{name}/tree/{pushed.commit}"
    assert held(online, f"mine/{name}") == on_disk(folder)
    assert len(online.repos[f"mine/{name}"].commits) == 2  # the Hub's own first one, and ours
    sent, back = load(folder), load(f"mine/{name}@{pushed.commit}")
    assert back.card == sent.card
    assert back.card.sha256 == pushed.sha256
    state = back.network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in sent.network.state_dict().items())
    pull(f"mine/{name}", tmp_path / "to")
    assert on_disk(tmp_path / "to") == on_disk(folder)


def test_the_model_card_on_the_hub_states_licence_library_and_protocol(online: FakeHub, folder: Path) -> None:
    push(folder, "mine/unet")
    data: Any = ModelCard(held(online, "mine/unet")[README].decode()).data
    stated = {key: data.get(key) for key in ("license", "library_name", "pipeline_tag")}
    assert stated == {
        "license": "cc-by-nc-sa-4.0",
        "library_name": "brainseg",
        "pipeline_tag": "image-segmentation",
    }
    for result in data.eval_results:
        assert result.metric_type == "dice"
        assert result.dataset_split == "validation"
        assert result.metric_args["protocol"].startswith("Volumetric Dice by patient")
    assert [result.metric_value for result in data.eval_results] == [0.8, 0.75]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_bundled_weights_may_be_pushed_as_they_are(online: FakeHub, name: str) -> None:
    push(name, f"mine/{name}")
    assert held(online, f"mine/{name}") == on_disk(hub.BUNDLED / name)
    data: Any = ModelCard(held(online, f"mine/{name}")[README].decode()).data
    [mean, median] = data.eval_results
    assert (mean.metric_name, median.metric_name) == (
        "Mean volumetric Dice by patient",
        "Median volumetric Dice by patient",
    )
    assert mean.dataset_name == "LGG, 19 validation patients"


def test_what_stands_there_already_is_not_sent_again(online: FakeHub, folder: Path) -> None:
    first = push(folder, "mine/unet")
    online.asked.clear()
    again = push(folder, "mine/unet")
    assert (again.commit, again.changed) == (first.commit, False)
    assert not [line for line in online.asked if "/commit/" in line]
    assert len(online.repos["mine/unet"].commits) == 2


def test_only_what_changed_is_sent_and_other_files_stay(
    online: FakeHub, folder: Path, tmp_path: Path
) -> None:
    push(folder, "mine/unet")
    repo = online.repos["mine/unet"]
    repo.commits[repo.branches["main"]]["notes.txt"] = b"somebody's"
    online.asked.clear()
    pushed = push(weights(tmp_path / "new", seed=1), "mine/unet")
    assert pushed.changed
    assert held(online, "mine/unet")["notes.txt"] == b"somebody's"
    assert read_card(hub.resolve("mine/unet")) == read_card(tmp_path / "new")


def test_private_is_for_a_new_repository(online: FakeHub, folder: Path) -> None:
    push(folder, "mine/secret", private=True)
    assert online.repos["mine/secret"].private
    push(folder, "mine/open")
    push(folder, "mine/open", private=True)
    assert not online.repos["mine/open"].private


# --- revisions ---


def test_a_branch_is_made_and_the_default_one_stays(online: FakeHub, folder: Path, tmp_path: Path) -> None:
    push(folder, "mine/unet")
    other = weights(tmp_path / "other", seed=1)
    for _ in range(2):  # made, then found
        pushed = push(other, "mine/unet", "wide")
    assert pushed.tag == ""
    assert load("mine/unet").card == read_card(folder)
    assert load("mine/unet@wide").card == read_card(other)


def test_a_version_is_a_tag_and_stays_where_it_is(online: FakeHub, folder: Path, tmp_path: Path) -> None:
    pushed = push(folder, "mine/unet", "v1.0")
    assert pushed.tag == "v1.0"
    assert online.repos["mine/unet"].tags == {"v1.0": pushed.commit}
    other = weights(tmp_path / "other", seed=1)
    before = dict(online.repos["mine/unet"].branches)
    assert complaint(other, "mine/unet", "v1.0") == (
        "the tag v1.0 of mine/unet holds other weights, and tags stay where they are; give a new --revision"
    )
    assert online.repos["mine/unet"].branches == before
    push(other, "mine/unet", "v1.1")
    assert push(folder, "mine/unet", "v1.0") == push(folder, "mine/unet", "v1.0")  # nothing to do
    assert load("mine/unet@v1.0").card == read_card(folder)
    assert load("mine/unet@v1.1").card == read_card(other)


@pytest.mark.parametrize("name", ["v1", "1.0", "v0.2.1", "2026.1", "v1.0-rc1", "1.0.post1"])
def test_versions_are_tags(name: str) -> None:
    assert is_tag(name)


@pytest.mark.parametrize("name", ["main", "wide", "dev", "v", "vnet", "x1", "release/1.0"])
def test_other_names_are_branches(name: str) -> None:
    assert not is_tag(name)


# --- what is not sent ---


def test_a_damaged_folder_is_not_sent(online: FakeHub, folder: Path) -> None:
    data = bytearray((folder / TENSORS).read_bytes())
    data[-1] ^= 1
    (folder / TENSORS).write_bytes(data)
    assert "is not the file its card describes" in complaint(folder, "mine/unet")
    assert online.asked == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("license: cc-by-nc-sa-4.0", "license: mit", "does not state license: cc-by-nc-sa-4.0"),
        ("library_name: brainseg\n", "", "does not state library_name: brainseg"),
        ("pipeline_tag: image-segmentation", "pipeline_tag: x", "does not state pipeline_tag: image-segm"),
        ("value: 0.8\n", "value: 0.9\n", "states other figures than config.json"),
        ("split: validation", "", "states no Dice with its data set, split and protocol"),
        ("protocol: Vol", "other: Vol", "states no Dice with its data set, split and protocol"),
        ("---\n", "", "does not state license"),
        ("license: cc", "license: [cc", "does not begin with metadata that the Hub reads"),
    ],
)
def test_a_model_card_that_says_less_or_other_is_not_sent(
    online: FakeHub, folder: Path, old: str, new: str, expected: str
) -> None:
    text = (folder / README).read_text(encoding="utf-8")
    assert old in text
    (folder / README).write_text(text.replace(old, new), encoding="utf-8")
    message = complaint(folder, "mine/unet")
    assert message.startswith(f"{folder / README} {expected}")
    assert message.endswith(f"brainseg evaluate DATASET --model {folder} --validation --write-card")
    assert online.asked == []


def test_a_folder_without_a_model_card_says_how_to_make_it(online: FakeHub, folder: Path) -> None:
    (folder / README).unlink()
    assert complaint(folder, "mine/unet").startswith(f"{folder / README} is missing; write it with: brainseg")


def test_a_hub_id_is_not_pushed(online: FakeHub) -> None:
    assert complaint("some/one", "mine/unet").startswith("some/one is not a weights folder here")
    assert online.asked == []


def test_another_program_s_repository_is_left_alone(online: FakeHub, folder: Path) -> None:
    online.repos["mine/bert"] = Repo({"c" * 40: {CONFIG: b'{"model_type": "bert"}'}}, {"main": "c" * 40})
    assert complaint(folder, "mine/bert") == (
        "mine/bert holds another program's model (config.json is not a brainseg card); choose another name"
    )
    assert len(online.repos["mine/bert"].commits) == 1


# --- refusals ---


def test_without_a_login_nothing_is_asked(
    online: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert complaint(folder, "mine/unet") == (
        "nobody is logged in on the Hub here, so that mine/unet cannot be written to; log in with `hf auth "
        "login`"
    )
    assert online.asked == []


def test_a_login_that_is_not_accepted(online: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert complaint(folder, "mine/unet") == (
        "the Hub refuses the login of this computer for mine/unet; log in with `hf auth login` again"
    )


@pytest.mark.parametrize("there", [True, False])
def test_a_repository_of_others(online: FakeHub, folder: Path, tmp_path: Path, there: bool) -> None:
    if there:
        online.publish("others/unet", weights(tmp_path / "theirs", seed=1), "c" * 40, "main")
    assert complaint(folder, "others/unet") == (
        "this login may not write to others/unet; ask its owner for access, or log in with `hf auth login` "
        "and a token that may"
    )
    if there:
        assert len(online.repos["others/unet"].commits) == 1


@pytest.mark.parametrize(
    ("where", "status", "headers", "expected"),
    [
        (
            "POST /api/repos/create",
            402,
            {},
            "the Hub refuses to let this program write to mine/unet (HTTP 402)",
        ),
        ("POST /api/repos/create", 500, {}, "the Hub failed on mine/unet (HTTP 500)"),
        (
            "/api/models/mine/unet",
            429,
            {"Retry-After": "9"},
            "the Hub wants fewer requests; try mine/unet again",
        ),
        ("/info/lfs/", 403, {}, "this login may not write to mine/unet"),
        ("PUT /cdn/", 403, {}, "this login may not write to mine/unet"),
        ("/commit/main", 412, {}, "mine/unet was changed by somebody else meanwhile"),
        ("/commit/main", 500, {}, "the Hub failed on mine/unet (HTTP 500)"),
    ],
)
def test_each_refusal_has_its_sentence_and_the_next_try_does_it(
    online: FakeHub, folder: Path, where: str, status: int, headers: dict[str, str], expected: str
) -> None:
    online.faults = [Fault(where, status, headers)]
    assert complaint(folder, "mine/unet").startswith(expected)
    assert "mine/unet" not in online.repos or held(online, "mine/unet") == {}
    assert push(folder, "mine/unet").changed
    assert held(online, "mine/unet") == on_disk(folder)


def test_somebody_else_s_commit_in_between_is_not_overwritten(
    online: FakeHub, folder: Path, tmp_path: Path
) -> None:
    push(folder, "mine/unet")
    theirs = weights(tmp_path / "theirs", seed=2)
    commit = partial(online.publish, "mine/unet", theirs, "d" * 40, "main")
    online.faults = [Fault("/api/validate-yaml", meanwhile=commit)]
    assert complaint(weights(tmp_path / "new", seed=1), "mine/unet").startswith(
        "mine/unet was changed by somebody else meanwhile; look at"
    )
    assert held(online, "mine/unet") == on_disk(theirs)


def test_no_network_is_one_sentence(online: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    assert complaint(folder, "mine/unet") == (
        "mine/unet was not changed: the connection to the Hub (127.0.0.1) failed; check the network "
        "connection and try again"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in complaint(folder, "mine/unet")


@pytest.mark.parametrize("repo", ["unet", "a/b/c", "mine/ü", "mine/unet@v1"])
def test_what_is_not_an_id_is_one_sentence(online: FakeHub, folder: Path, repo: str) -> None:
    assert f"{repo!r} is not a Hub id" in complaint(folder, repo)
    assert online.asked == []


# --- the table of releases ---


def test_a_release_is_stated_in_one_step(
    online: FakeHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(hub.RELEASED, tmp_path / "released.json")
    monkeypatch.setattr(hub, "RELEASED", tmp_path / "released.json")
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    hub.released.cache_clear()
    try:
        before = hub.released()
        pushed = push("unet", "mine/unet")
        assert state_release("unet", pushed) == tmp_path / "released.json"
        assert json.loads((tmp_path / "released.json").read_bytes())["unet"] == {
            "repo": "mine/unet",
            "revision": pushed.commit,
            "sha256": read_card(folder).sha256,
        }
        assert hub.released() == before | {"unet": hub.released()["unet"]}
        monkeypatch.setattr(hub, "BUNDLED", tmp_path / "elsewhere")
        assert load("unet").card == read_card(folder)  # as an installed package
        for name in ("unet", str(folder), "unetpp"):
            with pytest.raises(WeightsError, match="leave out --release"):
                check_release(name)
    finally:
        hub.released.cache_clear()
