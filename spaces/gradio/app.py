"""Entry of the Space; the page itself is brainseg/ui/gradio."""

# ruff: noqa: I001
import logging
import os

# The Hub shows a Space in a frame of its own page.
os.environ.setdefault("BRAINSEG_FRAME_ANCESTORS", "https://huggingface.co")

from brainseg.ui.gradio.app import launch  # first: on ZeroGPU nothing may touch CUDA before its package
from brainseg.types import WeightsError
from brainseg.ui import networks

try:
    networks.fetch()
except WeightsError as error:
    # The page opens all the same, and says so.
    logging.getLogger("brainseg").warning("%s", error)
launch()
