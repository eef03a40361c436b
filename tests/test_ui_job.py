"""Networks in a thread: progress, results one by one, stop, turns in order, errors that stay sentences."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from brainseg.types import Cancelled, Prediction, Source, Study, WeightsError
from brainseg.ui.job import UNEXPECTED, Job, Predict, Queue

STUDY = Study(np.zeros((4, 8, 8, 3), np.uint8), "SECRET_NAME", Source("test", (), "0" * 64), (1, 2, 3, 4))


def result(name: str) -> Prediction:
    return Prediction(name, name, "SECRET_NAME", np.zeros((4, 8, 8), np.float32), 0.5, "all")


def instant(
    name: str,
    study: Study,
    *,
    tta: bool,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> Prediction:
    progress(4, 4)
    return result(name)


class Held:
    """A network that works until it is let go or cancelled."""

    def __init__(self) -> None:
        self.at_work = threading.Event()
        self.go_on = threading.Event()

    def __call__(
        self,
        name: str,
        study: Study,
        *,
        tta: bool,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Prediction:
        self.at_work.set()
        while not self.go_on.wait(0.01):
            if cancelled():
                raise Cancelled("prediction was stopped")
        return result(name)


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.005)


def job(names: list[str], predict: Predict, queue: Queue | None = None, **options: object) -> Job:
    """Started, in a queue of its own unless one is given."""
    return Job(STUDY, names, False, predict, queue=queue or Queue(), **options).start()  # type: ignore[arg-type]


def test_results_come_in_order_and_once() -> None:
    done = job(["unet", "unetpp"], instant)
    done.join(5)
    assert done.ready()
    assert [name for name, _ in done.take()] == ["unet", "unetpp"]
    assert done.take() == []
    assert done.status().ended
    assert not done.status().stopped
    assert done.status().fraction == 1.0


def test_each_model_can_be_taken_before_the_next_has_ended() -> None:
    held = Held()

    def slow(name: str, study: Study, **options: object) -> Prediction:
        return held(name, study, **options) if name == "unetpp" else result(name)  # type: ignore[arg-type]

    running = job(["unet", "unetpp"], slow)
    until(running.ready)
    assert [name for name, _ in running.take()] == ["unet"]
    assert not running.status().ended
    held.go_on.set()
    running.join(5)
    assert [name for name, _ in running.take()] == ["unetpp"]


def test_progress_counts_slices_over_all_models() -> None:
    fractions: list[float] = []

    def counted(name: str, study: Study, **options: object) -> Prediction:
        options["progress"](2, 4)  # type: ignore[operator]
        fractions.append(counting.status().fraction)
        return result(name)

    counting = Job(STUDY, ["unet", "unetpp"], False, counted, queue=Queue())
    counting.start().join(5)
    assert fractions == [0.25, 0.75]


def test_stop_ends_before_the_next_batch_and_keeps_what_is_done() -> None:
    held = Held()

    def until_stopped(name: str, study: Study, **options: object) -> Prediction:
        return result(name) if name == "unet" else held(name, study, **options)  # type: ignore[arg-type]

    stopped = job(["unet", "unetpp", "attention_unet"], until_stopped)
    assert held.at_work.wait(5)
    stopped.stop()
    stopped.join(5)
    assert [name for name, _ in stopped.take()] == ["unet"]
    assert stopped.status().ended
    assert stopped.status().stopped


def test_broken_weights_leave_their_sentence_and_the_next_model_runs() -> None:
    def broken(name: str, study: Study, **options: object) -> Prediction:
        if name == "unet":
            raise WeightsError("weights/unet is damaged; get it again")
        return result(name)

    done = job(["unet", "unetpp"], broken)
    done.join(5)
    (_, first), (_, second) = done.take()
    assert first == "weights/unet is damaged; get it again"
    assert isinstance(second, Prediction)


def test_an_unexpected_error_is_neutral_and_the_log_names_no_patient(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def surprising(name: str, study: Study, **options: object) -> Prediction:
        raise RuntimeError(f"cannot read {study.case_id}")

    with caplog.at_level(logging.DEBUG):
        done = job(["unet"], surprising)
        done.join(5)
    assert done.take() == [("unet", UNEXPECTED)]
    assert "RuntimeError" in caplog.text
    assert "SECRET_NAME" not in caplog.text


def test_a_page_that_has_gone_stops_the_network_at_work_and_the_next_job_gets_the_turn() -> None:
    queue, held, alive = Queue(), Held(), threading.Event()
    alive.set()
    left = job(["unet", "unetpp"], held, queue, alive=alive.is_set)
    assert held.at_work.wait(5)
    other = job(["unet"], instant, queue)
    until(lambda: other.status().before == 1)
    alive.clear()
    other.join(5)
    assert len(other.take()) == 1
    left.join(5)
    assert left.status().stopped
    assert left.take() == []


def test_a_page_that_has_gone_leaves_the_queue_while_another_is_at_work() -> None:
    queue, held, alive = Queue(), Held(), threading.Event()
    alive.set()
    first = job(["unet"], held, queue)
    assert held.at_work.wait(5)
    left = job(["unet"], instant, queue, alive=alive.is_set)
    last = job(["unet"], instant, queue)
    until(lambda: last.status().before == 2)
    alive.clear()
    left.join(5)
    assert left.status().stopped
    until(lambda: last.status().before == 1)
    assert not first.status().ended
    held.go_on.set()
    last.join(5)
    assert len(last.take()) == 1


def test_a_stopped_job_leaves_the_queue_at_once() -> None:
    queue, held = Queue(), Held()
    first = job(["unet"], held, queue)
    assert held.at_work.wait(5)
    waiting = job(["unet"], instant, queue)
    until(lambda: waiting.status().before == 1)
    waiting.stop()
    waiting.join(5)
    assert waiting.status().stopped
    held.go_on.set()
    first.join(5)
    assert len(first.take()) == 1


def test_jobs_take_turns_in_the_order_they_came_model_by_model() -> None:
    queue, held = Queue(), Held()
    ran: list[str] = []

    def named(owner: str) -> Predict:
        def predict(name: str, study: Study, **options: object) -> Prediction:
            ran.append(f"{owner} {name}")
            return result(name)

        return predict

    first = job(["unet"], held, queue)
    assert held.at_work.wait(5)
    jobs = []
    for before, owner in enumerate("abc", 1):
        jobs.append(job(["unet", "unetpp"], named(owner), queue))
        until(lambda n=before: jobs[-1].status().before == n)  # type: ignore[misc]
    held.go_on.set()
    for each in (first, *jobs):
        each.join(5)
    assert ran[:3] == ["a unet", "b unet", "c unet"]
    assert sorted(ran[3:]) == ["a unetpp", "b unetpp", "c unetpp"]
    assert all(each.status().before == 0 for each in jobs)


def test_two_networks_are_never_at_work_at_once() -> None:
    queue = Queue()
    inside, most = 0, 0
    lock = threading.Lock()

    def counted(name: str, study: Study, **options: object) -> Prediction:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.002)
        with lock:
            inside -= 1
        return result(name)

    jobs = [job(["unet", "unetpp", "attention_unet"], counted, queue) for _ in range(6)]
    for each in jobs:
        each.join(10)
    assert most == 1
    assert all(len(each.take()) == 3 for each in jobs)
