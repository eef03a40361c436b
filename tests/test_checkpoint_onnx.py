"""Weights as ONNX: what the file says, and that onnxruntime finds in it what PyTorch finds."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from brainseg.checkpoint import LoadedModel, load
from brainseg.checkpoint import onnx as ours
from brainseg.cli import main
from brainseg.io import read_study
from brainseg.models import ARCHITECTURES
from brainseg.types import BrainsegError, WeightsError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def exported(folders: dict[str, Path]) -> dict[str, tuple[LoadedModel, onnx.ModelProto]]:
    """Tiny random weights of all four networks with a temperature, and their graphs."""
    models = {name: load(folder) for name, folder in folders.items()}
    hot = {name: LoadedModel(replace(m.card, temperature=1.7), m.network) for name, m in models.items()}
    return {name: (model, ours.to_onnx(model)) for name, model in hot.items()}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (3, 3, 48, 80), (8, 3, 64, 64)])
def test_probabilities_are_pytorchs_at_any_size_and_batch(
    exported: dict[str, tuple[LoadedModel, onnx.ModelProto]], name: str, shape: tuple[int, ...]
) -> None:
    model, graph = exported[name]
    batch = np.random.default_rng(0).random(shape, np.float32)
    [given] = onnxruntime.InferenceSession(graph.SerializeToString()).run(["probability"], {"slices": batch})
    with torch.inference_mode():
        expected = torch.sigmoid(model.network(torch.from_numpy(batch)) / 1.7).numpy()
    assert given.shape == (shape[0], 1, *shape[2:])
    assert given.std() > 1e-3
    np.testing.assert_allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_file_is_sound_and_says_how_to_use_it(
    exported: dict[str, tuple[LoadedModel, onnx.ModelProto]], folders: dict[str, Path], name: str
) -> None:
    graph = exported[name][1]
    onnx.checker.check_model(graph, full_check=True)
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", 18)]
    [put], [got] = graph.graph.input, graph.graph.output
    assert (put.name, got.name) == ("slices", "probability")
    assert put.type.tensor_type.elem_type == got.type.tensor_type.elem_type == TensorProto.FLOAT
    sizes = [[d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim] for one in (put, got)]
    assert sizes == [["batch", 3, "16*h", "16*w"], ["batch", 1, "16*h", "16*w"]]
    said = {one.key: one.value for one in graph.metadata_props}
    card = json.loads((folders[name] / "config.json").read_bytes())
    assert {key: said[key] for key in ("name", "weights_sha256", "licence", "keep", "architecture")} == {
        "name": name,
        "weights_sha256": card["sha256"],
        "licence": "cc-by-nc-sa-4.0",
        "keep": "all",
        "architecture": name,
    }
    assert json.loads(said["preprocess"]) == {"size": 64, "low": 1.0, "high": 99.8, "crop": False}
    assert json.loads(said["spec"]) == card["spec"]
    assert (float(said["threshold"]), float(said["temperature"])) == (0.5, 1.7)
    assert said["channels"] == "pre,flair,post"
    assert said["use"] == "Research use only, not a medical device."
    assert "sigmoid" in said["output"]


def test_the_file_names_no_path_of_the_machine_that_wrote_it(
    exported: dict[str, tuple[LoadedModel, onnx.ModelProto]],
) -> None:
    data = exported["attention_unetpp"][1].SerializeToString()
    assert b".py" not in data
    assert str(ROOT).encode() not in data


def test_the_command_checks_bundled_weights_on_the_sample_and_says_how_close(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "brainseg", "export", "onnx", "unet", "--check"]
    done = subprocess.run(
        [*command, "--out", tmp_path / "a.onnx"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "opset 18, input slices (batch, 3, 16*h, 16*w)" in done.stdout
    differ = float(done.stdout.partition("differ by at most ")[2].split()[0])
    assert 0 < differ < 1e-4
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_without_out_the_file_is_named_after_the_weights(
    exported: dict[str, tuple[LoadedModel, onnx.ModelProto]],
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ours, "to_onnx", lambda _: exported["attention_unet"][1])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["export", "onnx", str(folders["attention_unet"])])
    assert ended.value.code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["attention_unet.onnx"]


def test_a_graph_that_differs_is_not_written(
    exported: dict[str, tuple[LoadedModel, onnx.ModelProto]],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, graph = exported["unet"]
    study = read_study(dataset / "CASE_A")
    assert ours.largest_difference(model, graph.SerializeToString(), study) < 1e-5
    wrong = onnx.ModelProto()
    wrong.CopyFrom(graph)
    [head] = [one for one in wrong.graph.initializer if one.name.endswith("head.weight")]
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) * np.float32(1.01), head.name))
    monkeypatch.setattr(ours, "to_onnx", lambda _: wrong)
    path = tmp_path / "unet.onnx"
    path.write_bytes(b"before")
    with pytest.raises(BrainsegError, match=r"was not written: .* more than 0\.0001"):
        ours.export(model, path, study)
    assert path.read_bytes() == b"before"
    monkeypatch.setattr(ours, "largest_difference", lambda *_: float("nan"))
    with pytest.raises(BrainsegError, match="was not written"):
        ours.export(model, path, study)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_the_remedy_is_one_sentence(
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as ended:
        main(["export", "onnx", str(folders["unet"]), "--out", str(tmp_path / "a.onnx"), "--check"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: ONNX needs packages that are not installed; run: pip install 'brainseg-lgg[onnx]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_and_weights_too_large_are_one_sentence(
    exported: dict[str, tuple[LoadedModel, onnx.ModelProto]],
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ours, "_MOST_BYTES", 1000)
    with pytest.raises(WeightsError, match="too large for one ONNX file"):
        ours.to_onnx(exported["unet"][0])
    monkeypatch.setattr(ours, "to_onnx", lambda _: exported["unet"][1])
    with pytest.raises(SystemExit) as ended:
        main(["export", "onnx", str(folders["unet"]), "--out", str(tmp_path / "no" / "a.onnx")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "a.onnx" in said
