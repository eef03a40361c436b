"""A Hugging Face Hub on this machine, as far as huggingface_hub asks it: repositories, commits, large files.

Large files are served from another address, as the Hub's are from a CDN: there no login may arrive. Faults
are put in the way of single requests: refusals, broken connections, damaged bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from huggingface_hub import constants

from brainseg.checkpoint import save, write_card
from brainseg.checkpoint.hub import Release, released
from brainseg.evaluation.model_card import model_card
from brainseg.measure import FIGURES
from brainseg.models import build
from brainseg.types import ModelSpec, WeightsCard

TOKEN = "hf_aSecretThatNobodyMayRead"
"""The one login that the hub knows."""


@dataclass
class Repo:
    """Files by commit, and what branches and tags lead to."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit_of(self, revision: str) -> str | None:
        commit = {**self.tags, **self.branches}.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class Fault:
    """What happens to the next `times` requests that `where` is found in, as in ``"GET /cdn/"``.

    Where `status` is not 200 it is all of the answer. Else a body is cut after `drop_after` bytes and the
    connection closed, or its last byte is changed (`flip`). `meanwhile` is called before the answer.
    """

    where: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    drop_after: int | None = None
    flip: bool = False
    meanwhile: Callable[[], None] = lambda: None

    def dropped(self) -> None:
        """What happens before the connection is closed."""


@dataclass
class FakeHub:
    """What it holds, who may write, and what was asked of it.

    Attributes:
        asked: ``"GET /path"``, of the Hub itself.
        fetched: the Range header or an empty text, for each large file asked for.
        ranges: parts of large files may be asked for.
        logins: the Authorization header of every request at all, by host.
    """

    address: str = ""
    cdn: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    writable: set[str] = field(default_factory=lambda: {"mine"})
    asked: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    ranges: bool = True

    def publish(self, repo: str, folder: Path, commit: str, *branches: str) -> None:
        """Offer a folder as this commit of a repository, and as the newest of these branches."""
        held = self.repos.setdefault(repo, Repo())
        held.commits[commit] = {path.name: path.read_bytes() for path in folder.iterdir()}
        held.branches |= dict.fromkeys(branches, commit)
        self.objects |= {sha256(data): data for data in held.commits[commit].values()}

    def fault_for(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.where in request:
                fault.times -= 1
                fault.meanwhile()
                return fault
        return None


def published() -> dict[str, Release]:
    """The table of releases as it will be once the weights are on the Hub."""
    return {
        name: replace(row, repo=f"brainseg/{name}", revision=f"{number:040x}")
        for number, (name, row) in enumerate(released().items(), 1)
    }


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def oid(name: str, data: bytes) -> str:
    """What the Hub knows a file by."""
    return sha256(data) if is_large(name) else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(name: str) -> bool:
    return name.endswith(".safetensors")


class Refusal(Exception):  # noqa: N818 - an answer
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message or code}


class Handler(BaseHTTPRequestHandler):
    """One request; `hub` is set in a class made for each server."""

    hub: FakeHub

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        request = f"{self.command} {self.path}"
        self.hub.logins.append((self.headers["Host"], self.headers.get("Authorization", "")))
        path = unquote(urlsplit(self.path).path)
        if not path.startswith("/cdn/"):
            self.hub.asked.append(request)
        fault = self.hub.fault_for(request)
        if fault is not None and fault.status != 200:
            self._send(fault.status, b"", fault.headers)
            return
        try:
            for method, pattern, answer in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method.split():
                    answer(self, *found.groups(), body=body, fault=fault)
                    return
            raise Refusal(404, "", f"nothing at {path}")
        except Refusal as refusal:
            self._send(refusal.status, b"", refusal.headers)

    do_HEAD = do_GET = do_POST = do_PUT = _handle  # noqa: N815 - names that the library calls

    def log_message(self, format: str, *args: object) -> None:
        pass

    # --- who ---

    def _login(self) -> bool:
        given = self.headers.get("Authorization")
        if given and given != f"Bearer {TOKEN}":
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        return bool(given)

    def _repo(self, name: str, write: bool = False) -> Repo:
        known = self._login()
        repo = self.hub.repos.get(name)
        own = name.partition("/")[0] in self.hub.writable
        if repo is None or (repo.private and not (known and own)):
            raise Refusal(404 if known else 401, "RepoNotFound")
        if write and not (known and own):
            raise Refusal(403 if known else 401, "", "You don't have the rights")
        return repo

    # --- answers ---

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def resolve(self, name: str, revision: str, file: str, *, fault: Fault | None, **_: object) -> None:
        repo = self._repo(name)
        if repo.gated:
            raise Refusal(403, "GatedRepo")
        commit = repo.commit_of(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound")
        data = repo.commits[commit].get(file)
        if data is None:
            raise Refusal(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{oid(file, data)}"'}
        if is_large(file):
            linked = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
            place = {"Location": f"{self.hub.cdn}/cdn/{sha256(data)}"}
            self._send(302, b"", headers | linked | place)
        elif self.command == "HEAD":
            self._send(200, b"", headers | {"Content-Length": str(len(data))})
        else:
            self._body(data, headers, fault)

    def large(self, digest: str, *, fault: Fault | None, **_: object) -> None:
        wanted = self.headers.get("Range", "")
        self.hub.fetched.append(wanted)
        data = self.hub.objects[digest]
        if not self.hub.ranges:
            wanted = ""
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if wanted else {}
        self._body(data[start:], headers, fault)

    def _body(self, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        if fault and fault.flip:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(206 if "Content-Range" in headers else 200)
        for key, value in (
            headers | {"Content-Length": str(len(data))} | (fault.headers if fault else {})
        ).items():
            self.send_header(key, value)
        self.end_headers()
        cut = fault.drop_after if fault else None
        self.wfile.write(data[:cut])
        if fault is not None and cut is not None:
            self.wfile.flush()
            fault.dropped()

    def info(self, name: str, revision: str | None = None, **_: object) -> None:
        repo = self._repo(name)
        commit = repo.commit_of(revision or "main")
        if commit is None:
            raise Refusal(404, "RevisionNotFound")
        self._json({"id": name, "sha": commit, "private": repo.private})

    def refs(self, name: str, **_: object) -> None:
        repo = self._repo(name)
        both = {"branches": (repo.branches, "heads"), "tags": (repo.tags, "tags")}
        self._json(
            {"converts": []}
            | {
                kind: [
                    {"name": one, "ref": f"refs/{place}/{one}", "targetCommit": commit}
                    for one, commit in table.items()
                ]
                for kind, (table, place) in both.items()
            }
        )

    def create(self, *, body: bytes, **_: object) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if not self._login():
            raise Refusal(401, "", "Invalid username or password.")
        if wanted["organization"] not in self.hub.writable:
            raise Refusal(
                403, "", f"You don't have the rights to create a model under {wanted['organization']}"
            )
        if name in self.hub.repos:
            raise Refusal(409, "", "You already created this model repo")
        first = sha256(name.encode())[:40]
        private = wanted.get("visibility") == "private"
        self.hub.repos[name] = Repo({first: {".gitattributes": b""}}, {"main": first}, private=private)
        self._json({"url": f"{self.hub.address}/{name}"})

    def validate_yaml(self, *, body: bytes, **_: object) -> None:
        content = json.loads(body)["content"]
        errors = [] if content.startswith("---\n") else [{"message": "no metadata"}]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, name: str, revision: str, *, body: bytes, **_: object) -> None:
        repo = self._repo(name, write=True)
        commit = repo.commit_of(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound")
        held = repo.commits[commit]
        self._json(
            {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if is_large(one["path"]) else "regular",
                        "shouldIgnore": False,
                        "oid": oid(one["path"], held[one["path"]]) if one["path"] in held else None,
                    }
                    for one in json.loads(body)["files"]
                ]
            }
        )

    def batch(self, name: str, *, body: bytes, **_: object) -> None:
        self._repo(name, write=True)
        objects: list[dict[str, Any]] = json.loads(body)["objects"]
        for one in objects:
            if one["oid"] not in self.hub.objects:
                one["actions"] = {"upload": {"href": f"{self.hub.cdn}/cdn/{one['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, digest: str, *, body: bytes, **_: object) -> None:
        if sha256(body) != digest:
            raise Refusal(400, "", "other bytes than announced")
        self.hub.objects[digest] = body
        self._send(200, b"")

    def commit(self, name: str, revision: str, *, body: bytes, **_: object) -> None:
        repo = self._repo(name, write=True)
        head = repo.branches.get(revision)
        if head is None:
            raise Refusal(404, "RevisionNotFound")
        files = dict(repo.commits[head])
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit", head) != head:
                raise Refusal(412, "", "A commit has happened since.")
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        made = sha256(head.encode() + body)[:40]
        repo.commits[made] = files
        repo.branches[revision] = made
        page = f"{self.hub.address}/{name}/commit/{made}"
        self._json({"success": True, "commitOid": made, "commitUrl": page, "hookOutput": ""})

    def branch(self, name: str, branch: str, **_: object) -> None:
        repo = self._repo(name, write=True)
        repo.branches[branch] = repo.branches["main"]
        self._send(200, b"")

    def tag(self, name: str, revision: str, *, body: bytes, **_: object) -> None:
        repo = self._repo(name, write=True)
        commit = repo.commit_of(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound")
        repo.tags[json.loads(body)["tag"]] = commit
        self._send(200, b"")


def weights(folder: Path, architecture: str = "unet", name: str = "", seed: int = 0) -> Path:
    """A tiny network in a folder that may be pushed; its figures are made up."""
    torch.manual_seed(seed)
    spec = ModelSpec(architecture, 4)
    patient = dict.fromkeys(FIGURES, 0.8) | {"not_computable": {}, "seen_in_training": False}
    figures = {
        "protocol": "Volumetric Dice by patient.",
        "cases": 1,
        "device": "cpu",
        "precision": "fp32",
        "dice_mean": 0.8,
        "dice_median": 0.75,
        "dice_std": 0.1,
        "hd95_mean": None,
        "hd95_unit": "voxels",
        "missed": 0,
        "not_computable": 0,
        "patients": {"B": patient},
        "healthy_slices": {"slices": 1, "with_false_positives": 0, "median_false_pixels": 0.0},
        "calibration": {"ece": 0.01, "ece_lesion": 0.1, "lesion_floor": 0.01},
        "missing_sequences": {"both": {"dice_mean": 0.5, "dice_median": 0.5, "missed": 0}},
    }
    preprocess = {"size": 64, "low": 0.5, "high": 99.5}
    licence = "cc-by-nc-sa-4.0"
    card = WeightsCard(
        name or architecture, spec, preprocess, 0.35, "largest", "", licence, ("A",), ("B",), figures
    )
    card = save(folder, build(spec), card)
    write_card(folder, card)
    (folder / "README.md").write_text(model_card(card), encoding="utf-8")
    return folder


NAME = "([^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("HEAD GET", f"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("HEAD GET", "/cdn/([0-9a-f]{64})", Handler.large),
    ("PUT", "/cdn/([0-9a-f]{64})", Handler.upload),
    ("GET", f"/api/models/{NAME}", Handler.info),
    ("GET", f"/api/models/{NAME}/revision/(.+)", Handler.info),
    ("GET", f"/api/models/{NAME}/refs", Handler.refs),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("POST", f"/api/models/{NAME}/preupload/(.+)", Handler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("POST", f"/api/models/{NAME}/commit/(.+)", Handler.commit),
    ("POST", f"/api/models/{NAME}/branch/(.+)", Handler.branch),
    ("POST", f"/api/models/{NAME}/tag/(.+)", Handler.tag),
]


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does before the client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[FakeHub]:
    """A hub that the client of this process looks at; nobody is logged in, the cache in `home` is empty."""
    with running() as hub:
        point_at(hub.address, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        for switch in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET"):
            monkeypatch.setattr(constants, switch, True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
            monkeypatch.delenv(variable, raising=False)
        yield hub


@contextmanager
def running() -> Iterator[FakeHub]:
    """A hub that answers on a free port while the context is open."""
    hub = FakeHub()
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), type("Answering", (Handler,), {"hub": hub})) for _ in range(2)
    ]
    hub.address, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
