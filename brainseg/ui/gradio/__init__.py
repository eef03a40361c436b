"""The face in Gradio: a page that draws a `brainseg.ui.session.Session`, an API and a tool for agents."""

import os

# Nobody is told who uses it. Gradio and huggingface_hub read this once, when they load.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
