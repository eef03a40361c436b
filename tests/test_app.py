"""The page's logic with Streamlit's AppTest; the networks are played by a counting stand-in."""

from __future__ import annotations

import gc
import io
import logging
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dicom_maker as maker
import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from brainseg import checkpoint
from brainseg.checkpoint import hub
from brainseg.models import ARCHITECTURES
from brainseg.types import (
    RESEARCH_USE,
    Cancelled,
    InputError,
    ModelSpec,
    Prediction,
    Study,
    WeightsCard,
    WeightsError,
)
from brainseg.ui import networks as module
from brainseg.ui import words
from brainseg.ui.job import UNEXPECTED
from brainseg.ui.session import Download, File, Patient, Session
from brainseg.ui.state import TYPED_SPACING
from brainseg.ui.streamlit import components
from brainseg.ui.streamlit.server import SCRIPT

CARDS = {
    name: WeightsCard(
        name, ModelSpec(name), {}, 0.5, "all", f"{i}" * 64, "Apache-2.0", ("SEEN_01",), ("HELD_01",)
    )
    for i, name in enumerate(ARCHITECTURES)
}


INSTALLED = module.installed


class Networks:
    """Stands in for the four networks: finds bright FLAIR, counts its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.hold: threading.Event | None = None

    def __call__(
        self,
        name: str,
        study: Study,
        *,
        tta: bool,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Prediction:
        self.calls.append(name)
        if name in self.errors:
            raise self.errors[name]
        progress(0, len(study.slices))
        while self.hold is not None and not self.hold.is_set():
            if cancelled():
                raise Cancelled("prediction was stopped")
            threading.Event().wait(0.01)
        probability = (study.slices[..., 1] / 255).astype(np.float32)
        card = CARDS[name]
        seen = study.case_id in card.training_patients
        return Prediction(name, name, study.case_id, probability, 0.5, "all", (), 0.1, card.sha256, seen, tta)


@pytest.fixture(autouse=True)
def _main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit puts the page in the place of the main module, which later worker processes would run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Networks:
    stand_in = Networks()
    monkeypatch.setattr(module, "predict", stand_in)
    monkeypatch.setattr(module, "installed", lambda: (CARDS, {}))
    return stand_in


@pytest.fixture
def page(networks: Networks) -> Iterator[AppTest]:
    at = AppTest.from_file(str(SCRIPT), default_timeout=30).run()
    yield at
    session(at).close()


def picture(array: np.ndarray, kind: str = "TIFF") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def patient(case: str = "PAT_01", masks: bool = True, slices: int = 4) -> list[tuple[str, bytes, str]]:
    """A bright square in FLAIR on every slice, and its mask, as uploaded from a folder."""
    files = []
    rng = np.random.default_rng(len(case))
    for n in range(1, slices + 1):
        image = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        image[8:16, 8 : 12 + n, 1] = 220
        files.append((f"{case}/{case}_{n}.tif", picture(image), "image/tiff"))
        if masks:
            mask = np.zeros((32, 32), np.uint8)
            mask[8:16, 8:16] = 255
            files.append((f"{case}/{case}_{n}_mask.tif", picture(mask), "image/tiff"))
    return files


def session(at: AppTest) -> Session:
    opened: Session = at.session_state["brainseg"]
    return opened


def shown(at: AppTest) -> Patient:
    patient = session(at).shown
    assert patient is not None
    return patient


def study(at: AppTest) -> Study:
    volume = shown(at).study
    assert volume is not None
    return volume


def titles(at: AppTest) -> list[str]:
    """The list of patients."""
    return [b.label for b in at.button if str(b.key).startswith("show-")]


def upload(at: AppTest, files: list[tuple[str, bytes, str]], key: str = "folder") -> AppTest:
    uploader = next(u for u in at.file_uploader if str(u.key).startswith(f"{key}-"))
    return uploader.set_value(files).run()


def run_models(at: AppTest) -> AppTest:
    at.button(key="run").click().run()
    for _ in range(300):
        if all(patient.job is None for patient in session(at).patients):
            return at.run()
        threading.Event().wait(0.02)
        at.run()
    raise AssertionError("the models did not end")


def errors(at: AppTest, *sentences: str) -> bool:
    """Whether these are the sentences shown, each as plain text."""
    return [e.value for e in at.error] == [components.plain(sentence) for sentence in sentences]


def html(at: AppTest) -> str:
    return "\n".join(str(node.proto.body) for node in at.get("html"))


def texts(at: AppTest) -> str:
    return "\n".join(str(e.value) for kind in (at.markdown, at.caption, at.title, at.error) for e in kind)


def columns(at: AppTest) -> int:
    """Models in the table of figures."""
    tables = [part for part in html(at).split("<table") if "Tumour voxels" in part]
    return tables[0].count('class="swatch"') if tables else 0


def test_first_page_says_what_to_do_and_what_it_is_not(page: AppTest) -> None:
    assert not page.exception
    assert html(page).count(RESEARCH_USE) == 1
    assert page.button(key="try").label == "Try it with the synthetic sample"
    assert "Open a patient" in texts(page)


def test_sample_is_said_to_be_synthetic(page: AppTest) -> None:
    page.button(key="sample").click().run()
    assert "synthetic, not a patient" in html(page)
    assert study(page).case_id == "SYNTHETIC_0001"


def test_sample_to_figures_of_four_models(page: AppTest, networks: Networks) -> None:
    page.button(key="sample").click().run()
    assert page.button(key="run").label == "Run 4 models"
    run_models(page)
    assert networks.calls == list(ARCHITECTURES)
    assert columns(page) == 4
    assert page.button(key="run").disabled
    for architecture in ARCHITECTURES.values():
        assert architecture.title in html(page)


def test_threshold_and_largest_region_run_no_network(page: AppTest, networks: Networks) -> None:
    upload(page, patient())
    run_models(page)
    before, calls = html(page), list(networks.calls)
    page.slider[0].set_value(0.9).run()
    assert html(page) != before
    assert "0.90" in html(page)
    page.toggle[1].set_value(True).run()
    assert "largest region" in html(page)
    assert networks.calls == calls


def test_a_model_taken_away_and_back_is_not_run_again(page: AppTest, networks: Networks) -> None:
    upload(page, patient())
    run_models(page)
    page.checkbox(key="use-unet").uncheck().run()
    assert columns(page) == 3
    page.checkbox(key="use-unet").check().run()
    assert columns(page) == 4
    assert len(networks.calls) == 4


def test_flips_are_a_result_of_their_own(page: AppTest, networks: Networks) -> None:
    upload(page, patient())
    run_models(page)
    page.toggle(key="tta").set_value(True).run()
    assert columns(page) == 0
    run_models(page)
    assert len(networks.calls) == 8
    page.toggle(key="tta").set_value(False).run()
    assert columns(page) == 4


def test_threshold_and_largest_region_are_kept_while_a_model_is_away(page: AppTest) -> None:
    upload(page, patient())
    run_models(page)
    page.slider[0].set_value(0.9).run()
    page.toggle[1].set_value(True).run()
    before = html(page)
    page.checkbox(key="use-unet").uncheck().run()
    assert "0.90" not in html(page)
    page.checkbox(key="use-unet").check().run()
    assert (page.slider[0].value, page.toggle[1].value) == (0.9, True)
    assert html(page) == before
    page.toggle(key="tta").set_value(True).run()
    page.toggle(key="tta").set_value(False).run()
    assert (page.slider[0].value, page.toggle[1].value) == (0.9, True)
    assert html(page) == before


def test_the_same_slices_under_another_name_are_another_case(page: AppTest, networks: Networks) -> None:
    def under(folder: str) -> list[tuple[str, bytes, str]]:
        return [(name.replace("PAT_01/PAT_01_", f"{folder}/"), data, kind) for name, data, kind in patient()]

    upload(page, under("SEEN_01"))
    first = study(page)
    run_models(page)
    assert "(seen in training)" in html(page)
    upload(page, under("KEPT_01"))
    assert (study(page).case_id, study(page).source.sha256) == ("KEPT_01", first.source.sha256)
    assert columns(page) == 0
    run_models(page)
    assert len(networks.calls) == 8
    assert columns(page) == 4
    assert "(seen in training)" not in html(page)


def test_results_and_thresholds_come_back_with_their_patient(page: AppTest, networks: Networks) -> None:
    upload(page, patient())
    run_models(page)
    page.slider[0].set_value(0.9).run()
    before = html(page)
    upload(page, patient("OTHER_2"))
    assert titles(page) == [components.plain("PAT_01"), components.plain("OTHER_2")]
    assert columns(page) == 0
    page.button(key="show-1").click().run()
    assert html(page) == before
    assert page.slider[0].value == 0.9
    assert len(networks.calls) == 4


def test_broken_weights_show_a_sentence_and_keep_the_others(page: AppTest, networks: Networks) -> None:
    networks.errors["unetpp"] = WeightsError("weights/unetpp is damaged; get the folder again")
    upload(page, patient())
    run_models(page)
    assert errors(page, "U-Net++: weights/unetpp is damaged; get the folder again")
    assert columns(page) == 3


def test_an_unexpected_failure_shows_and_logs_no_patient(
    page: AppTest, networks: Networks, caplog: pytest.LogCaptureFixture
) -> None:
    networks.errors["unet"] = RuntimeError("PAT_01 exploded")
    upload(page, patient())
    with caplog.at_level(logging.DEBUG):
        run_models(page)
    assert errors(page, f"U-Net: {UNEXPECTED}")
    assert "PAT_01" not in caplog.text
    assert not page.exception


def test_stop_keeps_the_page_usable(page: AppTest, networks: Networks) -> None:
    networks.hold = threading.Event()
    upload(page, patient())
    page.button(key="run").click().run()
    assert components.plain("U-Net (1 of 4): slice 0 of 4") == page.get("progress")[0].proto.text
    job = shown(page).job
    assert job is not None
    page.button(key="stop-1").click().run()
    job.join(5)
    page.run()
    assert "Stopped" in texts(page)
    assert page.button(key="run").label == "Run 4 models"
    networks.hold.set()
    run_models(page)
    assert columns(page) == 4


def test_opening_another_patient_lets_the_networks_go_on(page: AppTest, networks: Networks) -> None:
    networks.hold = threading.Event()
    upload(page, patient())
    page.button(key="run").click().run()
    upload(page, patient("OTHER_2"))
    assert study(page).case_id == "OTHER_2"
    assert page.button(key="run").label == "Run 4 models"
    assert components.plain("PAT_01: U-Net (1 of 4)") in page.get("progress")[0].proto.text
    networks.hold.set()
    run_models(page)
    assert columns(page) == 4
    page.button(key="show-1").click().run()
    assert columns(page) == 4
    assert len(networks.calls) == 8


def test_several_patients_give_a_list(page: AppTest) -> None:
    upload(page, patient("PAT_01") + patient("PAT_02"))
    assert titles(page) == [components.plain("PAT_01"), components.plain("PAT_02")]
    assert study(page).case_id == "PAT_01"
    page.button(key="show-2").click().run()
    assert study(page).case_id == "PAT_02"
    assert "PAT_02" in html(page)


def test_an_upload_is_taken_over_and_the_uploader_is_empty_again(page: AppTest) -> None:
    upload(page, patient("PAT_02"))
    assert not next(u for u in page.file_uploader if str(u.key).startswith("folder-")).value
    upload(page, patient("PAT_03"))
    assert study(page).case_id == "PAT_03"
    assert len(titles(page)) == 2


def test_removing_a_patient_leaves_the_one_shown(page: AppTest) -> None:
    for case in ("PAT_01", "PAT_02", "PAT_03"):
        upload(page, patient(case))
    page.button(key="show-2").click().run()
    page.button(key="remove-1").click().run()
    assert study(page).case_id == "PAT_02"
    page.button(key="remove-3").click().run()
    assert study(page).case_id == "PAT_02"
    page.button(key="remove-2").click().run()
    assert session(page).shown is None
    assert not titles(page)
    assert page.button(key="try")
    assert not page.error


def test_removing_the_patient_shown_jumps_to_no_other(page: AppTest) -> None:
    upload(page, patient("PAT_01") + patient("PAT_02"))
    page.button(key="remove-1").click().run()
    assert session(page).shown is None
    assert titles(page) == [components.plain("PAT_02")]
    page.button(key="show-2").click().run()
    assert study(page).case_id == "PAT_02"


def test_a_failed_opening_leaves_its_sentence_beside_the_patient_shown(page: AppTest) -> None:
    upload(page, patient())
    run_models(page)
    before = html(page)
    upload(page, [("notes.txt", b"no image", "text/plain")], "files")
    assert len(page.error) == 1
    assert html(page) == before
    upload(page, [("scan_1.tif", b"broken", "image/tiff")], "files")
    assert len(page.error) == 1
    assert "scan" in page.error[0].value
    assert html(page) == before
    assert len(titles(page)) == 2
    page.run()
    page.button(key="show-1").click().run()
    assert not page.error


def test_another_channel_order_is_read_anew_and_its_results_are_its_own(
    page: AppTest, networks: Networks
) -> None:
    upload(page, patient())
    run_models(page)
    first = study(page)
    page.selectbox(key="channels-1").set_value(("flair", "pre", "post")).run()
    second = study(page)
    np.testing.assert_array_equal(second.slices[..., 1], first.slices[..., 0])
    assert second.source.sha256 != first.source.sha256
    assert columns(page) == 0
    assert "flair, pre, post" in texts(page).replace("\\", "")
    page.selectbox(key="channels-1").set_value(None).run()
    assert columns(page) == 4
    assert len(networks.calls) == 4


def dicom() -> list[tuple[str, bytes, str]]:
    return [(name, data, "application/octet-stream") for name, data in maker.two_studies().items()]


def test_a_discs_series_are_shown_and_corrected(page: AppTest, networks: Networks) -> None:
    upload(page, dicom())
    assert [one.label for one in page.expander if one.label == "Channel order"] == []
    assert not page.number_input
    role = {key: page.selectbox(key=f"role-1-{key}") for key in "1346"}
    assert {key: one.value for key, one in role.items()} == {
        "1": "none",
        "3": "pre",
        "4": "flair",
        "6": "post",
    }
    assert role["4"].options == ["T1 before contrast", "FLAIR", "T1 after contrast", "Mask", "Not used"]
    assert role["1"].label == "1: 3-PLANE LOC, 2 slices"
    assert components.plain("1: 3-PLANE LOC, 2 slices") in texts(page)
    assert "A localizer" in texts(page)
    assert "MRI BRAIN (study 1 of 2 in time)" in html(page)
    run_models(page)
    first = study(page)
    role["6"].set_value("none").run()
    assert study(page).source.sha256 != first.source.sha256
    assert columns(page) == 0
    assert "Post\\-contrast was not given" in texts(page)
    page.selectbox(key="role-1-4").set_value("none").run()
    assert len(page.error) == 1
    assert "No FLAIR was recognised" in page.error[0].value
    assert page.selectbox(key="role-1-4").value == "flair"
    page.selectbox(key="role-1-6").set_value("post").run()
    assert not page.error
    assert columns(page) == 4
    assert len(networks.calls) == 4


def test_a_study_that_cannot_be_read_is_corrected_where_it_says_so(page: AppTest) -> None:
    upload(page, dicom())
    page.button(key="show-2").click().run()
    assert "different frames of reference" in page.error[0].value
    assert shown(page).number == 1
    assert not page.toggle(key="register-2").value
    assert "cannot be read yet" in texts(page)
    page.selectbox(key="role-2-5").set_value("none").run()
    assert not page.error
    assert shown(page).number == 2
    assert page.multiselect(key="segments-2-9").value == [1, 2]
    both = study(page).reference
    page.multiselect(key="segments-2-9").set_value([2]).run()
    one = study(page).reference
    assert both is not None
    assert one is not None
    assert 0 < one.sum() < both.sum()


def test_a_zip_and_loose_files_are_taken_too(page: AppTest) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data, _ in patient():
            archive.writestr(name, data)
    upload(page, [("patient.zip", buffer.getvalue(), "application/zip")], "files")
    zipped = study(page)
    page.button(key="remove-1").click().run()
    upload(page, patient(), "files")
    assert study(page).source.sha256 == zipped.source.sha256


@pytest.mark.parametrize(
    "files",
    [
        [("notes.txt", b"no image", "text/plain")],
        [("a_1.tif", b"", "image/tiff")],
        [("a_1.tif", b"text renamed", "image/tiff")],
        [("a_1.tif", picture(np.zeros((32, 32, 3), np.uint8))[:-500], "image/tiff")],
        [("a.zip", b"PK not a zip", "application/zip")],
    ],
)
def test_bad_input_is_one_sentence_and_the_page_stays_usable(
    page: AppTest, files: list[tuple[str, bytes, str]]
) -> None:
    upload(page, files, "files")
    assert len(page.error) == 1
    assert page.error[0].value.count(".") >= 1
    assert not page.exception
    assert "Traceback" not in texts(page)
    upload(page, patient(), "files")
    assert not page.error
    assert study(page).case_id == "PAT_01"


def test_a_bad_patient_among_good_ones_leaves_its_sentence_and_a_good_one_is_shown(page: AppTest) -> None:
    bad = [("BAD_01/BAD_01_1.tif", b"broken", "image/tiff")]
    upload(page, bad + patient("PAT_01"))
    assert len(page.error) == 1
    assert study(page).case_id == "PAT_01"
    assert titles(page) == [components.plain("BAD_01"), components.plain("PAT_01")]
    page.button(key="show-1").click().run()
    assert len(page.error) == 1
    assert study(page).case_id == "PAT_01"
    page.button(key="remove-1").click().run()
    assert not page.error


def test_no_reference_no_dice(page: AppTest) -> None:
    upload(page, patient(masks=False))
    run_models(page)
    assert columns(page) == 4
    assert '<th scope="row">Dice</th>' not in html(page)
    assert "need a reference mask" in texts(page)


def test_seen_in_training_is_marked_beside_the_dice(page: AppTest) -> None:
    upload(page, patient("SEEN_01"))
    run_models(page)
    assert html(page).count("(seen in training)") == 4
    assert "fitted on this patient" in texts(page)


def test_millilitres_only_once_all_three_spacings_are_typed(page: AppTest) -> None:
    upload(page, patient())
    run_models(page)
    assert "Volume (ml)" not in html(page)
    page.number_input[0].set_value(5.0).run()
    page.number_input[1].set_value(0.9375).run()
    assert "Volume (ml)" not in html(page)
    assert "need all three" in texts(page)
    assert components.plain(TYPED_SPACING) not in texts(page)
    page.number_input[2].set_value(0.9375).run()
    assert "Volume (ml)" in html(page)
    assert "HD95 (mm)" in html(page)
    assert components.plain(TYPED_SPACING) in texts(page)


def test_case_names_are_shown_as_text_and_not_run(page: AppTest) -> None:
    upload(page, patient("<img src=x>"))
    assert "<img" not in html(page)
    assert "&lt;img" in html(page)


@pytest.mark.parametrize("name", ["A_*1*.tif", "$x$_1.tif", "&lt;_1.tif"])
def test_file_names_in_sentences_are_no_markdown(page: AppTest, name: str) -> None:
    upload(page, [(name, b"broken", "image/tiff")], "files")
    assert len(page.error) == 1
    assert name not in page.error[0].value
    assert components.plain(name) in page.error[0].value


def test_plain_leaves_markdown_nothing_to_do() -> None:
    assert components.plain("![x](https:/h/p.png)") == r"\!\[x\]\(https\:/h/p\.png\)"
    assert components.plain("A_*1*.tif") == r"A\_\*1\*\.tif"


def ask(at: AppTest, name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[File | None, int]]:
    """Click a download, a plain button taking the place of the component; what it is given after that."""
    given: list[tuple[File | None, int]] = []

    def downloads(
        offers: Sequence[Download], file: File | None, build: Callable[[], None], answered: int
    ) -> None:
        given.append((file, answered))
        st.button("ask", key="ask", on_click=build)

    monkeypatch.setattr(components, "downloads", downloads)
    monkeypatch.setattr(components, "asked", lambda: name)
    at.run()
    at.button(key="ask").click().run()
    return given


def test_a_download_is_given_once(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(page, patient())
    run_models(page)
    given = ask(page, "csv", monkeypatch)
    page.run()
    (_, first), (file, second), (after, third) = given
    assert file is not None
    assert file.name == "PAT_01_figures.csv"
    assert (second, third) == (first + 1, first + 1)
    assert after is None


def test_a_download_that_fails_is_one_sentence_and_logs_no_patient(
    page: AppTest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(study: Study, findings: Sequence[object]) -> None:
        raise ValueError(f"finding is of case {study.case_id}")

    upload(page, patient())
    run_models(page)
    monkeypatch.setattr("brainseg.report.report", fail)
    with caplog.at_level(logging.DEBUG):
        given = ask(page, "csv", monkeypatch)
    assert given[-1] == (None, given[0][1] + 1)
    assert "PAT_01" not in caplog.text
    assert errors(page, UNEXPECTED)
    page.run()
    assert not page.error


def test_a_public_patient_that_cannot_be_fetched_is_one_sentence(
    page: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(patient: str) -> None:
        assert patient == "HELD_01"
        raise InputError("Kaggle cannot be reached from here: check the network connection.")

    monkeypatch.setattr(words, "fetch_patient", offline)
    next(b for b in page.button if b.label == "Fetch a public TCGA patient").click().run()
    assert errors(page, "Kaggle cannot be reached from here: check the network connection.")


def test_without_weights_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: ({}, {}))
    at = AppTest.from_file(str(SCRIPT), default_timeout=30).run()
    upload(at, patient())
    assert "No weights are installed" in at.error[0].value


def test_a_damaged_card_is_a_sentence_and_the_other_models_run(
    networks: Networks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, card in CARDS.items():
        (tmp_path / name).mkdir()
        checkpoint.write_card(tmp_path / name, card)
    (tmp_path / "unet" / checkpoint.CONFIG).write_text("{", encoding="utf-8")
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    monkeypatch.setattr(module, "installed", INSTALLED)
    at = AppTest.from_file(str(SCRIPT), default_timeout=30).run()
    path = tmp_path / "unet" / checkpoint.CONFIG
    assert errors(at, f"{path} is not a brainseg weights card; get the weights folder again")
    upload(at, patient())
    assert errors(at, f"U-Net: {path} is not a brainseg weights card; get the weights folder again")
    assert at.button(key="run").label == "Run 3 models"
    run_models(at)
    assert columns(at) == 3
    assert networks.calls == [name for name in ARCHITECTURES if name != "unet"]
    assert not at.exception


def test_garbage_collection_after_each_run_leaves_the_libraries_out() -> None:
    # Without it, a progress bar redrawn twice a second slowed the networks ten times.
    assert gc.get_freeze_count() > 50_000


def test_sessions_share_no_patient(page: AppTest, networks: Networks) -> None:
    upload(page, patient())
    run_models(page)
    other = AppTest.from_file(str(SCRIPT), default_timeout=30).run()
    assert session(other).patients == ()
    assert session(other) is not session(page)
