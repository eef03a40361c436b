"""Predictor: Study -> Prediction, with progress, cancel, flips at test time and the gates' coefficients."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from brainseg.checkpoint import LoadedModel
from brainseg.models.base import Network
from brainseg.preprocess import invert
from brainseg.types import AttentionMap, Cancelled, FloatArray, Prediction, Study, WeightsError

Progress = Callable[[int, int], None]

BATCH = 8
"""Slices a forward pass. Fixed, so that the same study gives the same numbers by every road."""


def choose_device(name: str = "auto") -> torch.device:
    """``"auto"`` is the first CUDA device, else Apple's GPU, else the CPU.

    Raises:
        WeightsError: if a named device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()  # torch knows devices that are not there, or hold no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        raise WeightsError(f"device {name!r} is not available here; use auto or cpu") from error
    return device


def precision(device: torch.device) -> Literal["bf16", "float32"]:
    """What `autocast` computes in on that device."""
    native = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": torch.cpu._is_avx512_bf16_supported,
    }.get(device.type)
    return "bf16" if native is not None and native() else "float32"


def autocast(device: torch.device) -> Any:
    """bf16 where the hardware multiplies it natively, full precision elsewhere.

    Elsewhere bf16 is emulated, and slower than float32.
    """
    return torch.autocast(device.type, torch.bfloat16) if precision(device) == "bf16" else nullcontext()


@contextmanager
def capture_gates(network: Network) -> Iterator[dict[str, Tensor]]:
    """While open, each forward pass leaves every gate's coefficients in the yielded dict.

    Passes of other threads through the same network are not recorded.

    Yields:
        Name of the gate -> (B, 1, h, w) float32 on the CPU, 0..1; see `Network.gates`.
    """
    seen: dict[str, Tensor] = {}
    owner = threading.get_ident()

    def reader(key: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def read(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if threading.get_ident() == owner:
                seen[key] = output.detach().float().cpu()

        return read

    handles = [gate.coefficients.register_forward_hook(reader(gate.name)) for gate in network.gates()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def probabilities(
    network: nn.Module, batch: FloatArray, device: torch.device, temperature: float = 1.0
) -> FloatArray:
    """(B, 3, h, w) float32 -> (B, h, w) float32 in 0..1, the sigmoid of the logits over the temperature."""
    x = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(device):
        out = torch.sigmoid(network(x).float() / temperature)
    return np.asarray(out[:, 0].cpu().numpy(), np.float32)


class Predictor:
    """One network on one device, ready for studies.

    Args:
        model: from `brainseg.load`; its network is moved to the device.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...; see `choose_device`.

    Raises:
        WeightsError: if the device is not there.
    """

    def __init__(self, model: LoadedModel, device: str = "auto") -> None:
        self.model = model
        self.device = choose_device(device)
        self.network = model.network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def predict(
        self,
        study: Study,
        *,
        tta: bool = False,
        attention: bool = True,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Prediction:
        """Find the tumour in every slice of a study.

        Args:
            study: the patient.
            tta: average over left-right flips; twice the work.
            attention: keep the coefficients of the gates, for networks that have them.
            progress: called with (slices done, slices in all) after each batch, and once with 0 at the start.
            cancelled: asked before each batch; answering True stops.

        Raises:
            Cancelled: if `cancelled` answered True.
            WeightsError: if the network gives anything but numbers.
        """
        started = time.perf_counter()
        images, letterbox = self.model.preprocess.apply(study)
        total = len(images)
        temperature = self.model.card.temperature
        parts: list[FloatArray] = []
        gates: dict[str, list[FloatArray]] = {}
        if progress:
            progress(0, total)
        for start in range(0, total, BATCH):
            if cancelled and cancelled():
                raise Cancelled("prediction was stopped")
            batch = images[start : start + BATCH]
            if attention:
                with capture_gates(self.network) as seen:
                    part = probabilities(self.network, batch, self.device, temperature)
                for key, value in seen.items():
                    gates.setdefault(key, []).append(value[:, 0].numpy().astype(np.float16))
            else:
                part = probabilities(self.network, batch, self.device, temperature)
            if tta:
                mirrored = np.ascontiguousarray(batch[..., ::-1])
                other = probabilities(self.network, mirrored, self.device, temperature)[..., ::-1]
                part = np.asarray((part + other) / 2, np.float32)
            if not np.isfinite(part).all():
                # Finite weights can overflow, or divide by a variance below zero.
                raise WeightsError(
                    f"the weights {self.model.card.name!r} give values that are not numbers; "
                    "get the weights folder again"
                )
            parts.append(part)
            if progress:
                progress(min(start + BATCH, total), total)
        card = self.model.card
        return Prediction(
            model=card.name,
            architecture=card.spec.architecture,
            case_id=study.case_id,
            probability=invert(np.concatenate(parts), letterbox),
            threshold=card.threshold,
            keep=card.keep,
            attention=tuple(
                AttentionMap(gate.name, gate.level, np.concatenate(gates[gate.name]), letterbox)
                for gate in self.network.gates()
                if gate.name in gates
            ),
            seconds=time.perf_counter() - started,
            weights_sha256=card.sha256,
            seen_in_training=study.case_id in card.training_patients,
            tta=tta,
        )
