"""The bundled weights as the faces use them, where some are out of reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainseg import checkpoint
from brainseg.checkpoint import read_card
from brainseg.types import WeightsCard, WeightsError
from brainseg.ui import networks

UNET = Path(__file__).resolve().parent.parent / "weights" / "unet"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two names, of which the Hub gives one; and every card that is asked for."""
    asked: list[str] = []

    def card(name: str) -> WeightsCard:
        asked.append(name)
        if name == "unetpp":
            raise WeightsError("unetpp is out of reach")
        return read_card(UNET)

    monkeypatch.setattr(checkpoint, "bundled_names", lambda: ("unet", "unetpp"))
    monkeypatch.setattr(checkpoint, "bundled_card", card)
    monkeypatch.setattr(checkpoint, "is_local", lambda _: False)
    monkeypatch.setattr(networks, "_not_answered", {})
    return asked


def test_a_hub_that_does_not_answer_is_not_asked_with_each_click(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        cards, damaged = networks.installed()
        assert list(cards) == ["unet"]
        assert damaged == {"unetpp": "unetpp is out of reach"}
    assert asked.count("unetpp") == 1
    monkeypatch.setattr(networks, "ASK_AGAIN_S", 0.0)
    networks.installed()
    assert asked.count("unetpp") == 2


def test_damaged_weights_of_a_folder_are_looked_at_each_time(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "is_local", lambda _: True)
    for _ in range(2):
        assert networks.installed()[1] == {"unetpp": "unetpp is out of reach"}
    assert asked.count("unetpp") == 2


@pytest.mark.usefixtures("asked")
def test_only_what_is_not_here_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(checkpoint, "resolve", fetched.append)
    monkeypatch.setattr(checkpoint, "is_local", lambda name: name == "unet")
    networks.fetch()
    assert fetched == ["unetpp"]
