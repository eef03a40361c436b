"""Entry of the page: ``streamlit run app.py``."""

import streamlit as st

from brainseg.ui.streamlit.server import MIDDLEWARE, SCRIPT, lifespan

app = st.App(SCRIPT, lifespan=lifespan, middleware=MIDDLEWARE)
