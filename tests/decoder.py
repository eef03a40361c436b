"""Messages for the viewer, read in Python as far as the header and decoded by the viewer's own JavaScript."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

DECODE = Path(__file__).parent / "js" / "decode.js"


def header(data: bytes) -> dict[str, Any]:
    """The header of a message."""
    (length,) = struct.unpack_from("<I", data)
    found: dict[str, Any] = json.loads(data[4 : 4 + length])
    return found


def decode(data: bytes) -> dict[str, npt.NDArray[np.uint8]]:
    """The arrays of a message as the browser has them: uint8, masks 0 and 1."""
    node = shutil.which("node")
    if node is None:
        pytest.fail("no Node.js: install it (apt-get install nodejs)", pytrace=False)
    done = subprocess.run([node, str(DECODE)], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return {
        name: np.frombuffer(base64.b64decode(array["data"]), np.uint8).reshape(array["shape"])
        for name, array in json.loads(done.stdout).items()
    }
