"""A GPU lent by the package `spaces`, of which a small one stands in here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from brainseg.ui import networks
from brainseg.ui.gradio import zero

ROOT = Path(__file__).resolve().parent.parent

# As the real one does: it runs a generator in a forked process, and lets only what can be pickled in and out.
# It notes whether torch was there before it.
SPACES = """
import multiprocessing, sys
early = "torch" not in sys.modules
calls = []
fork = multiprocessing.get_context("fork")

def GPU(duration):
    def decorate(task):
        def lent(*args):
            from gradio.context import LocalContext
            request = LocalContext.request.get(None)
            calls.append((duration(*args), request))
            given, answers = fork.SimpleQueue(), fork.SimpleQueue()
            def work():
                for step in task(*given.get()):
                    answers.put(step)
                answers.put("end")
            process = fork.Process(target=work, daemon=True)
            process.start()
            given.put(args)
            try:
                while (step := answers.get()) != "end":
                    yield step
            finally:
                process.terminate()
                process.join()
        return lent
    return decorate
"""
# A page's run: a job started in the context of a request, its network in the other process.
PAGE = """
import sys
import gradio as gr
from gradio.context import LocalContext
import spaces
from brainseg.ui.gradio.app import build
assert spaces.early, "spaces came after torch"
from brainseg.io import read_study
from brainseg.sample import SYNTHETIC_GLIOMA
from brainseg.types import WeightsError
from brainseg.ui.gradio import zero
from brainseg.ui.job import Job, Queue
from brainseg.ui import networks
build()
predict = zero.predictor()
assert predict is not networks.predict
study = read_study([SYNTHETIC_GLIOMA / f"SYNTHETIC_0001_{n}.tif" for n in (13, 14)])
told = []
LocalContext.request.set("the visitor")
job = Job(study, ["unet", "nothing"], False, predict, queue=Queue())
LocalContext.request.set("another visitor")
job.start().join()
results = dict(job.take())
assert results["unet"].probability.shape == study.shape, results
assert results["unet"].probability.max() > 0.5
assert "nothing" in results["nothing"], results
assert [request for _, request in spaces.calls] == ["the visitor"] * 2
assert spaces.calls[0][0] == zero.seconds("unet", study, False) <= 60
assert "torch.cuda" not in sys.modules or not __import__("torch").cuda.is_initialized()
asked = []
def stop():
    asked.append(1)
    return len(asked) > 1
try:
    predict("unet", study, tta=False, progress=lambda *done: told.append(done), cancelled=stop)
except Exception as error:
    print(type(error).__name__, told[0])
"""


def test_networks_run_where_the_gpu_is_lent_for_the_visitor_who_asked(tmp_path: Path) -> None:
    (tmp_path / "spaces.py").write_text(SPACES)
    run = subprocess.run(
        [sys.executable, "-c", PAGE],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "Cancelled (0, 2)"


def test_without_spaces_networks_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "_spaces", None)
    assert zero.predictor() is networks.predict
