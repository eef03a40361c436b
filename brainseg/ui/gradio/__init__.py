"""The face in Gradio: a page that draws a `brainseg.ui.session.Session`, an API and a tool for agents."""
