"""Training speed of the four networks, beside a plain loop over the same network and peers, in one run.

    python benchmarks/train_speed.py             # on a GPU if there is one, else smaller sizes on the CPU
    python benchmarks/train_speed.py --json      # and write benchmarks/results/train_speed.json

Needs the `test` extra; segmentation_models.pytorch is timed where it and torchvision can be imported. Data
are synthetic slices. Rows take turns, round after round, and the median round counts: machines are noisy, so
read ratios of one run, not slices a second of two. The bf16 peak is what a large matrix product reaches.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from accelerate import Accelerator
from phantom import make_phantom
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from brainseg.io.text import plural
from brainseg.models import ARCHITECTURES, build
from brainseg.preprocess import Preprocess
from brainseg.training.config import Augment, Data, LossChoice, Recipe, Stage
from brainseg.training.data import SliceData, draws, make_loader, share, workers_beside
from brainseg.training.loop import make_run, train_epoch
from brainseg.training.losses import combined
from brainseg.types import ModelSpec

RESULTS = Path(__file__).resolve().parent / "results" / "train_speed.json"
Step = Callable[[], None]


@dataclass(frozen=True)
class Sizes:
    """What is timed: width, slice size, batch, and steps a round."""

    width: int
    size: int
    batch: int
    steps: int


@dataclass(frozen=True, eq=False)
class Row:
    """One way to train one network."""

    network: str
    way: str
    flops: float
    """Of forward and backward pass, a slice."""
    run: Step
    """Trains `steps` batches and waits for the device."""


def flops(network: nn.Module, sizes: Sizes) -> float:
    """Floating point operations of one forward and backward pass, a slice."""
    with FlopCounterMode(display=False) as counter:
        first(network(torch.rand(1, 3, sizes.size, sizes.size))).sum().backward()
    network.zero_grad()
    return float(counter.get_total_flops())


def first(output: Any) -> Tensor:
    """The logits: some peers return a list of heads."""
    result: Tensor = output[0] if isinstance(output, list | tuple) else output
    return result


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def plain(network: nn.Module, sizes: Sizes, device: torch.device, *, fast: bool) -> Step:
    """The loop of a tutorial on tensors that lie ready; `fast` adds bf16 autocast and channels-last."""
    layout = torch.channels_last if fast else torch.contiguous_format
    network = network.to(device, memory_format=layout).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    shape = (sizes.batch, 1, sizes.size, sizes.size)
    images = torch.rand(sizes.batch, 3, *shape[2:], device=device).to(memory_format=layout)
    masks = (torch.rand(shape, device=device) > 0.9).float()

    def run() -> None:
        for _ in range(sizes.steps):
            optimiser.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                logits = first(network(images))
            combined(logits.float(), masks).backward()
            optimiser.step()
        synchronise(device)

    return run


def ours(architecture: str, sizes: Sizes, data: SliceData, accelerator: Accelerator) -> Step:
    """One epoch of the package's own loop: loading, augmentation, clipping and weight averaging included."""
    recipe = Recipe(
        name="speed",
        model=ModelSpec(architecture, width=sizes.width),
        stages=(Stage(sizes.size, 1, sizes.batch),),
        data=Data(samples_per_epoch=sizes.batch * sizes.steps),
        loss=LossChoice(smooth=100.0),
    )
    run, heads = make_run(recipe, build(recipe.model), accelerator, total=10**9)
    samples = draws(data.has_tumour, recipe.data, sizes.size, seed=0, epoch=0)
    order = share(samples, sizes.batch, 0, 1)
    loader = make_loader(data, order, workers_beside(accelerator.device.type, 1))

    def epoch() -> None:
        train_epoch(recipe, run, accelerator, heads, loader, 10**9, None)

    return epoch


def peers(width: int) -> dict[str, Callable[[], nn.Module]]:
    """Networks of other libraries, of the same widths where they can be set."""
    from monai.networks.nets import AttentionUnet, BasicUNetPlusPlus  # noqa: PLC0415 - slow to import

    levels = tuple(width * 2**level for level in range(5))
    found: dict[str, Callable[[], nn.Module]] = {
        "MONAI AttentionUnet": lambda: AttentionUnet(2, 3, 1, levels, (2, 2, 2, 2)),
        "MONAI BasicUNetPlusPlus": lambda: BasicUNetPlusPlus(2, 3, 1, (*levels, width)),
    }
    try:
        import segmentation_models_pytorch as smp  # noqa: PLC0415 - not everywhere
    # torchvision's compiled part fails with a RuntimeError beside another build of torch.
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        Console(stderr=True).print(f"segmentation_models.pytorch is left out: {reason}", highlight=False)
    else:
        found["smp Unet, resnet34"] = lambda: smp.Unet("resnet34", encoder_weights=None)
        found["smp UnetPlusPlus, resnet34"] = lambda: smp.UnetPlusPlus("resnet34", encoder_weights=None)
    return found


def peak(device: torch.device) -> float:
    """bf16 operations a second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.rand(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(6):
        synchronise(device)
        started = time.perf_counter()
        a @ b
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def make_rows(sizes: Sizes, accelerator: Accelerator) -> list[Row]:
    """Every network in every way."""
    device = accelerator.device
    studies = [make_phantom(seed=seed) for seed in range(2)]
    # As strong as a recipe may ask for, so that what loading costs is not flattered.
    strong = Augment(rotate=20, scale=0.2, contrast=0.2, gamma=0.3, blur=0.15, noise=0.2)
    data = SliceData(studies, Preprocess(size=sizes.size), strong)
    rows = []
    for architecture, entry in ARCHITECTURES.items():
        spec = ModelSpec(architecture, width=sizes.width)
        cost = flops(build(spec), sizes)
        ready = {fast: plain(build(spec), sizes, device, fast=fast) for fast in (True, False)}
        rows.append(Row(entry.title, "brainseg loop", cost, ours(architecture, sizes, data, accelerator)))
        rows.append(Row(entry.title, "bf16, ready data", cost, ready[True]))
        rows.append(Row(entry.title, "plain, ready data", cost, ready[False]))
    for name, make in peers(sizes.width).items():
        network = make()
        cost = flops(network, sizes)
        rows.append(Row(name, "bf16, ready data", cost, plain(network, sizes, device, fast=True)))
    return rows


def main(
    rounds: Annotated[int, typer.Option(help="Rounds timed after one to warm up.")] = 5,
    width: Annotated[int | None, typer.Option(help="32 on a GPU, 16 on the CPU unless given.")] = None,
    size: Annotated[int | None, typer.Option(help="Slice size; 256 or 128 unless given.")] = None,
    batch: Annotated[int | None, typer.Option(help="32 or 8 unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Also write the result file.")] = False,
) -> None:
    """Time every row, and print slices a second, ratios and the share of the bf16 peak."""
    torch.manual_seed(0)
    accelerator = Accelerator(mixed_precision="bf16", step_scheduler_with_optimizer=False)
    gpu = accelerator.device.type == "cuda"
    sizes = Sizes(
        width or (32 if gpu else 16),
        size or (256 if gpu else 128),
        batch or (32 if gpu else 8),
        30 if gpu else 3,
    )
    rows = make_rows(sizes, accelerator)
    seconds: list[list[float]] = [[] for _ in rows]
    for number in range(rounds + 1):
        for row, taken in zip(rows, seconds, strict=True):
            started = time.perf_counter()
            row.run()
            if number:
                taken.append(time.perf_counter() - started)
    best = peak(accelerator.device)
    rates = [sizes.batch * sizes.steps / statistics.median(taken) for taken in seconds]
    base = {row.network: rate for row, rate in zip(rows, rates, strict=True) if row.way.startswith("plain")}
    result = {
        "device": torch.cuda.get_device_name()
        if gpu
        else f"CPU, {plural(torch.get_num_threads(), 'thread')}",
        "torch": torch.__version__,
        "width": sizes.width,
        "size": sizes.size,
        "batch": sizes.batch,
        "rounds": rounds,
        "bf16_peak_tflops": best / 1e12,
        "rows": [
            {
                "network": row.network,
                "way": row.way,
                "slices_per_second": rate,
                "spread": float(np.ptp(taken) / np.median(taken)),
                "gflop_per_slice": row.flops / 1e9,
                "share_of_peak": row.flops * rate / best,
                "against_plain": rate / base[row.network] if row.network in base else None,
            }
            for row, rate, taken in zip(rows, rates, seconds, strict=True)
        ],
    }
    show(result)
    if as_json:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    sizes = f"width {result['width']}, {result['size']} x {result['size']}, batch {result['batch']}"
    title = f"{result['device']}, {sizes}, {result['bf16_peak_tflops']:.2f} TFLOP/s bf16 peak"
    table = Table(title=title)
    for column in ("network", "way", "slices/s", "x plain", "share of peak", "GFLOP/slice", "spread"):
        table.add_column(column, justify="left" if column in {"network", "way"} else "right")
    for row in result["rows"]:
        ratio = row["against_plain"]
        table.add_row(
            row["network"],
            row["way"],
            f"{row['slices_per_second']:.1f}",
            f"{ratio:.2f}" if ratio else "",
            f"{row['share_of_peak']:.0%}",
            f"{row['gflop_per_slice']:.1f}",
            f"{row['spread']:.0%}",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
