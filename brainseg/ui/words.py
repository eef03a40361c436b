"""What the pages say, so that every face says it in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brainseg.datasets.lgg import fetch_patient
from brainseg.io import NamedBytes
from brainseg.models import ARCHITECTURES
from brainseg.types import BrainsegError, Study, WeightsCard

TITLE = "Lower-grade glioma on brain MRI"
INTRODUCTION = "Four networks find the tumour in a patient's slices, side by side: {networks}.".format(
    networks=", ".join(network.title for network in ARCHITECTURES.values())
)
STEPS = (
    "Open a patient in the panel on the left: a DICOM folder or disc, NIfTI files, or a folder of slices, "
    "also as a zip. The three sequences (T1 before contrast, FLAIR, T1 after contrast) and reference masks "
    "are recognised, and you can correct what was not.",
    "Choose one to four models and run them.",
    "Scroll through the slices, compare the outlines, and download masks and figures.",
)
IN_MEMORY = (
    "Files are kept in memory for this session alone and are never written to disk. They are freed when you "
    "remove the patient or close this page."
)

OPEN = "Open a patient"
FOLDER = "Patient folder"
FOLDER_HINT = (
    "A DICOM folder or disc as it is, NIfTI files (.nii, .nii.gz), MetaImage or NRRD (.mha, .nrrd), or "
    "slices such as case_1.tif with masks such as case_1_mask.tif, if there are any."
)
FILES = "Zip, or a patient's files"
FILES_HINT = (
    "All files of a patient together, masks too, or a zip of them: DICOM, NIfTI, MetaImage, NRRD or slices."
)
READING = "Reading the files …"
PUBLIC = "Fetch a public TCGA patient"
PUBLIC_HINT = "One patient of the LGG data set, from Kaggle. Needs a network connection."
FETCHING = "Fetching from Kaggle …"
SAMPLE = "Open the synthetic sample"
TRY_SAMPLE = "Try it with the synthetic sample"
SAMPLE_HINT = "A computed brain with a computed lesion, not a patient."
SYNTHETIC = "synthetic, not a patient"

CHANNEL_ORDER = "Channel order"
CHANNELS_LABEL = "Sequences in the files, in this order"
CHANNELS_HELP = (
    "The networks expect pre-contrast T1, FLAIR and post-contrast T1 as the three channels. Another order in "
    "the files makes their results worthless without any sign of it."
)
AS_FILES_SAY = "As the files say"

SEQUENCES = "Sequences"
SEQUENCES_HINT = (
    "How each series was recognised. After a correction the files are read again; results belong to the "
    "choice they were computed with, and come back with it."
)
SEGMENTS = "Segments that count as tumour"
REGISTER = "Register to FLAIR"
REGISTER_HELP = (
    "Moves the T1 series rigidly onto FLAIR: needed if they come from different sessions or the patient "
    "moved in between. Takes about half a minute a series. Off, each series lies where its file says."
)
NO_REGISTER = "Registration needs SimpleITK where this page runs: pip install 'brainseg-lgg[itk]'."

SPACING = "Spacing in mm (optional)"
AXES = ("Between slices", "Between rows", "Between columns")

FLIPS = "Average over left-right flips"
FLIPS_HELP = "Each slice is also seen mirrored, and the two probabilities are averaged: twice the time."
NO_WEIGHTS = "No weights are installed: run from a clone of the repository, which holds them in weights/."

THRESHOLD_HELP = "A voxel is tumour at or above it. No network runs again."
LARGEST = "Largest region only"
LARGEST_HELP = "Keeps the largest connected region in three dimensions. At first as the weights say."

FIGURES = "This patient"
NO_REFERENCE = "Dice and the other comparisons need a reference mask among the patient's files."
SEEN = "Weights were fitted on this patient: figures so marked flatter them."
AGREEMENT = "Do the models agree?"
AGREEMENT_HINT = "Dice of each pair with each other."
AREAS = "Area in each slice"
AREAS_HINT = "Click a point to go to its slice."
DOWNLOAD = "Download"


def not_shown(title: str) -> str:
    """Above the table of a patient that cannot be read yet."""
    return f"{title} cannot be read yet: correct its sequences here."


def spacing_hint(spacing: Sequence[float | None]) -> str:
    """What typed spacing does, or what it still lacks."""
    if None in spacing and any(value is not None for value in spacing):
        return "Volumes in ml need all three."
    return "The files carry no spacing. With all three, areas are in mm² and volumes in ml."


def run_label(chosen: Sequence[str], todo: Sequence[str]) -> str:
    """What the button that runs the networks says."""
    if not chosen:
        return "Choose a model"
    if not todo:
        return "All results are shown"
    return f"Run {len(todo)} model{'s' if len(todo) > 1 else ''}"


def about(card: WeightsCard) -> str:
    """Where a network comes from, and its size."""
    return f"{ARCHITECTURES[card.spec.architecture].paper}. Width {card.spec.width}."


def threshold_label(architecture: str, stored: float) -> str:
    """Whose threshold a slider sets."""
    return f"{ARCHITECTURES[architecture].title} (stored: {stored:.2f})"


def of_network(name: str, sentence: str) -> str:
    """A sentence about one network."""
    return f"{ARCHITECTURES[name].title}: {sentence}"


def files_label(study: Study) -> str:
    """How many of the files given were used."""
    used = sum(f.role != "ignored" for f in study.source.files)
    ignored = len(study.source.files) - used
    return f"Files: {used} used" + (f", {ignored} ignored" if ignored else "")


def public_patient(cards: Mapping[str, WeightsCard]) -> list[NamedBytes]:
    """The files of one patient of the public data set, from Kaggle.

    Raises:
        BrainsegError: if no weights name a patient, or the patient cannot be fetched.
    """
    # One that chose thresholds but trained nothing, so that its Dice means something.
    held_out = [p for card in cards.values() for p in card.validation_patients]
    if not held_out:
        raise BrainsegError("No weights are installed that name a public patient; upload a folder instead.")
    return fetch_patient(held_out[0])
