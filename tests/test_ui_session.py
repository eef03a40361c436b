"""One user's session without any face: several patients, results, runs, memory, threads."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence

import dicom_maker
import heads
import numpy as np
import pytest
from PIL import Image

from brainseg.io import NamedBytes
from brainseg.models import ARCHITECTURES
from brainseg.types import CHANNELS, Cancelled, ModelSpec, Prediction, Study, WeightsCard, WeightsError
from brainseg.ui import sequences
from brainseg.ui import session as module
from brainseg.ui.job import UNEXPECTED, Status
from brainseg.ui.session import DOWNLOADS, Patient, Session, progress_text

CARDS = {
    name: WeightsCard(name, ModelSpec(name), {}, 0.5, "all", f"{i}" * 64, "Apache-2.0")
    for i, name in enumerate(ARCHITECTURES)
}


class Networks:
    """Finds bright FLAIR; can be held, and can fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.errors: dict[str, Exception] = {}
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(
        self,
        name: str,
        study: Study,
        *,
        tta: bool,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> Prediction:
        self.calls.append((study.case_id, name))
        if name in self.errors:
            raise self.errors[name]
        while not self.go_on.wait(0.005):
            if cancelled():
                raise Cancelled("prediction was stopped")
        probability = np.minimum(study.slices[..., CHANNELS.index("flair")] / 255, 1).astype(np.float32)
        return Prediction(
            name, name, study.case_id, probability, 0.5, "all", (), 0.1, CARDS[name].sha256, False, tta
        )


@pytest.fixture
def networks() -> Networks:
    return Networks()


@pytest.fixture
def session(networks: Networks) -> Iterator[Session]:
    session = Session(networks, lambda: (CARDS, {}))
    yield session
    networks.go_on.set()
    session.close()


def files(case: str = "PAT_01", slices: int = 3, masks: bool = True) -> list[NamedBytes]:
    """A bright square in FLAIR, and its mask."""

    def tiff(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "TIFF")
        return buffer.getvalue()

    rng = np.random.default_rng(len(case))
    made = []
    for n in range(1, slices + 1):
        image = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        image[8:16, 8 : 12 + n, 1] = 220
        made.append(NamedBytes(f"{case}/{case}_{n}.tif", tiff(image)))
        if masks:
            mask = np.zeros((32, 32), np.uint8)
            mask[8:16, 8:16] = 255
            made.append(NamedBytes(f"{case}/{case}_{n}_mask.tif", tiff(mask)))
    return made


def broken(case: str = "BAD_01") -> list[NamedBytes]:
    return [NamedBytes(f"{case}/{case}_1.tif", b"no picture")]


def opened(session: Session, *cases: str) -> None:
    for case in cases:
        session.open(lambda case=case: files(case))  # type: ignore[misc]


def shown(session: Session) -> Patient:
    patient = session.shown
    assert patient is not None
    return patient


def study(session: Session) -> Study:
    volume = shown(session).study
    assert volume is not None
    return volume


def titles(session: Session) -> list[str]:
    return [patient.title for patient in session.patients]


def finish(session: Session) -> None:
    """Until no run is left."""
    end = time.monotonic() + 10
    while any(patient.job is not None for patient in session.patients):
        assert time.monotonic() < end, "the runs did not end"
        time.sleep(0.005)
        session.update()


def run(session: Session) -> None:
    session.run()
    finish(session)


def test_no_framework_is_loaded() -> None:
    code = "import sys, brainseg.ui.session; print({'streamlit', 'gradio', 'plotly'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_session_begins_empty(session: Session) -> None:
    assert session.patients == ()
    assert session.shown is None
    assert (session.results, session.readings, session.todo, session.packs()) == ([], [], (), {})
    session.run()
    assert session.download("csv") is None
    with pytest.raises(ValueError, match="no patient is shown"):
        session.view()


def test_opening_another_keeps_the_first_with_its_results(session: Session, networks: Networks) -> None:
    opened(session, "PAT_01")
    run(session)
    first = [reading.finding.mask.sum() for reading in session.readings]
    opened(session, "PAT_02")
    assert titles(session) == ["PAT_01", "PAT_02"]
    assert study(session).case_id == "PAT_02"
    assert session.readings == []
    session.show(1)
    assert [reading.finding.mask.sum() for reading in session.readings] == first
    assert len(networks.calls) == 4


@pytest.mark.parametrize("bad", [[NamedBytes("notes.txt", b"no image")], broken(), []])
def test_failing_to_open_leaves_one_sentence_and_what_is_on_screen(
    session: Session, bad: list[NamedBytes]
) -> None:
    opened(session, "PAT_01")
    run(session)
    before = session.view()
    session.open(lambda: bad)
    assert len(session.troubles) == 1
    assert session.troubles[0] != UNEXPECTED
    assert session.view() == before
    session.show(1)
    assert not session.troubles


def test_a_loader_that_breaks_is_a_neutral_sentence(session: Session) -> None:
    def load() -> Sequence[NamedBytes]:
        raise RuntimeError("PAT_01")

    session.open(load)
    assert session.troubles == (UNEXPECTED,)


def test_of_many_patients_the_first_that_can_be_read_is_shown_and_the_bad_one_says_why(
    session: Session,
) -> None:
    session.open(lambda: [*broken(), *files("PAT_01"), *files("PAT_02")])
    assert titles(session) == ["BAD_01", "PAT_01", "PAT_02"]
    assert study(session).case_id == "PAT_01"
    (sentence,) = session.troubles
    assert "BAD_01" in sentence
    assert session.patients[0].error == sentence
    session.show(1)
    assert study(session).case_id == "PAT_01"
    assert session.troubles == (sentence,)


def test_the_same_files_again_are_the_same_patient(session: Session) -> None:
    opened(session, "PAT_01", "PAT_02", "PAT_01")
    assert titles(session) == ["PAT_01", "PAT_02"]
    assert study(session).case_id == "PAT_01"


def test_another_patient_of_the_same_name_is_told_apart(session: Session) -> None:
    opened(session, "PAT_01")
    session.open(lambda: files("PAT_01", masks=False))
    assert titles(session) == ["PAT_01", "PAT_01 (2)"]
    assert study(session).reference is None
    assert study(session).case_id == "PAT_01"


def test_removing_one_jumps_to_no_other(session: Session) -> None:
    opened(session, "PAT_01", "PAT_02", "PAT_03")
    session.show(2)
    session.remove(1)
    assert (study(session).case_id, titles(session)) == ("PAT_02", ["PAT_02", "PAT_03"])
    session.remove(2)
    assert session.shown is None
    assert titles(session) == ["PAT_03"]
    session.remove(2)
    session.show(2)
    assert session.shown is None
    opened(session, "PAT_01")
    assert shown(session).number == 4


def test_a_removed_patient_is_freed_and_its_run_stops(session: Session, networks: Networks) -> None:
    networks.go_on.clear()
    opened(session, "PAT_01")
    session.run()
    patient, job = shown(session), shown(session).job
    assert job is not None
    session.remove(1)
    job.join(5)
    assert job.status().stopped
    assert (patient.study, patient.results, patient.case.files) == (None, {}, ())


def test_runs_go_on_while_another_patient_is_shown(session: Session, networks: Networks) -> None:
    networks.go_on.clear()
    opened(session, "PAT_01")
    session.run()
    opened(session, "PAT_02")
    session.run()
    assert all(patient.job is not None for patient in session.patients)
    networks.go_on.set()
    finish(session)
    for patient in session.patients:
        assert {p.case_id for p in patient.results.values()} == {patient.title}
        assert len(patient.results) == 4


def test_stopping_one_run_keeps_what_has_finished(session: Session, networks: Networks) -> None:
    networks.go_on.clear()
    opened(session, "PAT_01")
    session.run()
    session.run()  # a second click on the same button
    session.stop(1)
    finish(session)
    assert shown(session).ended == "Stopped. What had finished is kept."
    networks.go_on.set()
    run(session)
    assert shown(session).ended is None
    assert len(session.readings) == 4


def test_a_user_who_has_gone_stops_all_runs(networks: Networks) -> None:
    alive = threading.Event()
    alive.set()
    session = Session(networks, lambda: (CARDS, {}), alive.is_set)
    networks.go_on.clear()
    opened(session, "PAT_01")
    session.run()
    job = shown(session).job
    assert job is not None
    alive.clear()
    job.join(5)
    assert job.status().stopped
    session.close()


def test_failures_belong_to_their_patient(session: Session, networks: Networks) -> None:
    networks.errors["unetpp"] = WeightsError("weights/unetpp is damaged; get the folder again")
    opened(session, "PAT_01")
    run(session)
    assert shown(session).failures == {"unetpp": "weights/unetpp is damaged; get the folder again"}
    assert len(session.readings) == 3
    assert session.todo == ("unetpp",)
    opened(session, "PAT_02")
    assert shown(session).failures == {}
    session.show(1)
    del networks.errors["unetpp"]
    run(session)
    assert shown(session).failures == {}
    assert len(session.readings) == 4


def test_thresholds_belong_to_their_patient_and_run_no_network(session: Session, networks: Networks) -> None:
    opened(session, "PAT_01")
    run(session)
    key, _ = session.results[0]
    session.cut(key, 0.95, "largest")
    reading = session.readings[0]
    assert (reading.finding.threshold, reading.finding.keep) == (0.95, "largest")
    assert reading.finding.mask.sum() == 0
    opened(session, "PAT_02")
    run(session)
    assert session.readings[0].finding.threshold == 0.5
    session.cut(key, 0.1, "all")  # a late answer of the page for a patient no longer shown
    session.show(1)
    assert session.readings[0].finding.threshold == 0.95
    assert len(networks.calls) == 8


def test_what_did_not_change_is_not_measured_again(session: Session) -> None:
    opened(session, "PAT_01")
    run(session)
    before = session.readings
    key, _ = session.results[0]
    session.cut(key, 0.6, "all")
    after = session.readings
    assert after[0] is not before[0]
    assert after[1:] == before[1:]


def test_chosen_models_and_flips_decide_what_is_run_and_shown(session: Session, networks: Networks) -> None:
    opened(session, "PAT_01")
    session.choose(["unet", "unetpp"], flips=False)
    assert session.todo == ("unet", "unetpp")
    run(session)
    session.choose(["unetpp"], flips=False)
    assert [prediction.model for _, prediction in session.results] == ["unetpp"]
    session.choose(["unetpp"], flips=True)
    assert session.results == []
    run(session)
    assert session.results[0][1].tta
    assert [name for _, name in networks.calls] == ["unet", "unetpp", "unetpp"]


def test_typed_spacing_counts_once_all_three_are_there_and_belongs_to_its_patient(session: Session) -> None:
    opened(session, "PAT_01")
    run(session)
    session.type_spacing(1, 5.0, 0.9, None)
    assert study(session).spacing_mm is None
    session.type_spacing(1, 5.0, 0.9, 0.8)
    assert study(session).spacing_mm == (5.0, 0.9, 0.8)
    metrics = session.readings[0].metrics
    assert metrics is not None
    assert metrics.hd95_unit == "mm"
    opened(session, "PAT_02")
    assert study(session).spacing_mm is None


def test_another_channel_order_is_another_volume_with_results_of_its_own(
    session: Session, networks: Networks
) -> None:
    opened(session, "PAT_01")
    run(session)
    before, packs = study(session), set(session.packs())
    session.reorder(1, ("flair", "post", "pre"))
    after = study(session)
    for place, name in enumerate(("flair", "post", "pre")):
        np.testing.assert_array_equal(
            after.slices[..., CHANNELS.index(name)], before.slices[..., place], err_msg=name
        )
    assert session.results == []
    assert not packs & set(session.packs())
    assert len(session.todo) == 4
    session.reorder(1, None)
    assert len(session.results) == 4
    assert set(session.packs()) == packs
    assert len(networks.calls) == 4


def test_a_channel_order_that_is_none_is_a_sentence(session: Session) -> None:
    opened(session, "PAT_01")
    session.reorder(1, ("flair", "flair", "post"))
    (sentence,) = session.troubles
    assert '"flair, flair, post" does not hold each of pre, flair and post once' in sentence
    assert shown(session).channels is None


def test_packs_are_the_same_bytes_until_another_patient_is_shown(session: Session) -> None:
    opened(session, "PAT_01")
    run(session)
    first = session.packs()
    assert len(first) == 5
    assert all(a is b for a, b in zip(first.values(), session.packs().values(), strict=True))
    opened(session, "PAT_02")
    assert len(session.packs()) == 1
    session.show(1)
    assert session.packs() == first


def test_results_not_seen_for_longest_are_dropped_with_a_note_and_never_the_one_shown(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(session, "PAT_01", "PAT_02", "PAT_03")
    for number in (1, 2):
        session.show(number)
        run(session)
    session.show(3)
    one = sum(p.probability.nbytes for p in session.patients[0].results.values())
    monkeypatch.setattr(module, "MAX_KEPT", one)
    run(session)
    first, second, third = session.patients
    assert first.results == {}
    assert first.note is not None
    assert (len(second.results), second.note) == (4, None)
    assert (len(third.results), third.note) == (4, None)
    session.show(1)  # its volume is read again
    assert study(session).case_id == "PAT_01"
    run(session)
    assert first.note is None
    assert len(session.readings) == 4
    monkeypatch.setattr(module, "MAX_KEPT", 0)
    session.update()
    assert len(session.readings) == 4


def test_too_many_files_are_refused_and_nothing_is_lost(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(session, "PAT_01")
    monkeypatch.setattr(module, "MAX_UPLOADED", 20_000)
    opened(session, "PAT_02")
    assert titles(session) == ["PAT_01"]
    assert "remove patients first" in session.troubles[0]
    session.remove(1)
    opened(session, "PAT_02")
    assert study(session).case_id == "PAT_02"


OF_SPACE = ("dicom-seg", "nifti")


@pytest.mark.parametrize("download", [d for d in DOWNLOADS if d.name not in OF_SPACE], ids=lambda d: d.name)
def test_every_download_is_offered_and_made(session: Session, download: module.Download) -> None:
    assert session.downloads == ()
    opened(session, "PAT_01")
    assert download in session.downloads
    assert session.download(download.name) is None
    run(session)
    made, again = session.download(download.name), session.download(download.name)
    assert made is not None
    assert again is not None
    assert made.name.startswith("PAT_01_")
    assert made.data
    assert again.number > made.number
    assert session.download("nothing") is None


def test_slices_are_offered_no_format_that_needs_space(session: Session) -> None:
    opened(session, "PAT_01")
    run(session)
    assert not {one.name for one in session.downloads} & set(OF_SPACE)
    assert [session.download(name) for name in OF_SPACE] == [None, None]


def test_volumes_are_offered_their_own_formats(session: Session) -> None:
    session.open(lambda: heads.patient(heads.affine_of()))
    run(session)
    assert [one.name for one in session.downloads][:2] == ["nifti", "masks-tif"]
    assert session.download("dicom-seg") is None
    made = session.download("nifti")
    assert made is not None
    assert made.name.endswith("_nifti.zip")


def test_dicom_is_offered_segmentations_without_identifiers(session: Session) -> None:
    flair = np.random.default_rng(0).integers(0, 256, (8, 24, 24)).astype(np.uint16)
    members = dicom_maker.files({"A": dicom_maker.datasets(flair, 4)})
    session.open(lambda: [NamedBytes(name, data) for name, data in members.items()])
    run(session)
    assert [one.name for one in session.downloads][:2] == ["dicom-seg", "nifti"]
    made = session.download("dicom-seg")
    assert made is not None
    with zipfile.ZipFile(io.BytesIO(made.data)) as archive:
        held = [archive.read(name) for name in archive.namelist()]
    assert len(held) == 1 + 2 * len(session.readings)
    assert not [data for data in held if dicom_maker.PATIENT.encode() in data]


def test_a_jump_repeated_is_a_new_jump(session: Session) -> None:
    opened(session, "PAT_01")
    session.jump(None)
    assert shown(session).jump is None
    session.jump(2)
    session.jump(None)
    jump = shown(session).jump
    assert jump is not None
    assert (jump.slice, jump.nonce) == (2, 2)


def test_a_closed_session_holds_nothing_and_takes_nothing(session: Session, networks: Networks) -> None:
    networks.go_on.clear()
    opened(session, "PAT_01")
    session.run()
    job = shown(session).job
    assert job is not None
    session.close()
    job.join(5)
    assert job.status().stopped
    opened(session, "PAT_02")
    assert session.patients == ()
    assert session.shown is None


@pytest.fixture(scope="module")
def disc() -> list[NamedBytes]:
    return [NamedBytes(name, data) for name, data in dicom_maker.two_studies().items()]


def table(patient: Patient) -> dict[str, str | None]:
    return {line.key: line.role for line in sequences.lines(patient)}


def test_two_studies_of_a_disc_are_two_patients_told_apart_without_a_name_or_date(
    session: Session, disc: list[NamedBytes]
) -> None:
    session.open(lambda: disc)
    assert titles(session) == ["MRI BRAIN (study 1 of 2 in time)", "MRI BRAIN (study 2 of 2 in time)"]
    assert session.troubles == ()
    first = shown(session)
    assert first.number == 1
    assert study(session).spacing_mm == pytest.approx((10.0, 3.75, 3.75))
    assert not first.spacing_is_asked
    assert first is session.described
    # What is saved bears a name that says nothing.
    run(session)
    for one in DOWNLOADS:
        file = session.download(one.name)
        assert file is not None
        assert file.name.startswith("study-")
        for secret in (b"MRI BRAIN", dicom_maker.NAME.encode(), dicom_maker.PATIENT.encode(), b"20260101"):
            assert secret not in file.data
    session.open(lambda: disc)
    assert len(session.patients) == 2


def test_results_belong_to_the_roles_they_were_computed_with(
    session: Session, networks: Networks, disc: list[NamedBytes]
) -> None:
    session.open(lambda: disc)
    run(session)
    before, first = study(session), session.results
    assert table(shown(session)) == {"1": None, "3": "pre", "4": "flair", "6": "post"}
    session.assign(1, sequences.changed(shown(session), "3", "post"))
    assert table(shown(session)) == {"1": None, "3": "post", "4": "flair", "6": None}
    assert session.results == []
    np.testing.assert_array_equal(study(session).slices[..., 2], before.slices[..., 0])
    session.assign(1, sequences.changed(shown(session), "6", "pre"))
    np.testing.assert_array_equal(study(session).slices[..., 0], before.slices[..., 2])
    assert session.todo
    session.assign(1, sequences.changed(shown(session), "3", "pre"))
    session.assign(1, sequences.changed(shown(session), "6", "post"))
    assert study(session).source.sha256 == before.source.sha256
    assert session.results == first
    assert len(networks.calls) == 4


def test_a_choice_that_cannot_be_read_leaves_the_volume_its_roles_and_results(
    session: Session, disc: list[NamedBytes]
) -> None:
    session.open(lambda: disc)
    run(session)
    before, packs = study(session), session.packs()
    for roles, says in (
        (sequences.changed(shown(session), "4", None), "No FLAIR was recognised"),
        ({"77": "flair"}, 'There is no series "77"'),
    ):
        session.assign(1, roles)  # type: ignore[arg-type]
        (sentence,) = session.troubles
        assert says in sentence
        assert study(session) is before
        assert session.packs() == packs
        assert table(shown(session))["4"] == "flair"
        assert shown(session).error is None
        assert len(session.readings) == 4
    session.assign(99, {})
    assert session.troubles == ()


def test_a_patient_that_cannot_be_read_is_described_until_it_is_corrected_or_left(
    session: Session, disc: list[NamedBytes]
) -> None:
    session.open(lambda: disc)
    session.show(2)
    later = session.described
    assert later is not None
    assert (later.number, shown(session).number) == (2, 1)
    assert "different frames of reference" in str(later.error)
    session.show(1)
    assert session.described is shown(session)
    session.show(2)
    # More than one may have to be corrected before it can be read: what was said is kept.
    session.assign(2, sequences.changed(later, "4", None))
    assert table(later)["4"] is None
    assert "No FLAIR" in str(later.error)
    session.assign(2, sequences.changed(later, "4", "flair"))
    session.assign(2, sequences.changed(later, "5", None))
    assert shown(session) is later
    assert later is session.described
    assert later.error is None
    np.testing.assert_array_equal(study(session).slices[..., 0], study(session).slices[..., 1])
    session.show(1)
    session.assign(2, sequences.changed(later, "5", "pre"))
    session.remove(2)
    assert session.described is shown(session)


def test_a_registration_is_asked_for_and_its_results_are_its_own(
    session: Session, disc: list[NamedBytes]
) -> None:
    session.open(lambda: disc)
    session.show(2)
    later = session.patients[1]
    session.assign(2, later.roles, register=True)
    assert shown(session) is later
    assert later.register
    assert any("rigid registration" in note for note in study(session).notes)
    moved = study(session).source.sha256
    session.assign(2, later.roles, register=False)
    assert "different frames of reference" in session.troubles[0]
    assert (later.register, study(session).source.sha256) == (True, moved)


def test_nifti_files_are_a_table_too(session: Session) -> None:
    session.open(lambda: heads.patient(heads.affine_of()))
    assert session.troubles == ()
    assert set(table(shown(session)).values()) >= {"pre", "flair", "post", "mask"}
    assert not shown(session).spacing_is_asked
    mask = next(key for key, role in table(shown(session)).items() if role == "mask")
    before = study(session)
    session.assign(1, sequences.changed(shown(session), mask, None))
    assert study(session).reference is None
    assert study(session).source.sha256 != before.source.sha256


def test_segments_of_a_mask_are_chosen(session: Session, disc: list[NamedBytes]) -> None:
    session.open(lambda: disc)
    session.show(2)
    later = session.patients[1]
    session.assign(2, sequences.changed(later, "5", None))

    def marked() -> int:
        reference = study(session).reference
        return 0 if reference is None else int(reference.sum())

    both = marked()
    parts = []
    for label in (1, 2):
        session.assign(2, sequences.changed(later, "9", "mask", [label]))
        parts.append(marked())
    assert min(parts) > 0
    assert sum(parts) == both
    session.assign(2, sequences.changed(later, "9", "mask", [1, 2]))
    assert marked() == both
    assert later.roles["9"] == "mask"
    session.assign(2, sequences.changed(later, "9", "mask", []))
    assert study(session).reference is None
    assert table(later)["9"] is None


def test_threads_may_open_show_remove_and_run_at_once(session: Session) -> None:
    failed: list[BaseException] = []

    def work(case: str) -> None:
        try:
            for _ in range(4):
                opened(session, case)
                session.run()
                session.update()
                _ = session.readings, session.packs()
                mine = [patient for patient in session.patients if patient.title == case]
                for patient in mine[1:]:
                    session.remove(patient.number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(f"PAT_0{i}",)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    finish(session)
    assert sorted(titles(session)) == [f"PAT_0{i}" for i in range(5)]
    for patient in session.patients:
        assert {p.case_id for p in patient.results.values()} <= {patient.title}


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Status("unet", 0, 4), "U-Net (1 of 4): loading"),
        (Status("unetpp", 2, 4, 8, 28), "U-Net++ (3 of 4): slice 8 of 28"),
        (Status("unet", 0, 1, before=1), "U-Net (1 of 1): waiting for another run on this computer"),
        (Status("unet", 0, 1, before=3), "U-Net (1 of 1): waiting for 3 other runs on this computer"),
    ],
)
def test_progress_in_words(status: Status, text: str) -> None:
    assert progress_text(status) == text
