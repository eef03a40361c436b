"""The endpoint by Gradio's own client and by an agent's, and what the server keeps: nothing."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_server import Running, patient, serving, zipped
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from brainseg import Predictor, load, read_study
from brainseg.io.limits import MAX_UPLOAD
from brainseg.models import ARCHITECTURES

NUMBERS = (12, 13, 14)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gradio")
    with serving(folder) as running:
        yield running
    log = running.log.read_text(encoding="utf-8", errors="replace")
    for name in ("SECRET", "PAT_", "secret"):
        assert name not in log
    assert "Traceback" not in log
    abroad = [one for one in running.noted("ask") if "127.0.0.1" not in one and "localhost" not in one]
    assert abroad == []


@pytest.fixture(scope="module")
def client(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(running.address, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


def on_disk(folder: Path, name: str, data: bytes) -> Any:
    """A file as the client sends it."""
    path = folder / name
    path.write_bytes(data)
    return handle_file(path)


def get(running: Running, path: str, method: str = "GET") -> int:
    request = urllib.request.Request(running.address + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def masks_in(archive: str | bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Masks of each model as (S, H, W), in the order of their slices; "" where only one ran."""
    with zipfile.ZipFile(io.BytesIO(archive) if isinstance(archive, bytes) else archive) as content:
        names = sorted(name for name in content.namelist() if name.endswith(".tif"))
        slices = {name: tifffile.imread(io.BytesIO(content.read(name))) for name in names}
    folders = dict.fromkeys(name.rpartition("/")[0] for name in names)
    return {
        folder: np.stack([slices[name] for name in names if name.rpartition("/")[0] == folder])
        for folder in folders
    }


# ---- the endpoint


def test_a_zip_alone_gives_masks_figures_and_attention_of_all_models(
    client: Client, running: Running, tmp_path: Path
) -> None:
    sent = zipped("PAT_01", patient("PAT_01", NUMBERS))
    masks, figures, table, attention = client.predict(
        on_disk(tmp_path, "secret.zip", sent), api_name="/predict"
    )
    assert list(figures["models"]) == list(ARCHITECTURES)
    assert figures["case_id"] == "PAT_01"
    found = masks_in(masks)
    study = read_study(tmp_path / "secret.zip")
    for name in ("unet", "attention_unet"):
        # By the networks themselves, without any session or page.
        model = load(name)
        expected = Predictor(model).predict(study)
        assert figures["models"][name]["threshold"] == model.card.threshold
        assert int((found[name] > 0).sum()) == figures["models"][name]["tumour_voxels"]
        if figures["models"][name]["keep"] == "all":
            np.testing.assert_array_equal(found[name] > 0, expected.probability >= expected.threshold)
        with np.load(attention) as arrays:
            of_model = {key for key in arrays if key.startswith(f"{name}/")}
            assert len(of_model) == 2 * len(expected.attention)
            for gate in expected.attention:
                np.testing.assert_allclose(
                    arrays[f"{name}/{gate.gate}/coefficients"], gate.coefficients, atol=2e-3
                )
                assert arrays[f"{name}/{gate.gate}/grid"].shape == (4,)
    assert Path(table).read_text(encoding="utf-8-sig").count("PAT_01") == 4 * (1 + len(NUMBERS))
    assert 0.5 < figures["models"]["unet"]["dice"] <= 1
    # Where Gradio would write, and anywhere else: nothing was.
    assert [path for path in running.noted("write") if not path.startswith("/dev/")] == []


def test_files_one_by_one_with_a_threshold_and_one_model(client: Client, tmp_path: Path) -> None:
    sent = [on_disk(tmp_path, name, data) for name, data in patient("PAT_02", NUMBERS, masks=False).items()]
    counts = []
    for threshold in (0.1, 0.9):
        masks, figures, _, attention = client.predict(
            files=sent, models=["unet"], threshold=threshold, api_name="/predict"
        )
        assert figures["case_id"] == "PAT_02"
        assert figures["models"]["unet"]["threshold"] == threshold
        assert figures["models"]["unet"]["dice"] is None
        assert attention is None  # a network without gates
        counts.append(int((masks_in(masks)[""] > 0).sum()))
    assert counts[0] > counts[1] > 0


def test_flips_are_averaged_where_asked(client: Client, tmp_path: Path) -> None:
    sent = on_disk(tmp_path, "p.zip", zipped("PAT_03", patient("PAT_03", NUMBERS)))
    _, figures, _, _ = client.predict(sent, ["unet"], None, True, api_name="/predict")
    assert figures["models"]["unet"]["tta"] is True


def test_one_endpoint_is_named_and_typed(client: Client) -> None:
    api = client.view_api(print_info=False, return_format="dict")
    assert list(api["named_endpoints"]) == ["/predict"]
    assert api["unnamed_endpoints"] == {}
    named = api["named_endpoints"]["/predict"]
    assert [p["parameter_name"] for p in named["parameters"]] == ["files", "models", "threshold", "flips"]
    assert [p["parameter_has_default"] for p in named["parameters"]] == [False, True, True, True]
    assert named["parameters"][0]["python_type"]["type"] == "list[filepath]"
    assert len(named["returns"]) == 4
    assert "Research use only" in json.dumps(api)


# ---- bad input


def bad(kind: str, folder: Path) -> dict[str, Any]:
    good = patient("PAT_04", NUMBERS)
    other = patient("OTHER_09", NUMBERS)
    files: dict[str, Any] = {
        "text": {"secret_notes.txt": b"not a patient"},
        "broken zip": {"secret.zip": zipped("PAT_04", good)[:500]},
        "another patient's mask": {
            "PAT_04_12.tif": good["PAT_04_12.tif"],
            "b.zip": zipped("OTHER_09", other),
        },
        "mask alone": {"PAT_04_12_mask.tif": good["PAT_04_12_mask.tif"]},
    }
    if kind in files:
        return {"files": [on_disk(folder, name, data) for name, data in files[kind].items()]}
    zipfile_ = on_disk(folder, "p.zip", zipped("PAT_04", good))
    arguments: dict[str, dict[str, Any]] = {
        "nothing": {"files": []},
        "a path of the server": {"files": [{"path": "/etc/hostname", "url": None}]},
        "a name": {"files": "/etc/hostname"},
        "an address": {"files": ["https://example.com/secret.zip"]},
        "threshold": {"files": zipfile_, "threshold": 7},
    }
    return arguments[kind]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("text", "No image among 1 file"),
        ("broken zip", "secret.zip"),
        ("another patient's mask", "of 2 patients"),
        ("mask alone", "mask"),
        ("nothing", "No files were given"),
        ("a path of the server", "No file came with the request"),
        ("a name", "No file came with the request"),
        ("an address", "No file came with the request"),
        ("threshold", "between 0.01 and 0.99"),
    ],
)
def test_bad_input_is_one_sentence_and_the_server_goes_on(
    client: Client, tmp_path: Path, kind: str, sentence: str
) -> None:
    with pytest.raises(AppError) as raised:
        client.predict(**bad(kind, tmp_path), api_name="/predict")
    text = str(raised.value)
    assert sentence in text
    assert text.endswith((".", "…"))
    assert "Traceback" not in text
    assert "Error" not in text


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(running: Running) -> None:
    with closing(begin_upload(running, "Content-Length", str(10 * MAX_UPLOAD))) as connection:
        answer = connection.getresponse()
        assert answer.status == 413
        assert answer.read().decode().startswith("These files are larger than")


def test_a_stream_that_grows_too_large_is_ended(running: Running) -> None:
    # 1 GB that does not say so beforehand.
    part = b"x" * 2**20
    head = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="secret.zip"\r\n\r\n'
    sent = 0
    with closing(begin_upload(running, "Transfer-Encoding", "chunked")) as connection, suppress(OSError):
        for data in (head, *[part] * 1024):  # until the server hangs up
            connection.send(b"%x\r\n%s\r\n" % (len(data), data))
            sent += len(data)
    assert sent < 1.5 * MAX_UPLOAD
    assert get(running, "/gradio_api/info") == 200


def begin_upload(running: Running, header: str, value: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(running.address.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=edge")
    connection.putheader(header, value)
    connection.endheaders()
    return connection


def test_a_port_that_is_taken_is_one_sentence(running: Running) -> None:
    port = running.address.rpartition(":")[2]
    command = [sys.executable, "-m", "brainseg", "gradio", "--host", "127.0.0.1", "--port", port]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == f"error: Port {port} is taken: choose another one."
    assert "Traceback" not in run.stderr


# ---- what is kept, and who may have it


def test_an_output_is_fetched_once_and_only_by_who_knows_its_address(running: Running) -> None:
    uploaded = upload(running, "p.zip", zipped("PAT_05", patient("PAT_05", NUMBERS)))
    event = post(
        running, "/gradio_api/call/predict", {"data": [[file_data(uploaded)], ["unet"], None, False]}
    )
    data = listen(running, f"/gradio_api/call/predict/{event['event_id']}")
    masks, table = data[0], data[2]
    path = urllib.parse.quote(masks["path"])
    other = urllib.parse.quote(table["path"])
    # The name is known and the rest cannot be guessed: 43 letters of base64 are 256 bits.
    folder = masks["path"].split("/")[-2]
    assert len(folder) == 43
    assert folder != table["path"].split("/")[-2]
    wrong = path.replace(folder, folder[::-1])
    assert get(running, f"/gradio_api/file={wrong}") == 404
    for address in (path, other):
        assert get(running, f"/gradio_api/file={address}", "HEAD") == 200
        assert get(running, f"/gradio_api/file={address}") == 200
        until(lambda address=address: get(running, f"/gradio_api/file={address}") == 404)  # type: ignore[misc]
    # The upload went with the request that read it.
    assert get(running, f"/gradio_api/file={urllib.parse.quote(uploaded)}") == 404
    place = Path(masks["path"]).parents[1]
    assert place.is_dir()
    assert place.stat().st_mode & 0o777 == 0o700
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/hostname",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file=https://example.com/",
        "/gradio_api/proxy=https://example.hf.space/",
        "/gradio_api/deep_link?session_hash=abc",
        "/gradio_api/stream/a/b/1/playlist.m3u8",
        "/gradio_api/runs",
        "/gradio_api/run-history/buckets",
        "/monitoring",
        "/brainseg/guess/view",
        "/brainseg/guess/pack?id=abc",
        "/brainseg/guess/download?name=csv",
    ],
)
def test_what_is_not_the_pages_own_is_not_there(running: Running, path: str) -> None:
    assert get(running, path) in (403, 404)


@pytest.mark.parametrize("path", ["/", "/config", "/brainseg/viewer.js", "/nothing", "/gradio_api/file=x"])
def test_every_answer_forbids_frames_and_scripts_of_other_hosts(running: Running, path: str) -> None:
    try:
        with urllib.request.urlopen(running.address + path, timeout=20) as answer:
            sent = answer.headers
    except urllib.error.HTTPError as error:
        sent = error.headers
    assert sent["X-Frame-Options"] == "DENY"
    assert sent["X-Content-Type-Options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in sent["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not any("http" in sources or "*" in sources for sources in policy.values())


# ---- many at once


def test_clients_at_once_are_told_their_place_and_get_their_own(running: Running, tmp_path: Path) -> None:
    cases = {f"PAT_1{n}": (10 + n, 11 + n) for n in range(4)}
    places: dict[str, list[str]] = {case: [] for case in cases}
    got: dict[str, Any] = {}

    def send(case: str, numbers: tuple[int, ...]) -> None:
        one = Client(running.address, verbose=False, download_files=False)
        sent = on_disk(tmp_path, f"{case}.zip", zipped(case, patient(case, numbers)))
        job = one.submit(sent, ["unet", "attention_unetpp"], api_name="/predict")
        while not job.done():
            told = job.status().progress_data
            if told and told[0].desc:
                places[case].append(told[0].desc)
            time.sleep(0.02)
        got[case] = job.result()[1]

    threads = [threading.Thread(target=send, args=item) for item in cases.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for case, numbers in cases.items():
        assert got[case]["case_id"] == case
        assert got[case]["slice_numbers"] == list(numbers)
    said = " ".join(text for texts in places.values() for text in texts)
    assert "other run" in said


# ---- an agent


def agent(running: Running, *calls: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The tools on offer, and the results of calls to the first."""

    async def talk() -> tuple[Any, list[Any]]:
        async with (
            streamable_http_client(f"{running.address}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            return tools, [await session.call_tool(tools[0].name, arguments) for arguments in calls]

    # In a thread of its own: where browser tests ran before, this one has a loop already.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(talk())).result()


def test_an_agent_finds_one_tool_and_sends_a_patient(running: Running) -> None:
    packed = zipped("PAT_06", patient("PAT_06", NUMBERS))
    uploaded = f"{running.address}/gradio_api/file={upload(running, 'p.zip', packed)}"
    inline = "data:application/zip;base64," + base64.b64encode(packed).decode()
    tools, results = agent(
        running,
        {"files": [uploaded], "models": ["unet"]},
        {"files": [inline], "models": ["attention_unet"], "threshold": 0.5},
        {"files": ["https://example.com/p.zip"]},
    )
    assert len(tools) == 1
    assert "Research use only" in tools[0].description
    assert set(tools[0].inputSchema["properties"]) == {"files", "models", "threshold", "flips"}
    assert tools[0].inputSchema["required"] == ["files"]
    for result, model in zip(results, ("unet", "attention_unet"), strict=False):
        assert not result.isError
        texts = [part.text for part in result.content]
        assert "PAT_06" in texts[1]
        assert model in texts[1]
        with urllib.request.urlopen(texts[0], timeout=20) as answer:
            assert masks_in(answer.read())[""].shape == (3, 256, 256)
    assert results[2].isError
    assert "No file came with the request" in results[2].content[0].text


# ---- as a script without the client does it


def upload(running: Running, name: str, data: bytes) -> str:
    head = (
        f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    request = urllib.request.Request(
        f"{running.address}/gradio_api/upload",
        head + data + b"\r\n--edge--\r\n",
        {"Content-Type": "multipart/form-data; boundary=edge"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        [path] = json.load(answer)
    return str(path)


def file_data(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def post(running: Running, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        running.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def listen(running: Running, path: str) -> Any:
    with urllib.request.urlopen(running.address + path, timeout=60) as answer:
        event = ""
        for line in answer:
            name, _, value = line.decode().strip().partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event == "complete":
                return json.loads(value)
    raise AssertionError("no answer came")
