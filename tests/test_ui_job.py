"""Networks in a thread: progress, results one by one, stop, errors that stay sentences."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
import pytest

from brainseg.types import Cancelled, Prediction, Source, Study, WeightsError
from brainseg.ui import job as module
from brainseg.ui.job import UNEXPECTED, Job

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


def test_results_come_in_order_and_once() -> None:
    job = Job(STUDY, ["unet", "unetpp"], False, instant).start()
    job.join(5)
    assert job.ready()
    assert [name for name, _ in job.take()] == ["unet", "unetpp"]
    assert job.take() == []
    assert job.status().ended
    assert not job.status().stopped
    assert job.status().fraction == 1.0


def test_each_model_can_be_taken_before_the_next_has_ended() -> None:
    go_on = threading.Event()

    def slow(name: str, study: Study, **options: object) -> Prediction:
        if name == "unetpp":
            assert go_on.wait(5)
        return result(name)

    job = Job(STUDY, ["unet", "unetpp"], False, slow).start()
    for _ in range(500):
        if job.ready():
            break
        threading.Event().wait(0.01)
    assert [name for name, _ in job.take()] == ["unet"]
    assert not job.status().ended
    go_on.set()
    job.join(5)
    assert [name for name, _ in job.take()] == ["unetpp"]


def test_progress_counts_slices_over_all_models() -> None:
    fractions: list[float] = []

    def counted(name: str, study: Study, **options: object) -> Prediction:
        options["progress"](2, 4)  # type: ignore[operator]
        fractions.append(job.status().fraction)
        return result(name)

    job = Job(STUDY, ["unet", "unetpp"], False, counted)
    job.start().join(5)
    assert fractions == [0.25, 0.75]


def test_stop_ends_before_the_next_batch_and_keeps_what_is_done() -> None:
    at_work = threading.Event()

    def until_stopped(name: str, study: Study, **options: object) -> Prediction:
        if name == "unet":
            return result(name)
        at_work.set()
        while not options["cancelled"]():  # type: ignore[operator]
            threading.Event().wait(0.01)
        raise Cancelled("prediction was stopped")

    job = Job(STUDY, ["unet", "unetpp", "attention_unet"], False, until_stopped).start()
    assert at_work.wait(5)
    job.stop()
    job.join(5)
    assert [name for name, _ in job.take()] == ["unet"]
    assert job.status().ended
    assert job.status().stopped


def test_broken_weights_leave_their_sentence_and_the_next_model_runs() -> None:
    def broken(name: str, study: Study, **options: object) -> Prediction:
        if name == "unet":
            raise WeightsError("weights/unet is damaged; get it again")
        return result(name)

    job = Job(STUDY, ["unet", "unetpp"], False, broken).start()
    job.join(5)
    (_, first), (_, second) = job.take()
    assert first == "weights/unet is damaged; get it again"
    assert isinstance(second, Prediction)


def test_an_unexpected_error_is_neutral_and_the_log_names_no_patient(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def surprising(name: str, study: Study, **options: object) -> Prediction:
        raise RuntimeError(f"cannot read {study.case_id}")

    with caplog.at_level(logging.DEBUG):
        job = Job(STUDY, ["unet"], False, surprising).start()
        job.join(5)
    assert job.take() == [("unet", UNEXPECTED)]
    assert "RuntimeError" in caplog.text
    assert "SECRET_NAME" not in caplog.text


def test_a_page_that_has_gone_stops_its_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ABANDONED_S", 0.0)
    job = Job(STUDY, ["unet"], False, instant).start()
    job.join(5)
    assert job.status().stopped


def test_two_jobs_take_turns() -> None:
    inside = threading.Event()
    leave = threading.Event()

    def first(name: str, study: Study, **options: object) -> Prediction:
        inside.set()
        assert leave.wait(5)
        return result(name)

    one = Job(STUDY, ["unet"], False, first).start()
    assert inside.wait(5)
    two = Job(STUDY, ["unet"], False, instant).start()
    for _ in range(500):
        if two.status().waiting:
            break
        threading.Event().wait(0.01)
    assert two.status().waiting
    leave.set()
    one.join(5)
    two.join(5)
    assert two.status().ended
    assert len(two.take()) == 1
