"""Weights by name: a bundled name, a folder, or an id on the Hugging Face Hub.

In a clone the bundled names are the folders in ``weights/``. An installed package has none beside it: their
licence is not the code's, so that they are no part of the wheel. There the same names are fetched from the
Hub, once, at the revision in ``released.json``, and accepted with the sha256 stated there alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from brainseg.checkpoint.card import CONFIG, read_card
from brainseg.checkpoint.store import TENSORS, LoadedModel, read_folder
from brainseg.models import ARCHITECTURES
from brainseg.types import WeightsCard, WeightsError

BUNDLED = Path(__file__).resolve().parents[2] / "weights"
HUB_TIMEOUT_S = 5.0
"""How long the Hub has to answer at all; a firewall that swallows packets is noticed by this alone."""


@dataclass(frozen=True)
class Release:
    """Where the weights of a bundled name are on the Hub, and which they are.

    Attributes:
        repo: ``owner/name`` there.
        revision: commit, 40 hexadecimal digits.
        sha256: of model.safetensors.
    """

    repo: str
    revision: str
    sha256: str


@cache
def released() -> dict[str, Release]:
    """The releases of this version by name, from ``released.json``."""
    table = json.loads(Path(__file__).with_name("released.json").read_text(encoding="utf-8"))
    return {name: Release(**row) for name, row in table.items()}


def load(name: str | Path) -> LoadedModel:
    """Load weights by bundled name (`unet`, ...), folder, or Hub id (`owner/name` or `owner/name@revision`).

    Raises:
        WeightsError: if they are missing, damaged, or of another network than the card says.
    """
    folder = resolve(name)
    model = read_folder(folder)
    if _is_release(name) and model.card.sha256 != released()[str(name)].sha256:
        raise WeightsError(
            f"{folder} does not hold the weights {name} of this version of brainseg "
            f"(sha256 {model.card.sha256[:12]}, expected {released()[str(name)].sha256[:12]}); "
            "delete that folder and try again"
        )
    return model


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
    if str(name).count("/") == 1 and not path.is_absolute() and not str(name).startswith("."):
        repo, _, revision = str(name).partition("@")
        return fetch(repo, revision or None, CONFIG, TENSORS)
    raise WeightsError(
        f"no weights {str(name)!r}: give one of {', '.join(ARCHITECTURES)}, a weights folder, or a Hub id "
        "owner/name"
    )


def _is_release(name: str | Path) -> bool:
    """Whether `name` is a bundled name that an installed package has from the Hub."""
    return str(name) in released() and str(name) in ARCHITECTURES and not _in_clone()


def _in_clone() -> bool:
    # A folder of this name alone would prove nothing: beside an installed package lie other people's.
    return any((BUNDLED / name / CONFIG).is_file() for name in ARCHITECTURES)


def _fetch_release(name: str, *files: str) -> Path:
    release = released()[name]
    try:
        return fetch(release.repo, release.revision, *files)
    except WeightsError as error:
        raise WeightsError(
            f"weights {name!r} are neither here nor within reach on the Hub ({release.repo}); check the "
            "network connection, or give a weights folder"
        ) from error


def fetch(repo: str, revision: str | None, *files: str) -> Path:
    """The folder of a Hub repository's files in the local cache, fetched as far as they are not there.

    All files are of one commit. Where the Hub cannot be reached, what is cached of that revision is taken.

    Args:
        repo: ``owner/name``.
        revision: commit, tag or branch; None is the default branch.
        files: names inside the repository; nothing else is fetched.

    Raises:
        WeightsError: if a file is neither cached nor within reach; at once where the machine is offline,
            after `HUB_TIMEOUT_S` where nobody answers.
    """
    # The client would ask the Hub for more than files, and tell it about this machine.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import (  # noqa: PLC0415 - slow to import, seldom needed
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.constants import DEFAULT_REVISION  # noqa: PLC0415

    wanted = revision or DEFAULT_REVISION
    try:
        cached = [try_to_load_from_cache(repo, file, revision=wanted) for file in files]
        whole = [Path(path) for path in cached if isinstance(path, str)]
        if len(whole) == len(files) and whole[0].parent.name == wanted:
            return whole[0].parent  # a commit never changes: nobody is asked
        try:
            # Asked once, without retries: hf_hub_download alone waits for minutes where nobody answers.
            get_hf_file_metadata(hf_hub_url(repo, files[0], revision=wanted), timeout=HUB_TIMEOUT_S)
        except Exception:
            if len(whole) == len(files):
                return whole[0].parent
            raise
        folder = Path(hf_hub_download(repo, files[0], revision=wanted, etag_timeout=HUB_TIMEOUT_S)).parent
        for file in files[1:]:
            hf_hub_download(repo, file, revision=folder.name, etag_timeout=HUB_TIMEOUT_S)
        return folder
    except Exception as error:
        name = f"{repo}@{revision}" if revision else repo
        raise WeightsError(
            f"weights {name!r} are neither a folder nor within reach on the Hub; "
            "check the name and the network connection"
        ) from error
