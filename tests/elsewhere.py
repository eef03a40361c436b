"""An environment outside the clone, for the installed package and for the Spaces."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.request
import venv
from pathlib import Path

UID = 1000


def environment(folder: Path) -> Path:
    """The Python of a new environment that sees the packages of the tests and nothing of the clone."""
    venv.create(folder, with_pip=False, symlinks=True)
    [site] = (folder / "lib").glob("python*/site-packages")
    # A folder named in a .pth file is looked through last, and .pth files in it are not read: the tests' own
    # editable brainseg stays out.
    (site / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin" / "python"


def variables(home: Path, hub: str) -> dict[str, str]:
    """Environment variables with a home of its own, a Hub's address and an empty cache."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_"))}
    return kept | {"HF_ENDPOINT": hub, "HF_HOME": str(home / "hf"), "HOME": str(home)}


def as_user() -> list[str] | None:
    """What to put before a command so that it runs as a user without rights; None where that is not possible.

    Root becomes user 1000, who may read everything, since the tests' own Python may lie in root's home, and
    write only what is theirs.
    """
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        return None
    rights = "-all,+dac_read_search"
    command = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", f"--inh-caps={rights}"]
    command += [f"--ambient-caps={rights}", f"--bounding-set={rights}", "--"]
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if tried.returncode == 0 else None


def give(folder: Path) -> None:
    """Let a folder and all in it belong to the user of `as_user`."""
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, UID, UID, follow_symlinks=False)


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
        return port


def answer(url: str, server: subprocess.Popen[bytes]) -> str:
    """What a server that is starting answers, within two minutes; empty if it ended before."""
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return str(response.read().decode())
        except OSError:
            time.sleep(0.2)
    return ""
