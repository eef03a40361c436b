"""The viewer's ES modules as the one script that a face can take.

Streamlit's components take a script as text and load it from a blob, from where no relative import leads
anywhere; Gradio's take text as well. So the modules are joined when the face starts: no bundler, no build
step, no second copy of the code in the repository. Each module keeps a scope of its own, as in a browser,
so that what it does not export stays its own.

Joining reads lines, not JavaScript, and knows the forms that the viewer is written in:
``import { a, b as c } from "./x.js";`` and ``export`` before a ``const``, ``function``, ``async function``
or ``class``; the first module may have a default as well. It refuses any other form rather than guess.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from importlib.resources import files

_IMPORT = re.compile(r'^import \{([^{}]*)\} from "(\.[^"]*)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|function|async function|class) (\w+))", re.MULTILINE)
_DEFAULT = re.compile(r"^export default (?=function |class )", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
_AS = re.compile(r"\s+as\s+")


def asset(name: str) -> str:
    """The text of a file of the viewer, for instance ``viewer.css``."""
    return files("brainseg.ui").joinpath("viewer", *name.split("/")).read_text(encoding="utf-8")


def script(entry: str) -> str:
    """A module of the viewer and all that it imports, as one module with the exports of the first."""
    return join(entry, asset)


def join(entry: str, read: Callable[[str], str]) -> str:
    """One ES module out of several.

    Args:
        entry: path of the module whose exports are kept.
        read: from a module's path, relative to a common root, to its text.

    Raises:
        ValueError: if a module imports or exports in a form not known here, or modules import in a circle.
    """
    order: dict[str, str] = {}
    _add(entry, read, order, ())
    *others, last = order.items()
    scopes = [f'modules["{path}"] = (() => {{\n{_closed(body)}}})();\n' for path, body in others]
    return "".join(["const modules = {};\n", *scopes, last[1]])


def _add(path: str, read: Callable[[str], str], order: dict[str, str], above: tuple[str, ...]) -> None:
    """Put a module into `order` after all that it imports, its imports rewritten."""
    if path in above:
        raise ValueError(f"modules import in a circle: {' -> '.join((*above, path))}")
    if path in order:
        return
    text = read(path)

    def take(match: re.Match[str]) -> str:
        names, other = match.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), other))
        _add(target, read, order, (*above, path))
        return f'const {{{_AS.sub(": ", names)}}} = modules["{target}"];'

    body = _IMPORT.sub(take, text)
    rest = _EXPORT.sub("", body)
    if not above:  # the first module stays as it is, so it may have a default
        rest = _DEFAULT.sub("", rest)
    unknown = _OTHER.search(rest)
    if unknown is not None:
        raise ValueError(f"{path}: not a form that can be joined: {unknown[0]}")
    order[path] = body


def _closed(body: str) -> str:
    """The inside of a module's scope: its text without ``export``, then what it exports."""
    names = ", ".join(_EXPORT.findall(body))
    return f"{_EXPORT.sub('', body)}return {{ {names} }};\n"
