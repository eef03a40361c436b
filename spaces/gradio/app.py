"""Entry of the Space; the page itself is brainseg/ui/gradio."""

import os

# The Hub shows a Space in a frame of its own page.
os.environ.setdefault("BRAINSEG_FRAME_ANCESTORS", "https://huggingface.co")

from brainseg.ui.gradio.app import launch

launch()
