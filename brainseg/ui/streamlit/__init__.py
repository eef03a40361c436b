"""The face in Streamlit: widgets that draw a `brainseg.ui.session.Session`, and the server around them."""
