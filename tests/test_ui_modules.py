"""Many modules become one script that means the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import brainseg.ui
from brainseg.ui.modules import asset, join, script

# What each face calls.
FACES = {
    "streamlit.js": ["default function mount"],
    "gradio.js": [f"function {name}" for name in ("viewer", "buttons", "downloads", "dropzone", "sequences")],
}
VIEWER = Path(brainseg.ui.__file__).parent / "viewer"


def run(text: str, path: Path) -> str:
    """What a module prints."""
    node = shutil.which("node")
    if node is None:
        pytest.fail("no Node.js: install it (apt-get install nodejs)", pytrace=False)
    path.write_text(text, encoding="utf-8")
    return subprocess.run([node, str(path)], capture_output=True, text=True, check=True).stdout


def test_joined_modules_keep_their_scopes_and_run_once_in_order(tmp_path: Path) -> None:
    modules = {
        "main.js": 'import { b, twice as two } from "./low/b.js";\nimport {\n  a,\n} from "./a.js";\n'
        "const secret = 0;\nconsole.log(a, b, two(4), secret);\n"
        "export default function mount() {}\nexport const named = 1;\n",
        "low/b.js": 'import { a } from "../a.js";\nconst secret = 1;\n'
        "export const b = a + secret;\nexport function twice(x) {\n  return 2 * x;\n}\n",
        "a.js": 'const secret = 40;\nconsole.log("once");\nexport const a = secret;\n'
        "export async function later() {}\nexport class Thing {}\n",
    }
    joined = join("main.js", modules.__getitem__)
    assert "import" not in joined
    assert re.findall("^export.*", joined, re.MULTILINE) == [
        "export default function mount() {}",
        "export const named = 1;",
    ]
    assert run(joined, tmp_path / "joined.mjs") == "once\n40 41 8 0\n"


@pytest.mark.parametrize(
    "line",
    [
        'import thing from "./a.js";',
        'import * as thing from "./a.js";',
        'import "./a.js";',
        'import { a } from "elsewhere";',
        'export { a } from "./a.js";',
        "export let changing = 1;",
        "export const { a, b } = {};",
    ],
)
def test_a_form_that_cannot_be_joined_is_refused(line: str) -> None:
    modules = {"main.js": f"{line}\n", "a.js": "export const a = 1;\n"}
    with pytest.raises(ValueError, match=r"^main.js: not a form that can be joined"):
        join("main.js", modules.__getitem__)


def test_a_default_below_the_first_module_is_refused() -> None:
    modules = {
        "main.js": 'import { a } from "./a.js";\n',
        "a.js": "export const a = 1;\nexport default function f() {}\n",
    }
    with pytest.raises(ValueError, match=r"^a.js: .*export default"):
        join("main.js", modules.__getitem__)


def test_a_circle_is_refused() -> None:
    modules = {
        "main.js": 'import { a } from "./a.js";\n',
        "a.js": 'import { b } from "./main.js";\nexport const a = 1;\n',
    }
    with pytest.raises(ValueError, match=r"circle: main.js -> a.js -> main.js"):
        join("main.js", modules.__getitem__)


@pytest.mark.parametrize("face", FACES)
def test_a_face_joined_has_what_it_is_called_by(face: str) -> None:
    assert re.findall("^export (.*?) ?\\(", script(face), re.MULTILINE) == FACES[face]


def test_the_viewer_joined_is_a_module_of_every_file() -> None:
    names = {path.relative_to(VIEWER).as_posix() for path in VIEWER.rglob("*.js")} - FACES.keys()
    joined = "".join(map(script, FACES))
    assert set(re.findall(r'^modules\["(.*?)"\] = ', joined, re.MULTILINE)) == names


def test_the_middle_of_the_viewer_knows_no_face() -> None:
    joined = script("viewer.js")
    assert "class Viewer" in joined
    assert "setStateValue" not in joined
    assert 'modules["streamlit.js"]' not in joined


def test_every_module_is_checked_by_types() -> None:
    for path in VIEWER.rglob("*.js"):
        assert path.read_text(encoding="utf-8").startswith("// @ts-check\n"), path
    assert asset("viewer.css")
