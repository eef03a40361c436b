"""What pyproject.toml cannot say: the page's script and settings stand at the root and in the wheel."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPage(build_py):
    """Copies app.py and its .streamlit folder into the package, for `brainseg.ui.streamlit.launch`."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in ("app.py", ".streamlit/config.toml"):
            copy = Path(self.build_lib, "brainseg", "ui", "installed", name)
            self.mkpath(str(copy.parent))
            self.copy_file(name, str(copy))


setup(cmdclass={"build_py": BuildWithPage})
