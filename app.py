"""Entry of the page: ``streamlit run app.py``."""

from brainseg.ui.streamlit_app import page

page()
