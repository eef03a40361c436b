"""Sessions that end with their tabs, and files that wait in memory, without any server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from brainseg.io import collect
from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import Cancelled, InputError, Prediction, Study
from brainseg.ui.gradio import lifetime, memory
from brainseg.ui.gradio.lifetime import GRACE_S, RUNS_S, UNSEEN_S, Tabs
from brainseg.ui.gradio.memory import Files


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lifetime, "time", clock)
    monkeypatch.setattr(memory, "time", clock)
    return clock


def until_stopped(
    name: str, study: Study, *, tta: bool, progress: Callable[[int, int], None], cancelled: Callable[[], bool]
) -> Prediction:
    """A network that never ends by itself."""
    del name, study, tta
    progress(0, 1)
    while not cancelled():
        threading.Event().wait(0.01)
    raise Cancelled("stopped")


def test_a_tab_keeps_its_session_and_has_it_alone(clock: Clock) -> None:
    tabs = Tabs(until_stopped)
    one, two = tabs.of("one"), tabs.of("two")
    assert tabs.of("one") is one
    assert one.session is not two.session
    assert tabs.keyed(one.key) is one
    assert tabs.keyed(two.key) is two
    assert tabs.keyed("guess") is None
    assert len({one.key, two.key}) == 2
    assert one.key not in repr(one)
    del clock


def test_a_connected_tab_stays_and_one_that_went_is_freed(clock: Clock) -> None:
    tabs, gone = Tabs(until_stopped), list[str]()
    tabs.forget = gone.append
    tab = tabs.of("one")
    tab.session.open(lambda: collect(SYNTHETIC_GLIOMA))
    with tabs.connected("one"):
        clock.now += 100 * GRACE_S
        tabs.sweep()
        assert tabs.of("one") is tab
        with tabs.connected("one"):  # a second connection
            pass
        clock.now += 100 * GRACE_S
        assert tabs.here("one")
    clock.now += RUNS_S - 0.1
    assert tabs.here("one")
    clock.now += 0.2
    assert not tabs.here("one")
    tabs.sweep()
    assert tabs.of("one") is tab
    clock.now += GRACE_S
    tabs.sweep()
    assert len(tabs) == 0
    assert gone == ["one"]
    assert tab.session.patients == ()
    assert tabs.keyed(tab.key) is None


def test_a_tab_that_comes_back_in_time_finds_its_patients(clock: Clock) -> None:
    tabs = Tabs(until_stopped)
    tab = tabs.of("one")
    with tabs.connected("one"):
        pass
    clock.now += GRACE_S - 0.1
    with tabs.connected("one"):
        clock.now += 10 * GRACE_S
        tabs.sweep()
    assert tabs.of("one") is tab


def test_who_never_listens_is_freed_after_a_while(clock: Clock) -> None:
    tabs, gone = Tabs(until_stopped), list[str]()
    tabs.forget = gone.append
    tabs.expect("script")
    clock.now += UNSEEN_S
    assert tabs.here("script")
    clock.now += GRACE_S + 1
    assert not tabs.here("script")
    tabs.sweep()
    assert gone == ["script"]


def test_the_run_of_a_tab_that_went_ends(clock: Clock) -> None:
    tabs = Tabs(until_stopped)
    session = tabs.of("one").session
    session.open(lambda: collect(SYNTHETIC_GLIOMA))
    with tabs.connected("one"):
        session.run()
        assert session.shown is not None
        job = session.shown.job
        assert job is not None
        assert not job.status().ended
    clock.now += RUNS_S + 0.1
    job.join(20)
    assert job.status().stopped


def test_files_are_found_by_their_address_alone_and_freed(clock: Clock) -> None:
    files = Files(Path("/nowhere"))
    one = files.put("a/b\\c.zip", b"content", 10)
    two = files.put("c.zip", b"2", 20)
    assert one.startswith("/nowhere/")
    assert one.endswith("/c.zip")
    assert one != two
    assert files.take("/nowhere/guess/c.zip") is None
    held = files.get(one)
    assert held is not None
    assert (held.name, held.data) == ("a/b\\c.zip", b"content")
    assert "content" not in repr(held)
    assert files.take(one) is held
    assert files.take(one) is None
    clock.now += 21
    files.expire()
    assert len(files) == 0


def test_more_than_the_server_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_HELD", 3)
    files = Files(Path("/nowhere"))
    files.put("a", b"12", 10)
    with pytest.raises(InputError, match="try again in a minute"):
        files.put("b", b"34", 10)
    assert len(files) == 1
