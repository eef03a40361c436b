"""Weights by name: a bundled name, a folder, or an id on the Hugging Face Hub.

In a clone the bundled names are the folders in ``weights/``. An installed package has none beside it: their
licence is not the code's, so that they are no part of the wheel. There the same names are fetched from the
Hub, once, at the revision in ``released.json``, and accepted with the sha256 stated there alone.

Wherever a name leads, what is on this computer is taken first: a folder, the bundled weights beside the
package, the Hub's cache, and then the Hub.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from brainseg.checkpoint.card import CONFIG, read_card
from brainseg.checkpoint.hub_errors import id_of, in_one_sentence
from brainseg.checkpoint.store import README, TENSORS, LoadedModel, read_folder
from brainseg.files import atomic_write
from brainseg.models import ARCHITECTURES
from brainseg.types import WeightsCard, WeightsError

# huggingface_hub is slow to import and seldom needed.
# ruff: noqa: PLC0415

BUNDLED = Path(__file__).resolve().parents[2] / "weights"
RELEASED = Path(__file__).with_name("released.json")
HUB_TIMEOUT_S = 5.0
"""How long the Hub has to answer at all; a firewall that swallows packets is noticed by this alone."""
NEWER_TIMEOUT_S = 2.0
"""The same where the question is only whether something newer than what is here exists."""

_IDLE_TRIES = 3

_COMMIT = re.compile("[0-9a-f]{40}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Release:
    """Where the weights of a bundled name are on the Hub, and which they are.

    Attributes:
        repo: ``owner/name`` there; empty until they are published.
        revision: commit, 40 hexadecimal digits; empty until they are published.
        sha256: of model.safetensors.
    """

    repo: str
    revision: str
    sha256: str


@cache
def released() -> dict[str, Release]:
    """The releases of this version by name, from ``released.json``."""
    table = json.loads(RELEASED.read_text(encoding="utf-8"))
    return {name: Release(**row) for name, row in table.items()}


def load(name: str | Path) -> LoadedModel:
    """Load weights by bundled name (`unet`, ...), folder, or Hub id (`owner/name` or `owner/name@revision`).

    A Hub id is fetched once; a commit that is in the cache is never asked for again. A download that broke
    off goes on where it stopped.

    Raises:
        WeightsError: if they are missing, damaged, of another network than the card says, or out of reach.
    """
    return _open(name)[1]


def _open(name: str | Path) -> tuple[Path, LoadedModel]:
    folder = resolve(name)
    if _is_from_hub(name) and _drop_damaged(folder):
        folder = resolve(name)
    try:
        model = read_folder(folder)
    except WeightsError as error:
        if not _is_from_hub(name):
            raise
        raise WeightsError(f"{name} from the Hub cannot be used: {error}") from error
    if _is_release(name) and model.card.sha256 != released()[str(name)].sha256:
        raise WeightsError(
            f"{folder} does not hold the weights {name} of this version of brainseg "
            f"(sha256 {model.card.sha256[:12]}, expected {released()[str(name)].sha256[:12]}); "
            "delete that folder and try again"
        )
    return folder, model


def pull(name: str | Path, to: Path | None = None) -> tuple[Path, WeightsCard]:
    """Fetch weights as `load` does, check them, and copy them into a folder if one is given.

    Args:
        name: as for `load`.
        to: a weights folder to make; files that are already in it are left, and have to be the same.

    Returns:
        The folder that holds them, and their card.

    Raises:
        WeightsError: as `load`; or if `to` holds anything else under the same names.
        OSError: if `to` cannot be written.
    """
    folder, model = _open(name)
    if _is_from_hub(name) and not (folder / README).is_file():
        _fetch_readme(name, folder.name)
    if to is not None and to.resolve() != folder.resolve():
        _copy(folder, to)
        return to, model.card
    return folder, model.card


def bundled() -> dict[str, WeightsCard]:
    """Cards of the bundled weights, in the order of `ARCHITECTURES`.

    In a clone they are read from ``weights/``; in an installed package they are fetched from the Hub once.

    Raises:
        WeightsError: if a bundled card is damaged, or neither here nor within reach.
    """
    return {name: bundled_card(name) for name in bundled_names()}


def bundled_names() -> tuple[str, ...]:
    """Names of the bundled weights, whether or not they are here already; asks nobody."""
    return tuple(name for name in ARCHITECTURES if (BUNDLED / name / CONFIG).is_file() or _is_release(name))


def bundled_card(name: str) -> WeightsCard:
    """The card of one bundled name, without its tensors.

    Raises:
        WeightsError: as `bundled`.
    """
    return read_card(_fetch_release(name, CONFIG) if _is_release(name) else BUNDLED / name)


def whereabouts(name: str) -> str:
    """Where a bundled name's weights are: here, cached, to be fetched, not published yet, or not installed.

    Asks nobody.
    """
    if not _is_release(name):
        return "here" if (BUNDLED / name / CONFIG).is_file() else "not installed"
    release = released()[name]
    if not release.revision:
        return "not published yet"
    return "cached" if _cached(release.repo, release.revision, CONFIG, TENSORS) else "to be fetched"


def is_local(name: str | Path) -> bool:
    """Whether `name` is a folder here, by itself or as a bundled name; False for what the Hub holds."""
    return (BUNDLED / str(name)).is_dir() if str(name) in ARCHITECTURES else Path(name).is_dir()


def resolve(name: str | Path) -> Path:
    """The local folder of a bundled name, a folder or a Hub id, downloading the last if needed.

    Raises:
        WeightsError: if there is no such thing, or the Hub cannot be reached.
    """
    if _is_release(name):
        return _fetch_release(str(name), CONFIG, TENSORS)
    if str(name) in ARCHITECTURES:
        folder = BUNDLED / str(name)
        if not folder.is_dir():
            raise WeightsError(
                f"bundled weights {name!r} are not installed at {folder}; get the repository again"
            )
        return folder
    path = Path(name)
    if path.is_dir():
        return path
    if _is_hub_id(name):
        repo, _, revision = str(name).partition("@")
        return fetch(repo, revision or None, CONFIG, TENSORS)
    raise WeightsError(
        f"no weights {str(name)!r}: give one of {', '.join(ARCHITECTURES)}, a weights folder, or a Hub id "
        "owner/name"
    )


def _is_hub_id(name: str | Path) -> bool:
    repo = str(name).partition("@")[0]
    return repo.count("/") == 1 and not Path(name).is_absolute() and not repo.startswith(".")


def _is_from_hub(name: str | Path) -> bool:
    return _is_release(name) or (not is_local(name) and _is_hub_id(name))


def _is_release(name: str | Path) -> bool:
    """Whether `name` is a bundled name that an installed package has from the Hub."""
    return str(name) in released() and str(name) in ARCHITECTURES and not _in_clone()


def _in_clone() -> bool:
    # A folder of this name alone would prove nothing: beside an installed package lie other people's.
    return any((BUNDLED / name / CONFIG).is_file() for name in ARCHITECTURES)


def _fetch_release(name: str, *files: str) -> Path:
    release = released()[name]
    if not release.revision:
        raise WeightsError(
            f"the weights {name!r} of this version of brainseg are not published on the Hub yet; give a "
            "weights folder or a Hub id (owner/name) instead, or work in a clone of the repository, which "
            "holds them"
        )
    try:
        return fetch(release.repo, release.revision, *files)
    except WeightsError as error:
        raise WeightsError(f"weights {name!r} are not here yet: {error}, or give a weights folder") from error


def fetch(repo: str, revision: str | None, *files: str) -> Path:
    """The folder of a Hub repository's files in the local cache, fetched as far as they are not there.

    All files are of one commit. Where the Hub cannot be reached, what is cached of that revision is taken.

    Args:
        repo: ``owner/name``.
        revision: commit, tag or branch; None is the default branch.
        files: names inside the repository; nothing else is fetched. A card among them is read before anything
            larger is fetched.

    Raises:
        WeightsError: if a file is neither cached nor within reach; at once where the machine is offline,
            after `HUB_TIMEOUT_S` where nobody answers. If the card is not one of brainseg's.
    """
    # The client would ask the Hub for more than files, and tell it about this machine.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import DEFAULT_REVISION
    from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

    wanted = revision or DEFAULT_REVISION
    with in_one_sentence(repo, revision):
        here = _cached(repo, wanted, *files)
        if here is not None and here.name == wanted:
            return here  # a commit never changes: nobody is asked
        try:
            url = hf_hub_url(repo, files[0], revision=wanted)
            patience = HUB_TIMEOUT_S if here is None else NEWER_TIMEOUT_S
            commit = get_hf_file_metadata(url, timeout=patience).commit_hash
        except (RevisionNotFoundError, EntryNotFoundError):
            raise  # the Hub knows better than the cache
        except Exception:
            if here is not None:
                return here
            raise
        if commit is None or not _COMMIT.fullmatch(commit):
            raise WeightsError(
                f"what answers for {id_of(repo, revision)} is not the Hugging Face Hub; check HF_ENDPOINT, "
                "and whether the network asks for a login of its own"
            )
        # By commit, so that the branch leads to what was whole before until all of the new is here.
        folder = _storage(repo) / "snapshots" / commit
        for file in files:
            if not (folder / file).is_file():
                _link(fetch_file(repo, commit, file), folder / file)
            if file == CONFIG:
                _check_card(folder, repo, revision)
        if wanted != commit:
            _remember(repo, wanted, commit)
        return folder


def _check_card(folder: Path, repo: str, revision: str | None) -> None:
    try:
        read_card(folder)
    except WeightsError as error:
        raise WeightsError(f"{id_of(repo, revision)} from the Hub cannot be used: {error}") from error


def _cached(repo: str, revision: str, *files: str) -> Path | None:
    """The folder of the cache that holds these files of a revision as known last; None if one lacks."""
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(repo, file, revision=revision) for file in files]
    whole = [Path(path) for path in paths if isinstance(path, str)]
    return whole[0].parent if len(whole) == len(files) else None


def _remember(repo: str, revision: str, commit: str) -> None:
    """Note in the cache, as the client does, which commit a branch or tag meant."""
    note = _storage(repo) / "refs" / revision
    if note.is_file() and note.read_text(encoding="utf-8") == commit:
        return  # and a cache that is read-only stays so
    note.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(note) as file:
        file.write(commit.encode())


def _storage(repo: str) -> Path:
    """The repository's folder in the client's cache, laid out as its documentation states."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")


def fetch_file(repo: str, commit: str, file: str) -> Path:
    """Put a file's content into the client's cache, going on where an earlier try stopped.

    The client's own download goes on after a broken connection by pieces of 10 MB and within one call, which
    for weights of a few megabytes is never; and it sleeps for as long as a server asks for, without a word.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import WeakFileLock

    url = hf_hub_url(repo, file, revision=commit)
    stated = get_hf_file_metadata(url, timeout=HUB_TIMEOUT_S)
    digest, size, what = stated.etag, stated.size, f"{file} of {repo}@{commit[:12]}"
    if not digest or size is None:
        raise WeightsError(f"what answers for {repo} states no size or ETag of {file}; check HF_ENDPOINT")
    whole = _storage(repo) / "blobs" / re.sub(r"[^\w-]", "_", digest)
    whole.parent.mkdir(parents=True, exist_ok=True)
    part = whole.with_suffix(".part")
    with WeakFileLock(part.with_suffix(".lock")):
        if whole.exists():
            return whole
        with part.open("a+b") as out:
            _receive(url, out, size, what)
            out.seek(0)
            found = hashlib.file_digest(out, "sha256").hexdigest()
        if part.stat().st_size != size or (_SHA256.fullmatch(digest) and found != digest):
            part.unlink()
            raise WeightsError(f"{what} arrived damaged; try again")
        os.replace(part, whole)
    return whole


def _link(whole: Path, name: Path) -> None:
    """Give a file of the cache its name in the folder of a commit."""
    name.parent.mkdir(parents=True, exist_ok=True)
    try:
        name.symlink_to(os.path.relpath(whole, name.parent))
    except FileExistsError:
        return  # another program was quicker
    except OSError:  # no links there
        with atomic_write(name) as file:
            file.write(whole.read_bytes())


def _receive(url: str, out: BinaryIO, size: int, what: str) -> None:
    """Append to `out` what it lacks of a file of `size` bytes; with the client's bar on a terminal."""
    from huggingface_hub.utils import tqdm

    idle = 0
    with tqdm(total=size, initial=out.tell(), unit="B", unit_scale=True, desc=what, disable=None) as bar:
        while (start := out.tell()) < size:
            broken: Exception | None = None
            try:
                for piece in _rest(url, out):
                    out.write(piece)
                    bar.update(len(piece))
            except OSError:  # a refusal, or the disk
                raise
            except Exception as error:
                broken = error
            idle = 0 if out.tell() > start else idle + 1
            if idle == _IDLE_TRIES:
                raise WeightsError(
                    f"the connection to the Hub broke off, {out.tell():,} of {size:,} bytes of {what} are "
                    "here; try again, and it goes on from there"
                ) from broken
            if idle:
                time.sleep(1)


def _rest(url: str, out: BinaryIO) -> Iterator[bytes]:
    """What follows on the bytes in `out`, as it arrives; all of it where the server knows no ranges."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if start := out.tell():
        headers["Range"] = f"bytes={start}-"
    patience = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=patience) as answer:
        hf_raise_for_status(answer)
        if start and answer.status_code != HTTPStatus.PARTIAL_CONTENT:
            out.seek(0)
            out.truncate()
        yield from answer.iter_bytes()


def _drop_damaged(folder: Path) -> bool:
    """Whether the tensors in a folder of the cache were not those of the card, and were removed from it."""
    path = folder / TENSORS
    whole = path.resolve()
    if whole.parent.name != "blobs" or not _SHA256.fullmatch(whole.name):
        return False
    with whole.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == whole.name:
            return False  # as it was sent
    path.unlink()
    whole.unlink()
    return True


def _fetch_readme(name: str | Path, commit: str) -> None:
    """The model card beside weights that are in the cache; there need not be one."""
    repo = released()[str(name)].repo if _is_release(name) else str(name).partition("@")[0]
    with suppress(WeightsError):
        fetch(repo, commit, README)


def _copy(source: Path, to: Path) -> None:
    files = {
        name: (source / name).read_bytes() for name in (TENSORS, README, CONFIG) if (source / name).is_file()
    }
    for name, data in files.items():
        if (to / name).exists() and (to / name).read_bytes() != data:
            raise WeightsError(f"{to / name} is of something else; give a new folder")
    to.mkdir(parents=True, exist_ok=True)
    # The card last: without it, what is there is no weights folder.
    for name, data in files.items():
        with atomic_write(to / name) as file:
            file.write(data)
