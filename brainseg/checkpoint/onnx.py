"""Weights as ONNX: one file that other runtimes run, with what it takes to use it in its metadata."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from brainseg.checkpoint.store import LoadedModel
from brainseg.files import atomic_write
from brainseg.preprocess import MULTIPLE
from brainseg.types import CHANNELS, RESEARCH_USE, BrainsegError, FloatArray, Study, WeightsError

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""What PyTorch's exporter writes without converting, and every onnxruntime since 1.14 reads."""

INPUT, OUTPUT = "slices", "probability"

TOLERANCE = 1e-4
"""Largest difference of a probability that `largest_difference` may find; both sides compute in float32."""

_BATCH = 8
_MOST_BYTES = 2**31  # a limit of protobuf

# It warns of each operator of torchvision, which no network here uses.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


class _Probability(nn.Module):
    """A network whose output is what its threshold is for.

    Shape: (B, 3, H, W) float32 -> (B, 1, H, W) float32 in 0..1.
    """

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.network = model.network
        self.temperature = model.card.temperature

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.network(x) / self.temperature)


def to_onnx(model: LoadedModel) -> ModelProto:
    """The network as an ONNX graph from normalised slices to probabilities.

    The input, `INPUT`, is (batch, 3, 16*h, 16*w) float32 in 0..1, channels in the order of `CHANNELS`; the
    output, `OUTPUT`, is (batch, 1, 16*h, 16*w) float32 in 0..1, the sigmoid of the logits over the weights'
    temperature. Batch, height and width are free. The metadata name what comes before (percentiles and size)
    and after (threshold and components), and whose the weights are.

    Raises:
        BrainsegError: if the extra ``onnx`` is not installed.
        WeightsError: if the weights are too large for one file.
    """
    try:
        import onnx  # noqa: PLC0415 - an extra
        import onnxscript  # noqa: F401, PLC0415 - what PyTorch's exporter writes with
    except ImportError as error:
        raise _extra_missing() from error
    if 4 * sum(p.numel() for p in model.network.parameters()) >= _MOST_BYTES:
        raise WeightsError(f"the weights {model.card.name!r} are 2 GB or more, too large for one ONNX file")
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "h", "w"))
    shape = {0: batch, 2: MULTIPLE * height, 3: MULTIPLE * width}
    # Sizes that differ, and none is 1: what is alike in the example would be taken for one number.
    example = torch.zeros(2, len(CHANNELS), 4 * MULTIPLE, 3 * MULTIPLE)
    device = next(model.network.parameters()).device
    with warnings.catch_warnings():
        # PyTorch's own exporter copies what PyTorch no longer wants made.
        warnings.filterwarnings("ignore", r".isinstance\(treespec, LeafSpec\). is deprecated", FutureWarning)
        program = torch.onnx.export(
            _Probability(model).eval(),
            (example.to(device),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(shape,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph: ModelProto = program.model_proto
    _forget_this_machine(graph)
    onnx.helper.set_model_props(graph, metadata(model))
    onnx.checker.check_model(graph, full_check=True)
    return graph


def metadata(model: LoadedModel) -> dict[str, str]:
    """What stands in the file's ``metadata_props``; tables are JSON."""
    card = model.card
    size = f"{MULTIPLE}*h, {MULTIPLE}*w"
    return {
        "name": card.name,
        "architecture": card.spec.architecture,
        "spec": json.dumps(asdict(card.spec)),
        "weights_sha256": card.sha256,
        "licence": card.licence,
        "use": RESEARCH_USE,
        "input": f"{INPUT}: float32 (batch, {len(CHANNELS)}, {size}) in 0..1",
        "channels": ",".join(CHANNELS),
        "preprocess": json.dumps(asdict(model.preprocess)),
        "output": f"{OUTPUT}: float32 (batch, 1, {size}) in 0..1, sigmoid(logits / temperature)",
        "temperature": repr(card.temperature),
        "threshold": repr(card.threshold),
        "keep": card.keep,
    }


def largest_difference(model: LoadedModel, graph: bytes, study: Study) -> float:
    """The largest absolute difference between onnxruntime's and PyTorch's probabilities on a study's slices.

    Args:
        model: the weights.
        graph: the ONNX file's bytes.
        study: preprocessed as the weights ask, and compared on the network's grid, on the CPU in float32.

    Raises:
        BrainsegError: if the extra ``onnx`` is not installed, or the runtime cannot run the file.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _extra_missing() from error
    images, _ = model.preprocess.apply(study)
    reference = _Probability(model).eval().cpu()
    worst = 0.0
    try:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        for start in range(0, len(images), _BATCH):
            batch: FloatArray = images[start : start + _BATCH]
            [given] = session.run([OUTPUT], {INPUT: batch})
            with torch.inference_mode():
                expected = reference(torch.from_numpy(batch)).numpy()
            worst = max(worst, float(np.abs(given - expected).max()))
    except Exception as error:
        raise BrainsegError(
            f"onnxruntime cannot run the weights {model.card.name!r} as exported; try another onnxruntime"
        ) from error
    return worst


def export(model: LoadedModel, path: Path, study: Study | None = None) -> float | None:
    """Write weights as ONNX, whole or not at all.

    Args:
        model: the weights.
        path: of the file; one that is there is replaced.
        study: checked against PyTorch on its slices first, if given; see `largest_difference`.

    Returns:
        The largest difference found; None where nothing was checked.

    Raises:
        BrainsegError: as `to_onnx` and `largest_difference`, or if the difference is above `TOLERANCE`; then
            nothing is written.
        OSError: if the file cannot be written.
    """
    data = to_onnx(model).SerializeToString()
    worst = None if study is None else largest_difference(model, data, study)
    if worst is not None and not worst <= TOLERANCE:  # NaN fails, too
        raise BrainsegError(
            f"{path} was not written: in onnxruntime the weights {model.card.name!r} give probabilities that "
            f"differ by up to {worst:.2g} from PyTorch's, more than {TOLERANCE:g}; try other versions of "
            "onnxscript and onnxruntime"
        )
    with atomic_write(path) as file:
        file.write(data)
    return worst


def _forget_this_machine(graph: ModelProto) -> None:
    """Take out where in PyTorch's and our source each node comes from: half of the text, and paths in it."""
    inside = graph.graph
    for part in (
        graph,
        inside,
        *inside.node,
        *inside.input,
        *inside.output,
        *inside.value_info,
        *inside.initializer,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _extra_missing() -> BrainsegError:
    return BrainsegError("ONNX needs packages that are not installed; run: pip install 'brainseg-lgg[onnx]'")
