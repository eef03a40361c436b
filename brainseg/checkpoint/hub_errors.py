"""What goes wrong with the Hugging Face Hub, each in one sentence that names the repository and the remedy.

The client's own messages are left out where ours say as much: they are long, and a message about a header
may hold the login's token.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from brainseg.fields import readable
from brainseg.types import WeightsError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

# The client is slow to import and seldom needed.
# ruff: noqa: PLC0415

Doing = Literal["read", "write to"]
_FULL = (errno.ENOSPC, errno.EDQUOT)
LOGIN = "log in with `hf auth login`"


@contextmanager
def in_one_sentence(repo: str, revision: str | None, doing: Doing = "read") -> Iterator[None]:
    """Raise WeightsError for whatever the client raises inside, and keep its log to itself.

    Args:
        repo: ``owner/name``.
        revision: commit, tag or branch; None is the default branch.
        doing: what the login must be allowed to.
    """
    from huggingface_hub.utils import logging

    said = logging.get_verbosity()
    logging.set_verbosity_error()  # its warnings hold addresses that let others in
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        # A cause is printed with a traceback.
        raise WeightsError(_sentence(error, repo, revision, doing)) from (
            None if _tells_token(error) else error
        )
    finally:
        logging.set_verbosity(said)


def id_of(repo: str, revision: str | None) -> str:
    """``owner/name`` or ``owner/name@revision``."""
    return f"{repo}@{revision}" if revision else repo


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    next_one: BaseException | None = error
    while next_one is not None and next_one not in seen:
        seen.append(next_one)
        yield next_one
        next_one = next_one.__cause__ or next_one.__context__


def _tells_token(error: BaseException) -> bool:
    from huggingface_hub import get_token

    token = get_token()
    return bool(token) and any(str(token) in str(one) + repr(one) for one in _chain(error))


def _sentence(error: Exception, repo: str, revision: str | None, doing: Doing) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    what = readable(id_of(repo, revision))
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, HfHubHTTPError):
            return _refusal(one, repo, revision, doing)
        if isinstance(one, HFValidationError):
            return f"{what!r} is not a Hub id; write owner/name or owner/name@revision"
        if isinstance(one, OfflineModeIsEnabled):
            return (
                f"{what} is not in the cache, and HF_HUB_OFFLINE forbids asking the Hub; unset it, or give a "
                "weights folder"
            )
    for one in chain:
        if isinstance(one, OSError) and (one.filename is not None or one.errno in _FULL):
            return (
                f"the cache of the Hub, {constants.HF_HUB_CACHE}, cannot be used ({one.strerror}); make room "
                "there, or name another place in HF_HOME"
            )
    if doing == "read":
        return (
            f"{what} is neither a folder, nor in the cache, nor within reach on the Hub; check the name and "
            "the network connection"
        )
    host = urlsplit(constants.ENDPOINT).hostname
    return (
        f"{what} was not changed: the connection to the Hub ({host}) failed; check the network connection "
        "and try again"
    )


def _refusal(error: HfHubHTTPError, repo: str, revision: str | None, doing: Doing) -> str:
    """The Hub answered, and not with what it was asked for."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    page = f"{constants.ENDPOINT}/{repo}"
    file = readable(str(error.response.request.url).partition("?")[0].rpartition("/")[2])
    missing = isinstance(error, RepositoryNotFoundError)
    rules = [
        (
            isinstance(error, GatedRepoError),
            f"the repository {repo} is gated; ask for access at {page}, then {LOGIN}",
        ),
        (
            isinstance(error, RevisionNotFoundError),
            f"the repository {repo} has no revision {readable(revision or 'main')!r} on the Hub; take a "
            f"branch, tag or commit listed at {page}/tree/main",
        ),
        (
            isinstance(error, EntryNotFoundError),
            f"{id_of(repo, revision)} on the Hub holds no {file}, so that it is not a repository of brainseg "
            "weights; check the name",
        ),
        (
            status == 401 and not missing and bool(get_token()),
            f"the Hub refuses the login of this computer for {repo}; {LOGIN} again",
        ),
        (
            missing or status in (401, 404),
            f"the Hub shows no repository {repo}; check the name, or {LOGIN} if it is private",
        ),
        (
            status == 403,
            f"this login may not {doing} {repo}; ask its owner for access, or {LOGIN} and a token that may",
        ),
        (
            status in (409, 412),
            f"{repo} was changed by somebody else meanwhile; look at {page} and push again",
        ),
        (status == 429, f"the Hub wants fewer requests; try {repo} again {_pause(error)}"),
        (status >= 500, f"the Hub failed on {repo} (HTTP {status}); try again in a few minutes"),
    ]
    for holds, sentence in rules:
        if holds:
            return sentence
    return f"the Hub refuses to let this program {doing} {repo} (HTTP {status}); look at {page}"


def _pause(error: HfHubHTTPError) -> str:
    headers = error.response.headers
    seconds = re.search(r"^\d+$", headers.get("Retry-After", "").strip())
    seconds = seconds or re.search(r"(?<=t=)\d+", headers.get("RateLimit", ""))
    return f"in {int(seconds[0])} seconds" if seconds else "in a few minutes"
