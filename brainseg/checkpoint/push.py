"""A weights folder -> a repository on the Hugging Face Hub, in one commit."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg.checkpoint import hub
from brainseg.checkpoint.card import CONFIG
from brainseg.checkpoint.hub_errors import LOGIN, in_one_sentence
from brainseg.checkpoint.store import README, TENSORS, read_folder
from brainseg.files import atomic_write
from brainseg.types import WeightsCard, WeightsError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# huggingface_hub is slow to import and seldom needed.
# ruff: noqa: PLC0415

_TAG = re.compile(r"v?\d+(\.\d+)*([-.]?\w+)?")


@dataclass(frozen=True)
class Pushed:
    """What stands on the Hub after a push.

    Attributes:
        repo: ``owner/name``.
        url: of the commit's page.
        commit: 40 hexadecimal digits; the revision to pin.
        sha256: of model.safetensors.
        changed: False where all of it stood there already.
        tag: set on the commit, or empty.
    """

    repo: str
    url: str
    commit: str
    sha256: str
    changed: bool
    tag: str = ""


def is_tag(revision: str) -> bool:
    """Whether a new revision of this name becomes a tag, as ``v1`` and ``1.0`` do, and not a branch."""
    return _TAG.fullmatch(revision) is not None


def push(name: str | Path, repo: str, revision: str | None = None, *, private: bool = False) -> Pushed:
    """Write a weights folder's card, tensors and model card into a repository, as one commit.

    The folder is checked first. The repository is made if there is none; what stands there unchanged is not
    sent again. Other files in it stay.

    Args:
        name: a weights folder, or a bundled name in a clone.
        repo: ``owner/name`` on the Hub.
        revision: a branch to commit to, made if there is none; or, where it looks like a version (``v1``,
            ``1.0``), a tag to set on the commit in the default branch. None is the default branch.
        private: only the owner sees a repository that is made now.

    Raises:
        WeightsError: if the folder is not sound, the repository holds something else, nobody is logged in,
            or the Hub refuses; nothing was changed then, save that the repository may have been made.
    """
    if repo.count("/") != 1:
        raise WeightsError(f"{repo!r} is not a Hub id; write owner/name")
    card, files = _checked(name)
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    with in_one_sentence(repo, revision, "write to"), _bars_on_terminals_alone():
        if not get_token():
            raise WeightsError(
                f"nobody is logged in on the Hub here, so that {repo} cannot be written to; {LOGIN}"
            )
        api = HfApi()
        _create(api, repo, private)
        branch, tag, tagged = _branch_and_tag(api, repo, revision)
        if tagged:
            _refuse_other_tag(repo, tag, tagged, files)
            return Pushed(repo, _page(repo, tagged), tagged, card.sha256, False, tag)
        head = api.model_info(repo, revision=branch, timeout=hub.HUB_TIMEOUT_S).sha
        assert head is not None
        _refuse_strangers(repo, head)
        done = api.create_commit(
            repo,
            [CommitOperationAdd(path_in_repo=file, path_or_fileobj=data) for file, data in files.items()],
            commit_message=f"{card.name}, sha256 {card.sha256[:12]}",
            revision=branch,
            parent_commit=head,
        )
        if tag:
            api.create_tag(repo, tag=tag, revision=done.oid)
    return Pushed(repo, _page(repo, done.oid), done.oid, card.sha256, done.oid != head, tag)


@contextmanager
def _bars_on_terminals_alone() -> Iterator[None]:
    """Keep the client's bars out of logs, and its warnings about its own calls out of everything."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if sys.stderr.isatty() or are_progress_bars_disabled():
            yield
            return
        disable_progress_bars()
        try:
            yield
        finally:
            enable_progress_bars()


def _page(repo: str, commit: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}/tree/{commit}"


def state_release(name: str, pushed: Pushed) -> Path:
    """Write into ``released.json`` where an installed package gets the weights of a bundled name from now on.

    Returns:
        The file written.

    Raises:
        WeightsError: as `check_release`.
        OSError: if it cannot be written.
    """
    check_release(name)
    table = {key: asdict(row) for key, row in hub.released().items()}
    table[name] = asdict(hub.Release(pushed.repo, pushed.commit, pushed.sha256))
    with atomic_write(hub.RELEASED) as file:
        file.write((json.dumps(table, indent=2) + "\n").encode())
    hub.released.cache_clear()
    return hub.RELEASED


def check_release(name: str) -> None:
    """Refuse what `state_release` could not state.

    Raises:
        WeightsError: if `name` is not a bundled name, or this is not a clone.
    """
    if name not in hub.released() or hub.whereabouts(name) != "here":
        raise WeightsError(
            f"only a bundled name ({', '.join(hub.released())}) in a clone of the repository can be "
            f"released, not {name}; leave out --release"
        )


def _checked(name: str | Path) -> tuple[WeightsCard, dict[str, bytes]]:
    """What a folder would put on the Hub, once it is known to be sound."""
    if not hub.is_local(name):
        raise WeightsError(
            f"{name} is not a weights folder here, nor a bundled name in a clone; give one to push"
        )
    folder = hub.resolve(name)
    card = read_folder(folder).card
    if not (folder / README).is_file():
        raise WeightsError(f"{folder / README} is missing; {_rewrite(folder)}")
    files = {file: (folder / file).read_bytes() for file in (CONFIG, TENSORS, README)}
    if hashlib.sha256(files[TENSORS]).hexdigest() != card.sha256:
        raise WeightsError(f"{folder / TENSORS} was changed while it was read; try again")
    if wrong := _amiss(files[README], card):
        raise WeightsError(f"{folder / README} {wrong}; {_rewrite(folder)}")
    return card, files


def _rewrite(folder: Path) -> str:
    return f"write it with: brainseg evaluate DATASET --model {folder} --validation --write-card"


def _amiss(readme: bytes, card: WeightsCard) -> str:
    """What the Hub, or a reader of the model card there, would miss in its head; empty where it is right."""
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(readme.decode()).data
    except Exception:
        return "does not begin with metadata that the Hub reads"
    expected = {"license": card.licence, "library_name": "brainseg", "pipeline_tag": "image-segmentation"}
    for key, value in expected.items():
        if getattr(data, key, None) != value:
            return f"does not state {key}: {value}"
    results = getattr(data, "eval_results", None) or []
    stated = [one.metric_value for one in results if one.metric_type == "dice"]
    if not stated or any(not _names_protocol(one) for one in results):
        return "states no Dice with its data set, split and protocol"
    figures = [card.metrics.get(key) for key in ("dice_mean", "dice_median")]
    if stated != [round(value, 3) for value in figures if value is not None]:
        return f"states other figures than {CONFIG}"
    return ""


def _names_protocol(result: Any) -> bool:
    return bool(result.dataset_name and result.dataset_split and (result.metric_args or {}).get("protocol"))


def _create(api: HfApi, repo: str, private: bool) -> None:
    """Make the repository if it is not there; what is there is never made private or public."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        # First of all a question with a limit of time: the client waits for ever elsewhere.
        api.model_info(repo, timeout=hub.HUB_TIMEOUT_S)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        api.create_repo(repo, private=private or None, exist_ok=True)


def _branch_and_tag(api: HfApi, repo: str, revision: str | None) -> tuple[str | None, str, str]:
    """The branch to commit to, None for the default one; the tag to set, if any; where it is, if it is."""
    if revision is None:
        return None, "", ""
    refs = api.list_repo_refs(repo)
    tags = {one.name: one.target_commit for one in refs.tags}
    if revision in {one.name for one in refs.branches}:
        return revision, "", ""
    if revision in tags or is_tag(revision):
        return None, revision, tags.get(revision, "")
    api.create_branch(repo, branch=revision, exist_ok=True)
    return revision, "", ""


def _refuse_other_tag(repo: str, tag: str, commit: str, files: dict[str, bytes]) -> None:
    """A tag stays where it is: others rely on it. Its card states the sha256 of its tensors."""
    for file in (CONFIG, README):
        if hub.fetch_file(repo, commit, file).read_bytes() != files[file]:
            raise WeightsError(
                f"the tag {tag} of {repo} holds other weights, and tags stay where they are; give a new "
                "--revision"
            )


def _refuse_strangers(repo: str, head: str) -> None:
    """Leave a repository alone whose config.json is of another program."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        text = hub.fetch_file(repo, head, CONFIG).read_bytes()
    except EntryNotFoundError:
        return
    try:
        own = {"spec", "preprocess", "sha256"} <= json.loads(text).keys()
    except (ValueError, AttributeError):
        own = False
    if not own:
        raise WeightsError(
            f"{repo} holds another program's model ({CONFIG} is not a brainseg card); choose another name"
        )
