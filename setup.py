"""What pyproject.toml cannot say: some files stand at the root and in the wheel."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPage(build_py):
    """Copies files of the root into the package: the page's script and settings, for
    `brainseg.ui.streamlit.launch`, and what a Space has beside the program, for `brainseg.spaces`.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        spaces = sorted(path for path in Path("spaces").glob("*/*") if path.is_file())
        for name in ("app.py", ".streamlit/config.toml", "LICENSE", *map(str, spaces)):
            copy = Path(self.build_lib, "brainseg", "ui", "installed", name)
            self.mkpath(str(copy.parent))
            self.copy_file(name, str(copy))


setup(cmdclass={"build_py": BuildWithPage})
