"""A short run of benchmarks/fuzz.py, and that it would see what it looks for."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_benchmarks import script

SEED = 2026


@pytest.fixture(scope="module")
def fuzz() -> Any:
    return script("benchmarks/fuzz.py")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("kind", "count"), [("input", 120), ("card", 40)])
def test_nothing_ends_in_a_traceback(fuzz: Any, kind: str, count: int) -> None:
    outcomes = [fuzz.run_one(kind, SEED, number) for number in range(count)]
    faults = [(number, outcome) for number, outcome in enumerate(outcomes) if outcome.is_fault]
    assert not faults, f"python benchmarks/fuzz.py --seed {SEED} --only {kind}:{faults[0][0]}"
    ends = Counter(outcome.end for outcome in outcomes)
    # Neither all refused nor all accepted: the search would look in the wrong places.
    assert ends["accepted"] > count / 20
    assert ends["refused"] > count / 20


def test_a_case_is_made_again_from_its_seed(fuzz: Any) -> None:
    one, two = (fuzz.run_one("input", SEED, 3) for _ in range(2))
    assert (one.what, one.end, one.detail) == (two.what, two.end, two.detail)


def test_samples_are_sound_or_refused_in_a_sentence(fuzz: Any) -> None:
    assert len(set(fuzz.samples())) == len(fuzz.samples())
    assert len(fuzz.samples()) > 50


def broken(error: Exception) -> Any:
    def run() -> None:
        raise error

    return lambda _dice: ("broken", run)


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (ValueError("x"), "traceback"),
        (MemoryError(), "traceback"),
        (RecursionError(), "traceback"),
    ],
)
def test_faults_are_seen(fuzz: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, end: str) -> None:
    monkeypatch.setattr(fuzz, "_run_input", broken(error))
    assert fuzz.run_one("input", 0, 0).end == end


def test_sentences_that_are_none_are_seen(fuzz: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("two\nlines of text.", "\x1b[2J is not a name.", "", "x" * 1000):
        monkeypatch.setattr(fuzz, "_run_input", broken(fuzz.BrainsegError(text)))
        assert fuzz.run_one("input", 0, 0).end == "sentence"


def test_slow_and_large_cases_are_seen(fuzz: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy() -> None:
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass

    monkeypatch.setattr(fuzz, "SECONDS", 0.01)
    monkeypatch.setattr(fuzz, "_run_input", lambda _dice: ("busy", busy))
    assert fuzz.run_one("input", 0, 0).end == "slow"
    monkeypatch.setattr(fuzz, "SECONDS", 10.0)
    monkeypatch.setattr(fuzz, "PEAK_MB", 1)
    monkeypatch.setattr(fuzz, "_run_input", lambda _dice: ("large", lambda: None))
    assert fuzz.run_one("input", 0, 0).end == "memory"


def test_children_report_and_a_summary_is_written(
    fuzz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "RESULTS", tmp_path / "fuzz.json")
    with pytest.raises(fuzz.typer.Exit) as done:
        fuzz.main(seed=SEED, inputs=4, cards=0)
    found = json.loads((tmp_path / "fuzz.json").read_bytes())
    assert done.value.exit_code == 0
    assert sum(sum(ends.values()) for ends in found["ends"].values()) == 4
    assert found["faults"] == []


def test_a_child_that_dies_is_a_fault_and_the_next_case_follows(
    fuzz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "dying.py"
    dying.write_text(
        "import json, os, sys\n"
        "first = int(sys.argv[-1].split(':')[1])\n"
        "print(json.dumps({'number': first}), flush=True)\n"
        "os.abort() if first == 0 else None\n"
        "print(json.dumps({'number': first, 'what': 'x', 'end': 'accepted'}), flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(dying))
    assert [(number, outcome.end) for number, outcome in fuzz._run("input", 0, 0, 2)] == [
        (0, "died"),
        (1, "accepted"),
    ]
