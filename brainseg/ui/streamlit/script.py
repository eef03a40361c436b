"""What Streamlit runs for each visitor and each click."""

from brainseg.ui.streamlit.page import page

page()
