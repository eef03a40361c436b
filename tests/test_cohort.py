"""A cohort's folder: figures as `predict` gives them, and nothing lost or half there, whatever happens."""

from __future__ import annotations

import csv
import json
import resource
import shutil
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import cohort_speed
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brainseg import cli
from brainseg.checkpoint import load
from brainseg.cohort.folder import folder_names, open_folder
from brainseg.cohort.outcome import Outcome, T, Work, in_loop
from brainseg.cohort.patient import Examination
from brainseg.cohort.run import CohortResult, find_patients, predict_cohort
from brainseg.report import folder as report_folder
from brainseg.types import RESEARCH_USE, BrainsegError, InputError

Run = Callable[..., tuple[int, str, str]]
CASES = ["CASE_A", "CASE_B", "CASE_C"]


@pytest.fixture(scope="module")
def work(folders: dict[str, Path]) -> Examination:
    return Examination([load(folders["unet"]), load(folders["attention_unet"])], device="cpu")


@pytest.fixture
def patients(dataset: Path, tmp_path: Path) -> Path:
    """A copy of the three patients, to be spoilt."""
    return Path(shutil.copytree(dataset, tmp_path / "patients"))


class Recorder:
    """The plain engine; keeps which patients it was given, and can be killed after some."""

    def __init__(self, kill_after: int = 99) -> None:
        self.given: list[str] = []
        self._kill_after = kill_after

    def __call__(self, work: Work[T], patients: Mapping[str, Path]) -> Generator[Outcome[T]]:
        self.given = list(patients)
        for number, outcome in enumerate(in_loop(work, patients)):
            if number == self._kill_after:
                raise KeyboardInterrupt
            yield outcome


def records(out: Path) -> dict[str, dict[str, Any]]:
    """Lines by patient; each on a line of its own, and none twice."""
    content = (out / "records.jsonl").read_bytes()
    assert content.endswith(b"\n")
    rows = [json.loads(line) for line in content.splitlines()]
    assert len({row["patient"] for row in rows}) == len(rows)
    return {row["patient"]: row for row in rows}


def timeless(value: Any) -> Any:
    """Without what no two runs share."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in ("seconds", "time_utc")}
    return value


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def everything(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*")}


# --- what is found ---


def test_figures_and_files_are_those_of_predict(
    work: Examination,
    folders: dict[str, Path],
    dataset: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert predict_cohort(dataset, out, work, in_loop) == CohortResult(3, 3, 0, {}, ())
    found = records(out)
    assert list(found) == CASES
    for case in CASES:
        alone = tmp_path / case
        models = [part for name in ("unet", "attention_unet") for part in ("--model", str(folders[name]))]
        with pytest.raises(SystemExit) as stop:
            cli.main(["predict", str(dataset / case), *models, "--device", "cpu", "--out", str(alone)])
        assert stop.value.code == 0
        capfd.readouterr()
        record, mine = found[case], out / found[case]["folder"]
        assert everything(mine) == everything(alone)
        expected = json.loads((alone / f"{case}.json").read_bytes())
        assert timeless(json.loads((mine / f"{case}.json").read_bytes())) == timeless(expected)
        for path in mine.rglob("*_mask.tif"):
            assert np.array_equal(pixels(path), pixels(alone / path.relative_to(mine)))
        for name, model in expected["models"].items():
            row = {key: value for key, value in model.items() if key not in ("slices", "area_per_slice")}
            assert timeless(record["models"][name]) == timeless(row)
        for key in ("case_id", "notes", "shape", "agreement", "reference_voxels", "brainseg_version"):
            assert record[key] == expected[key]
        assert record["source"]["sha256"] == expected["source"]["sha256"]
        assert record["seconds"] >= sum(model["seconds"] for model in record["models"].values())
        with Image.open(out / record["thumbnail"]) as picture:
            assert picture.size == (256, 128)
            assert picture.info["Disclaimer"] == RESEARCH_USE


def test_the_thumbnail_shows_the_slice_marked_most_and_the_reference(
    work: Examination, dataset: Path, tmp_path: Path
) -> None:
    predict_cohort(dataset, tmp_path, work, in_loop)
    for case, record in records(tmp_path).items():
        whole = json.loads((tmp_path / record["folder"] / f"{case}.json").read_bytes())
        marked = np.sum([model["area_per_slice"] for model in whole["models"].values()], axis=0)
        assert record["thumbnail_slice"] == whole["slice_numbers"][int(marked.argmax())]
        blue = (pixels(tmp_path / record["thumbnail"]) == (0, 0x72, 0xB2)).all(axis=-1)
        assert blue.any() == (case != "CASE_C"), "the third has no tumour to outline"


def test_the_table_has_a_row_for_each_patient_and_model(
    work: Examination, patients: Path, tmp_path: Path
) -> None:
    (patients / "=1+1").mkdir()
    predict_cohort(patients, tmp_path / "out", work, in_loop)
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["patient"], row["model"]) for row in rows] == [
        ("'=1+1", ""),
        *((case, model) for case in CASES for model in ("unet", "attention_unet")),
    ]
    assert "is empty" in rows[0]["failure"]
    found = records(tmp_path / "out")
    for row in rows[1:]:
        model = found[row["patient"]]["models"][row["model"]]
        assert row["weights_sha256"] == model["weights_sha256"]
        assert float(row["threshold"]) == model["threshold"]
        if model["dice"] is None:
            assert row["dice"] == f"not computable: {model['not_computable']['dice']}"
        else:
            assert float(row["dice"]) == model["dice"]
        assert row["research_use"] == RESEARCH_USE
        assert (row["volume_ml"], row["failure"]) == ("not computable: the spacing is unknown", "")


def test_spacing_and_channels_are_those_of_the_user(
    folders: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    order = ("flair", "pre", "post")
    work = Examination([load(folders["unet"])], False, "cpu", (5.0, 0.5, 0.5), order)
    predict_cohort(dataset, tmp_path, work, in_loop)
    record = records(tmp_path)["CASE_B"]
    row = record["models"]["unet"]
    assert row["volume_ml"] == pytest.approx(row["tumour_voxels"] * 5 * 0.5 * 0.5 / 1000)
    assert any("given by the user" in note for note in record["notes"])
    assert record["source"]["sha256"] != ""
    assert b">ml<" in (tmp_path / "index.html").read_bytes()


# --- failures ---


def test_failures_are_listed_and_tried_again(work: Examination, patients: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    broken = patients / "CASE_B" / "CASE_B_2.tif"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:40])
    (patients / "notes.txt").write_text("nobody")
    result = predict_cohort(patients, out, work, in_loop)
    assert (result.patients, result.done, result.left_out) == (3, 2, ("notes.txt",))
    assert list(result.failures) == ["CASE_B"]
    assert "CASE_B_2.tif" in result.failures["CASE_B"]
    assert records(out)["CASE_B"]["failure"] == result.failures["CASE_B"]
    assert b"CASE_B_2.tif" in (out / "index.html").read_bytes()
    assert not list(out.glob("*/CASE_B*"))
    broken.write_bytes(whole)
    engine = Recorder()
    assert predict_cohort(patients, out, work, engine) == CohortResult(3, 3, 2, {}, ("notes.txt",))
    assert engine.given == ["CASE_B"]
    assert all(record["failure"] is None for record in records(out).values())
    assert b"failed: " not in (out / "index.html").read_bytes()


def test_zips_are_patients_and_the_output_is_none(work: Examination, patients: Path) -> None:
    shutil.make_archive(str(patients / "CASE_C"), "zip", patients, "CASE_C")
    shutil.rmtree(patients / "CASE_C")
    (patients / ".hidden").mkdir()
    predict_cohort(patients, patients / "out", work, in_loop)
    again, _ = find_patients(patients, patients / "out")
    assert list(again) == list(records(patients / "out")) == ["CASE_A", "CASE_B", "CASE_C.zip"]


# --- going on ---


def test_what_is_done_is_not_done_again(work: Examination, patients: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict_cohort(patients, out, work, Recorder(kill_after=1))
    before = (out / "records.jsonl").read_bytes()
    page = (out / "index.html").read_text()
    assert "1 done, 0 failed, 2 not yet begun" in page
    engine = Recorder()
    assert predict_cohort(patients, out, work, engine).earlier == 1
    assert engine.given == ["CASE_B", "CASE_C"]
    assert (out / "records.jsonl").read_bytes().startswith(before)
    engine = Recorder()
    predict_cohort(patients, out, work, engine)
    assert engine.given == []
    shutil.copytree(patients / "CASE_A", patients / "CASE_D")
    predict_cohort(patients, out, work, engine)
    assert engine.given == ["CASE_D"], "a patient that is new to the data set"


def test_what_a_kill_left_is_mended(work: Examination, patients: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict_cohort(patients, out, work, Recorder(kill_after=2))
    lines = (out / "records.jsonl").read_bytes().splitlines(keepends=True)
    # Killed in the middle of a line, of a patient's folder, of a picture and of the page.
    (out / "records.jsonl").write_bytes(lines[0] + lines[1][:-200])
    (out / "patients" / ".writing-abc" / "masks").mkdir(parents=True)
    (out / "patients" / ".writing-abc" / "masks" / "half.tif").write_bytes(b"II*")
    (out / "thumbnails" / "CASE_C.png.tmp").write_bytes(b"half")
    (out / "index.html.tmp").write_bytes(b"half")
    (out / "patients" / "CASE_B" / "of the run before.txt").touch()
    engine = Recorder()
    predict_cohort(patients, out, work, engine)
    assert engine.given == ["CASE_B", "CASE_C"]
    assert list(records(out)) == CASES
    straight = tmp_path / "straight"
    predict_cohort(patients, straight, work, in_loop)
    assert everything(out) == everything(straight)
    assert timeless(records(out)) == timeless(records(straight))


def test_a_damaged_line_is_refused_and_left(work: Examination, dataset: Path, tmp_path: Path) -> None:
    predict_cohort(dataset, tmp_path, work, in_loop)
    path = tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{nonsense\n" + lines[2])
    before = path.read_bytes()
    with pytest.raises(BrainsegError, match=r"line 2 of .*records.jsonl is damaged"):
        predict_cohort(dataset, tmp_path, work, in_loop)
    assert path.read_bytes() == before


def test_a_folder_never_holds_two_runs(
    work: Examination, folders: dict[str, Path], dataset: Path, patients: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict_cohort(dataset, out, work, in_loop)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    others = {
        "models": Examination([load(folders["unetpp"])], device="cpu"),
        "tta": Examination(work.models, tta=True, device="cpu"),
        "spacing mm": Examination(work.models, device="cpu", spacing_mm=(5.0, 1.0, 1.0)),
        "device": Examination(work.models, device="auto"),
    }
    for what, other in others.items():
        with pytest.raises(BrainsegError, match=rf"holds a run of other settings \({what}\)"):
            predict_cohort(dataset, out, other, in_loop)
    with pytest.raises(BrainsegError, match=r"\(dataset\)"):
        predict_cohort(patients, out, work, in_loop)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_run_without_a_record_binds_nobody(work: Examination, dataset: Path, tmp_path: Path) -> None:
    def refused(work: Work[T], patients: Mapping[str, Path]) -> Generator[Outcome[T]]:
        raise BrainsegError("no such device")
        yield

    with pytest.raises(BrainsegError, match="no such device"):
        predict_cohort(dataset, tmp_path, Examination(work.models, device="cuda:9"), refused)
    assert predict_cohort(dataset, tmp_path, work, in_loop).done == 3


def test_two_programs_never_write_to_one_folder(work: Examination, dataset: Path, tmp_path: Path) -> None:
    with open_folder(tmp_path, {"dataset": ""}), pytest.raises(BrainsegError, match="in use by another run"):
        predict_cohort(dataset, tmp_path, work, in_loop)


# --- folders that cannot be used ---


def test_folders_of_others_are_left_alone(work: Examination, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter.txt").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"case_id": "run"}')
    before = everything(tmp_path)
    for name, sentence in (
        ("file", "is a file, not a folder"),
        ("file/below", "cannot be written|cannot write"),
        ("used", "letter.txt"),
        ("other", "does not hold the settings of a cohort"),
    ):
        with pytest.raises(BrainsegError, match=sentence):
            predict_cohort(dataset, tmp_path / name, work, in_loop)
    assert everything(tmp_path) - {"other/.lock"} == before


def test_without_patients_nothing_is_made(work: Examination, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "slice_1.tif").touch()
    for place in ("set", "nowhere"):
        with pytest.raises(InputError, match=place):
            predict_cohort(tmp_path / place, tmp_path / "out", work, in_loop)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("written_before", [0, 1, 9, 30])
def test_a_full_disk_ends_the_run_and_leaves_nothing_half(
    work: Examination,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written_before: int,
) -> None:
    count = iter(range(1000))
    write = report_folder.write_file

    def filling(path: Path, content: bytes) -> None:
        if next(count) >= written_before:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[:5])
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(report_folder, "write_file", filling)
    with pytest.raises(BrainsegError, match="No space left on device"):
        predict_cohort(dataset, tmp_path, work, in_loop)
    done = records(tmp_path) if (tmp_path / "records.jsonl").exists() else {}
    assert {path.name for path in (tmp_path / "patients").iterdir()} == set(done)
    monkeypatch.undo()
    assert predict_cohort(dataset, tmp_path, work, in_loop).earlier == len(done)


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    with open_folder(tmp_path, {"dataset": ""}) as folder:
        folder.fail("first", "x" * 5000, {})
        before = (tmp_path / "records.jsonl").read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
        try:
            with pytest.raises(BrainsegError, match="File too large"):
                folder.fail("second", "x" * 5000, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (tmp_path / "records.jsonl").read_bytes() == before
        assert list(folder.records) == ["first"]


# --- names ---


@given(st.lists(st.text(min_size=1, max_size=90), max_size=8, unique=True))
def test_folders_have_safe_names_of_their_own(patients: list[str]) -> None:
    names = folder_names(patients)
    assert list(names) == patients
    assert len({name.casefold() for name in names.values()}) == len(patients)
    for name in names.values():
        assert name not in ("", ".", "..")
        assert not set(name) & set('/\\:*?"<>|\0\n')
        assert len(name.encode()) <= 240
    assert folder_names(patients) == names


def test_plain_names_are_kept() -> None:
    assert folder_names(["TCGA_CS_4941_19960909", "b"]) == {
        "TCGA_CS_4941_19960909": "TCGA_CS_4941_19960909",
        "b": "b",
    }
    clash = folder_names(["Case", "case"])
    assert clash["Case"].startswith("Case-")
    assert clash["case"].startswith("case-")


def test_names_of_patients_are_text_everywhere(
    work: Examination, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nasty = [
        "<img src=x onerror=alert(1)>",
        "\"'&amp;{{ 7 * 7 }}",
        "=1+1",
        "%2e%2e#a?b",
        "[bold]x",
        "Größe",
        "\udcff",
    ]
    for name in nasty:
        shutil.copytree(dataset / "CASE_A", tmp_path / "set" / name)
    out = tmp_path / "out"
    assert predict_cohort(tmp_path / "set", out, work, in_loop).done == len(nasty)
    assert set(records(out)) == set(nasty)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "{{ 7 * 7 }}" in page
    for record in records(out).values():
        assert (out / record["folder"] / "CASE_A.json").is_file()
        assert (out / record["thumbnail"]).is_file()
    engine = Recorder()
    predict_cohort(tmp_path / "set", out, work, engine)
    assert engine.given == []


# --- the command ---


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return call


def test_the_command_lists_failures_and_ends_with_2(
    run: Run, folders: dict[str, Path], patients: Path, tmp_path: Path
) -> None:
    (patients / "nobody").mkdir()
    arguments = ["predict", patients, "--cohort", "--out", tmp_path / "out", "--model", folders["unet"]]
    code, out, err = run(*arguments, "--workers", "2")
    assert code == 2
    assert "3 of 4 patients done" in out
    assert 'failed: "nobody": ' in out
    assert RESEARCH_USE in out
    lines = err.splitlines()
    assert [line.split("]")[0].split("[")[1] for line in lines[:-1]] == ["0/4", "1/4", "2/4", "3/4", "4/4"]
    assert all("left" in line for line in lines[1:-1])
    assert lines[-1].startswith("error: 1 of 4 patients failed")
    assert "Traceback" not in err
    (patients / "nobody").rmdir()
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    stated = json.loads(out)
    assert (stated["patients"], stated["done"], stated["failures"]) == (3, 3, {})


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["{D}", "--cohort", "--model", "{W}"], "--out"),
        (["{D}", "{D}", "--cohort", "--out", "{T}/out", "--model", "{W}"], "one folder"),
        (["{D}", "--cohort", "--out", "{T}/out", "--case", "CASE_A", "--model", "{W}"], "--case"),
        (["{D}/CASE_A", "--workers", "2", "--model", "{W}"], "--cohort"),
        (["{D}/CASE_A", "--engine", "ray", "--model", "{W}"], "--cohort"),
        (["{D}", "--cohort", "--out", "{T}/out", "--model", "{W}", "--workers", "0"], "--workers"),
        (["{D}", "--cohort", "--out", "{T}/out", "--model", "{W}", "--engine", "dask"], "--engine"),
        (["{D}", "--cohort", "--out", "{T}/out", "--model", "{W}", "--device", "cuda:9"], "cuda:9"),
        (["{D}/CASE_A", "--cohort", "--out", "{T}/out", "--model", "{W}"], "CASE_A"),
        (["{D}/none", "--cohort", "--out", "{T}/out", "--model", "{W}"], "none"),
    ],
)
def test_mistakes_are_one_sentence(
    run: Run, folders: dict[str, Path], dataset: Path, tmp_path: Path, arguments: list[str], part: str
) -> None:
    places = {"D": dataset, "W": folders["unet"], "T": tmp_path}
    code, _, err = run("predict", *(argument.format(**places) for argument in arguments))
    errors = [line for line in err.splitlines() if not line.startswith("patients [")]
    assert (code, len(errors)) == (2, 1)
    assert errors[0].startswith("error: ")
    assert part in errors[0]


# --- its speed ---


def test_the_benchmark_times_every_way_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def predict(*arguments: object) -> None:
        words = tuple(map(str, arguments))
        asked.append(words[1:])
        assert Path(words[0]).is_dir()
        Path(words[words.index("--out") + 1]).mkdir(parents=True)

    monkeypatch.setattr(cohort_speed, "predict", predict)
    monkeypatch.setattr(cohort_speed, "find_spec", lambda _: None)
    monkeypatch.setattr(cohort_speed, "RESULTS", tmp_path / "speed.json")
    cohort_speed.main(patients=2, slices=1, model=["unet"], workers=[1, 2], as_json=True)
    result = json.loads((tmp_path / "speed.json").read_bytes())
    assert ["--cohort" in words for words in asked] == [False, False, True, True]
    assert [words[-1] for words in asked[2:]] == ["1", "2"]
    for row in result["rows"]:
        assert row["patients_per_minute"] == pytest.approx(120 / row["seconds"])
        assert row["against_loop"] == pytest.approx(result["rows"][0]["seconds"] / row["seconds"])
