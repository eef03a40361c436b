"""The endpoint ``/predict``: a patient in; masks, figures and attention out. For scripts and for agents."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import unquote

import gradio as gr
import numpy as np

from brainseg.io import NamedBytes, expand
from brainseg.io.limits import MAX_UPLOAD
from brainseg.report import report, safe_name, to_csv
from brainseg.types import BrainsegError, InputError, Study
from brainseg.ui.gradio.lifetime import Tabs
from brainseg.ui.gradio.memory import OUTPUT_S, Files
from brainseg.ui.session import Session, progress_text, sentence_for
from brainseg.ui.wire import grid_of

# How often a request looks how far its run is.
_LOOK_S = 0.2

_HOW = "send the patient's zip or files themselves, for instance with gradio_client's handle_file."

Result = tuple[tuple[str, bytes], dict[str, Any], tuple[str, bytes], tuple[str, bytes] | None]


class Progress(Protocol):
    """What `gr.Progress` does."""

    def __call__(self, progress: float, desc: str | None = None) -> Any: ...


@contextmanager
def one_sentence() -> Iterator[None]:
    """Whatever goes wrong inside reaches the client as one sentence, and the log as a type at most."""
    try:
        yield
    except Exception as error:
        raise gr.Error(sentence_for(error), duration=None, print_exception=False) from None


# Gradio writes a stub beside the source of any class that derives from a component, so these are components
# with methods of their own.
def patient_files(files: Files) -> gr.File:
    """A patient's zip or files, of which the endpoint sees names and bytes; see `memory`."""
    component = gr.File(label="Patient", file_count="multiple", visible=False)

    def preprocess(payload: Any) -> list[NamedBytes]:
        with one_sentence():
            given = payload if isinstance(payload, list) else [payload]
            return [_read(files, one) for one in given if one is not None]

    described = _inlined(component.api_info())
    _change(
        component,
        preprocess=preprocess,
        api_info=lambda: described,
        data_model=None,  # one file need not be given as a list
        async_move_resource_to_block_cache=_stay,  # Gradio would fetch or copy it
    )
    return component


def output(files: Files, label: str) -> gr.File:
    """A file for the client, given as name and bytes, held in memory until it is fetched."""
    component = gr.File(label=label, visible=False)

    def postprocess(value: tuple[str, bytes] | None) -> gr.FileData | None:
        if value is None:
            return None
        with one_sentence():
            name, data = value
            return gr.FileData(path=files.put(name, data, OUTPUT_S), orig_name=name, size=len(data))

    _change(component, postprocess=postprocess, async_move_resource_to_block_cache=_stay)
    return component


async def _stay(path: Any) -> str | None:
    return None if path is None else str(path)


def _change(component: gr.File, **attributes: Any) -> None:
    for name, value in attributes.items():
        if not hasattr(component, name):
            raise RuntimeError("Gradio handles files in another way now; install the version brainseg names")
        setattr(component, name, value)


def _inlined(described: dict[str, Any]) -> dict[str, Any]:
    # Gradio puts this inside the schema of a tool, where a reference to its root finds nothing.
    parts = described.pop("$defs")
    one = parts["FileData"]
    one["properties"]["meta"] = parts["FileDataMeta"]
    return described | {"items": one}


def _read(files: Files, one: Any) -> NamedBytes:
    name = one.get("path") if isinstance(one, dict) else one
    if not isinstance(name, str):
        raise InputError(f"A file is missing: {_HOW}")
    if name.startswith("data:"):
        return _inline(name)
    # An agent is given the address of what it uploaded.
    held = files.take(unquote(name.rpartition("/gradio_api/file=")[2]) if "://" in name else name)
    if held is None:
        raise InputError(f"No file came with the request, or it came long before: {_HOW}")
    return NamedBytes(held.name, held.data)


def endpoint(tabs: Tabs, names: Sequence[str]) -> Callable[..., Any]:
    """The function behind ``/predict``.

    Args:
        tabs: gives a session for each request.
        names: weights there are.
    """

    async def predict(
        files: list[NamedBytes],
        models: list[str],
        threshold: float | None = None,
        flips: bool = False,
        request: gr.Request | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio is asked for it
    ) -> Result:
        with one_sentence():
            client = str(request.session_hash if request else None)
            session = tabs.session(client)
            tabs.expect(client)
            try:
                await asyncio.to_thread(_open, session, files, models or list(names), flips)
                await _run(session, progress)
                return await asyncio.to_thread(_results, session, threshold)
            finally:
                session.close()

    predict.__doc__ = DESCRIPTION
    return predict


def name_each_output(blocks: gr.Blocks) -> None:
    """Make a tool give an agent its outputs one by one; Gradio would write them all into one text."""

    async def outputs(job: Any) -> list[Any]:
        return list(await asyncio.to_thread(job.result))

    if not hasattr(blocks.mcp_server_obj, "_execute_tool_without_progress"):
        raise RuntimeError("Gradio answers agents in another way now; install the version brainseg names")
    blocks.mcp_server_obj._execute_tool_without_progress = outputs  # type: ignore[method-assign, union-attr]


DESCRIPTION = """Find lower-grade glioma on a patient's brain MRI slices with up to four U-Nets, side by side.

Research use only, not a medical device. The files are held in memory for this request alone. One network runs
at a time on the machine: until it is this request's turn, its progress tells how many others are before it.

Args:
    files: the patient's zip, or slices and reference masks (TIFF, PNG, JPEG, NIfTI or DICOM; pre-contrast T1,
        FLAIR and post-contrast T1 as the three channels), as a list. An agent gives the addresses of files it
        uploaded to this server, or data: addresses; other addresses are refused.
    models: names of networks to run, any of unet, attention_unet, unetpp, attention_unetpp; all if empty.
    threshold: a voxel is tumour at or above this probability, 0.01 to 0.99; as stored with each network's
        weights if not given.
    flips: average over left-right flips, which takes twice the time.

Returns:
    masks: a zip of each slice's mask as TIFF, 0 and 255; in a folder for each network where several ran.
    figures: for each network tumour voxels, volume in ml where the spacing is known, largest slice, and,
        where the files hold a reference mask, Dice, IoU, sensitivity, precision and HD95; the same for each
        slice; and what was assumed about the files.
    csv: the same figures as a table with a row for the patient and one for each slice.
    attention: a NumPy .npz file with two arrays for each attention gate of each network:
        "network/gate/coefficients", float16 (slices, rows, columns) in 0 to 1 on the gate's own grid, and
        "network/gate/grid", the rectangle of the slice that this grid covers: top, left, height and width in
        slice pixels. None if no network run has gates.
"""


def _inline(address: str) -> NamedBytes:
    head, _, body = address.partition(",")
    try:
        data = base64.b64decode(body, validate=True) if head.endswith(";base64") else b""
    except binascii.Error:
        data = b""
    if not data:
        raise InputError(f"A data: address holds no base64: {_HOW}")
    if len(data) > MAX_UPLOAD:
        raise InputError(too_large())
    return NamedBytes("patient.zip" if data.startswith(b"PK") else "patient", data)


def too_large() -> str:
    """Said of a file beyond `MAX_UPLOAD`."""
    return f"A file is larger than {MAX_UPLOAD / 2**20:.0f} MB: send one patient's slices alone."


def _open(session: Session, files: list[NamedBytes], models: Sequence[str], flips: bool) -> None:
    if not files:
        raise InputError(f"No files were given: {_HOW}")
    unknown = [name for name in models if name not in session.cards]
    if unknown:
        there = ", ".join(session.cards) or "none"
        raise InputError(f"No model is called {unknown[0]!r}; there are: {there}.")
    session.open(lambda: expand(files))
    _raise(session.troubles)
    if len(session.patients) > 1:
        raise InputError(f"The files are of {len(session.patients)} patients: send one at a time.")
    session.choose(models, flips=flips)


async def _run(session: Session, progress: Progress) -> None:
    session.run()
    patient = session.shown
    while patient is not None and patient.job is not None:
        job, told = patient.job, None
        while not job.ready():
            status = job.status()
            if status != told:
                progress(status.fraction, desc=progress_text(status))
                told = status
            await asyncio.sleep(_LOOK_S)
        await asyncio.to_thread(session.update)
    if patient is not None:
        _raise(patient.failures.values())
        _raise([patient.ended] if patient.ended else [])


def _results(session: Session, threshold: float | None) -> Result:
    if threshold is not None:
        if not 0.01 <= threshold <= 0.99:
            raise InputError(f"The threshold must lie between 0.01 and 0.99, not be {threshold:g}.")
        for key, prediction in session.results:
            session.cut(key, threshold, prediction.keep)
    study = None if session.shown is None else session.shown.study
    readings, masks = session.readings, session.download("masks-tif")
    if study is None or masks is None:
        raise BrainsegError("The request was given up before its end.")
    figures = report(study, readings)
    case = safe_name(study.case_id)
    table = (f"{case}_figures.csv", to_csv(figures))
    return (masks.name, masks.data), figures, table, _attention(study, session)


def _attention(study: Study, session: Session) -> tuple[str, bytes] | None:
    arrays: dict[str, Any] = {}
    for _, prediction in session.results:
        for gate in prediction.attention:
            arrays[f"{prediction.model}/{gate.gate}/coefficients"] = gate.coefficients
            arrays[f"{prediction.model}/{gate.gate}/grid"] = np.array(grid_of(gate), np.float64)
    if not arrays:
        return None
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return f"{safe_name(study.case_id)}_attention.npz", file.getvalue()


def _raise(sentences: Any) -> None:
    said = " ".join(dict.fromkeys(sentences))
    if said:
        raise InputError(said)
