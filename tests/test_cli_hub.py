"""The commands that talk to a Hub, and the names of weights on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_hub
import pytest
from fake_hub import TOKEN, FakeHub, Fault, weights

from brainseg.checkpoint import CONFIG, README, TENSORS, hub, read_card
from brainseg.cli import main

FIRST = "a" * 40

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """The client looks for the Hub on this machine, and is logged in as who may write to mine/."""
    with fake_hub.connected(monkeypatch, tmp_path) as served:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return weights(tmp_path / "made")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as code:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert TOKEN not in out + err
        return int(str(code.value.code)), out, err

    return call


def test_push_says_where_and_what_to_pin(run: Run, online: FakeHub, folder: Path) -> None:
    code, out, err = run("hub", "push", folder, "mine/unet", "--revision", "v1")
    assert (code, err) == (0, "")
    commit = online.repos["mine/unet"].branches["main"]
    assert out.splitlines() == [
        f"{online.address}/mine/unet/tree/{commit}",
        "tag: v1",
        f'to pin: brainseg.load("mine/unet@{commit}")',
    ]
    code, out, err = run("hub", "push", folder, "mine/unet")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{online.address}/mine/unet/tree/{commit} holds these weights already"


def test_pull_says_where_they_are_and_what_they_are(
    run: Run, online: FakeHub, folder: Path, tmp_path: Path
) -> None:
    online.publish("someone/unet", folder, FIRST, "main")
    code, out, err = run("hub", "pull", f"someone/unet@{FIRST}", "--to", tmp_path / "to")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        str(tmp_path / "to"),
        "unet: U-Net, width 4",
        f"sha256 {read_card(folder).sha256}, as the card states",
        "Dice: mean 0.800, median 0.750, 1 validation patients",
        "Volumetric Dice by patient.",
        "licence: cc-by-nc-sa-4.0",
        "Research use only, not a medical device.",
    ]
    assert {path.name for path in (tmp_path / "to").iterdir()} == {CONFIG, TENSORS, README}
    code, out, _ = run("hub", "pull", "someone/unet")
    assert code == 0
    assert Path(out.splitlines()[0]).name == FIRST  # a folder of the cache


def test_pull_of_a_bundled_name_in_a_clone_asks_nobody(run: Run, online: FakeHub) -> None:
    code, out, _ = run("hub", "pull", "unet")
    assert code == 0
    assert out.splitlines()[0] == str(hub.BUNDLED / "unet")
    assert online.asked == []


def test_a_patient_is_segmented_by_weights_of_the_hub(
    run: Run, online: FakeHub, folder: Path, dataset: Path
) -> None:
    online.publish("someone/unet", folder, FIRST, "main")
    for name in ("someone/unet", f"someone/unet@{FIRST}"):
        code, out, err = run("predict", dataset / "CASE_B", "--model", name, "--json")
        assert (code, err) == (0, "")
        [row] = json.loads(out)["models"].values()
        assert row["weights_sha256"] == read_card(folder).sha256


@pytest.mark.parametrize(
    ("arguments", "fault", "expected"),
    [
        (
            ("hub", "pull", "no/such"),
            None,
            "the Hub shows no repository no/such; check the name, or log in wi",
        ),
        (
            ("hub", "push", "FOLDER", "others/unet"),
            None,
            "this login may not write to others/unet; ask its ow",
        ),
        (
            ("hub", "pull", "someone/unet@v2"),
            None,
            "the repository someone/unet has no revision 'v2' on the H",
        ),
        (
            ("hub", "pull", "someone/unet"),
            Fault("/resolve/", 429, {"Retry-After": "60"}),
            "the Hub wants fewer requests; try someone/unet again in 60 seconds",
        ),
        (
            ("predict", "CASE", "--model", "someone/unet"),
            Fault("GET /cdn/", flip=True),
            f"model.safetensors of someone/unet@{FIRST[:12]} arrived damaged; try again",
        ),
        (
            ("hub", "push", "unet", "mine/x", "--release", "--private"),
            None,
            "what is released cannot be --pri",
        ),
        (
            ("hub", "push", "FOLDER", "mine/x", "--release"),
            None,
            "only a bundled name (unet, attention_unet, ",
        ),
        (("hub", "push", "FOLDER"), None, "Missing argument 'ORG/REPO'"),
    ],
)
def test_each_mishap_is_one_line_and_exit_code_two(
    run: Run,
    online: FakeHub,
    folder: Path,
    dataset: Path,
    arguments: tuple[str, ...],
    fault: Fault | None,
    expected: str,
) -> None:
    online.publish("someone/unet", folder, FIRST, "main")
    online.faults = [fault] if fault else []
    places = {"FOLDER": folder, "CASE": dataset / "CASE_B"}
    code, out, err = run(*(places.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {expected}")
    assert err.count("\n") == 1
    assert "mine/x" not in online.repos


def test_models_says_where_each_is(
    run: Run, online: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {row["weights"] for row in json.loads(run("models", "--json")[1])["models"].values()} == {"here"}
    made = {name: weights(tmp_path / name, name) for name in ("unet", "unetpp", "attention_unet")}
    online.publish("mine/unet", made["unet"], FIRST, "main")
    online.publish("mine/unetpp", made["unetpp"], FIRST, "main")
    table = {
        name: {"repo": f"mine/{name}", "revision": FIRST, "sha256": read_card(path).sha256}
        for name, path in made.items()
    }
    table["attention_unetpp"] = {"repo": "", "revision": "", "sha256": "0" * 64}
    (tmp_path / "released.json").write_text(json.dumps(table), encoding="utf-8")
    monkeypatch.setattr(hub, "RELEASED", tmp_path / "released.json")
    monkeypatch.setattr(hub, "BUNDLED", tmp_path / "nowhere")
    hub.released.cache_clear()
    try:
        assert run("hub", "pull", "unet")[0] == 0
        code, out, _ = run("models", "--json")
        assert code == 0
        rows = json.loads(out)["models"]
        assert {name: row["weights"] for name, row in rows.items()} == {
            "unet": "cached",
            "unetpp": "to be fetched",
            "attention_unet": "to be fetched",
            "attention_unetpp": "not published yet",
        }
        # What a card within reach states; the Hub has none for the third.
        assert [name for name, row in rows.items() if "dice_mean" in row] == ["unet"]
        code, out, _ = run("models")
        assert code == 0
        assert "not published yet" in out
        assert not [line for line in online.asked if "unetpp" in line and TENSORS in line]
    finally:
        hub.released.cache_clear()
