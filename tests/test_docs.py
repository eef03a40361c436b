"""The site builds without a warning, leads nowhere wrong, loads nothing from elsewhere, and leaves out no
command and no public name."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image
from typer.testing import CliRunner

import brainseg
from brainseg.cli import main
from brainseg.cli.program import app
from brainseg.io.readers import READERS
from brainseg.io.sniff import READ
from brainseg.sample import SYNTHETIC_GLIOMA

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))

# Papers and their data; nothing else is linked to.
HOSTS = {"arxiv.org", "doi.org"}
PACKAGES = ("brainseg", "brainseg.checkpoint", "brainseg.io", "brainseg.measure", "brainseg.report")


@dataclass
class Html(HTMLParser):
    """What one built page names, links to and loads."""

    text: str
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link":
            # A canonical address and the like load nothing.
            if given.get("rel") not in ("prev", "next", "canonical"):
                self.loads.append(given["href"])
        else:
            self.loads += [given[name] for name in ("src", "href", "data", "poster") if name in given]


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    """The built pages by path."""
    found = {path: Html(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    # The page for addresses that are not there is written for a server's root.
    return {path: page for path, page in found.items() if path.name != "404.html"}


def section(page: Html, anchor: str) -> str:
    """The HTML from the heading with this id to the next one."""
    found = re.search(rf'<h\d id="{re.escape(anchor)}".*?(?=<h\d |\Z)', page.text, re.DOTALL)
    assert found, anchor
    return found[0]


def test_every_page_is_built_and_reached_from_the_first(pages: dict[Path, Html], site: Path) -> None:
    built = {path.relative_to(site).with_suffix(".md") for path in pages}
    assert built == {path.relative_to(DOCS) for path in PAGES}
    linked = {(site / unquote(urlsplit(link).path)).resolve() for link in pages[site / "index.html"].links}
    assert set(pages) <= linked


def test_every_internal_link_leads_somewhere(pages: dict[Path, Html]) -> None:
    lost = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target in pages and (not parts.fragment or unquote(parts.fragment) in pages[target].ids)
            if not there:
                lost.append(f"{path.name}: {link}")
    assert lost == []


def test_external_links_go_to_papers_alone(pages: dict[Path, Html]) -> None:
    outside = [urlsplit(link) for page in pages.values() for link in page.links if urlsplit(link).scheme]
    assert outside
    assert {parts.scheme for parts in outside} == {"https"}
    assert {parts.hostname for parts in outside} <= HOSTS


def test_nothing_is_loaded_from_another_host(pages: dict[Path, Html], site: Path) -> None:
    for path, page in pages.items():
        assert page.loads
        for address in page.loads:
            parts = urlsplit(address)
            assert not parts.netloc, f"{path.name}: {address}"
            if parts.scheme != "data" and parts.path:
                assert (path.parent / unquote(parts.path)).resolve().exists(), f"{path.name}: {address}"
    for style in site.rglob("*.css"):
        for address in re.findall(r"url\(([^)]*)\)|@import", style.read_text(encoding="utf-8")):
            assert address.strip("'\"").startswith(("data:", "#", "../", "./")), f"{style.name}: {address}"


def test_every_command_and_option_is_on_its_page(pages: dict[Path, Html], site: Path) -> None:
    page = pages[site / "cli.html"]

    def names(words: list[str]) -> list[str]:
        printed = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
        for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", printed)) - {"--help"}:
            assert option in section(page, "-".join(["brainseg", *words])), (words, option)
        table = printed.partition("Commands")[2]
        return re.findall(r"^[│ ]+([a-z][a-z-]*)  ", table, re.MULTILINE)

    groups = names([])
    assert {"predict", "evaluate", "train", "models", "app", "data"} <= set(groups)
    assert {"fetch", "check"} <= set(names(["data"]))
    for group in groups:
        for command in names([group]):
            names([group, command])


def test_every_public_name_is_in_the_reference(pages: dict[Path, Html], site: Path) -> None:
    front = pages[site / "python.html"].ids
    assert {f"brainseg.{name}" for name in brainseg.__all__} <= front
    ids = set().union(*(page.ids for page in pages.values()))
    for package in PACKAGES:
        module = import_module(package)
        for name in module.__all__:
            public = getattr(module, name)
            if callable(public):
                assert {f"{package}.{name}", f"{public.__module__}.{name}"} & ids, f"{package}.{name}"


def test_formats_that_are_read_are_on_the_page_of_formats() -> None:
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    for kind in {reader.kind.upper() for reader in READERS} | set(re.findall(r"[A-Z]\w+", READ)):
        assert f"| {kind}" in text or f", {kind} |" in text, kind


def copy_slices(folder: Path) -> None:
    """Three slices of the sample through the lesion, with their masks."""
    folder.mkdir(parents=True)
    for number in (13, 14, 15):
        for path in SYNTHETIC_GLIOMA.glob(f"*_{number}*.tif"):
            shutil.copy(path, folder)


def shell_commands() -> list[str]:
    """The commands of all blocks marked ``sh``, which promise to run on the sample from the root."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_there_are_examples_of_the_shell() -> None:
    assert sum("brainseg/sample" in command for command in shell_commands()) >= 4


@pytest.mark.parametrize("command", shell_commands())
def test_examples_of_the_shell_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The sample's whole way takes longer; its slices are alike.
    copy_slices(tmp_path / "brainseg/sample/synthetic_glioma")
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(command)
    assert program == "brainseg"
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert capsys.readouterr().out
    if "--out" in arguments:
        assert any((tmp_path / arguments[arguments.index("--out") + 1]).iterdir())


def test_python_of_the_site_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of python.md, in one namespace, beside a patient's folder of the name it uses."""
    copy_slices(tmp_path / "patient_folder")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "python.md", "exec"), names)
    strict = names["strict"]
    assert isinstance(strict, brainseg.Finding)
    assert strict.mask.any()


def test_every_picture_is_shown_and_small() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    shown = set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.png")}
    assert there
    assert there == {name for name in shown if name.endswith(".png")}
    for name in there:
        assert (DOCS / name).stat().st_size < 400_000, name
        with Image.open(DOCS / name) as picture:
            picture.verify()


def test_the_diagram_is_what_its_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    drawn: str = import_module("diagram").svg()
    assert (DOCS / "images/networks.svg").read_text(encoding="utf-8") == drawn
