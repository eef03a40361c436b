"""Start the page from an installed package or from a clone, with the same settings.

Streamlit reads ``.streamlit/config.toml`` beside the script it runs. In a clone both lie at the root; the
wheel holds copies of both in ``brainseg/ui/installed`` (see setup.py), so that no flag repeats a setting.
"""

from __future__ import annotations

from pathlib import Path

from brainseg.ui import networks

_INSTALLED = Path(__file__).parents[1] / "installed" / "app.py"
_CLONE = Path(__file__).resolve().parents[3] / "app.py"


def serve(host: str, port: int) -> None:
    """Run the page until interrupted.

    An installed package fetches its weights before the page opens, where the terminal shows how far it is,
    and not while somebody waits for a result.

    Args:
        host: address to listen at; ``"localhost"`` for this computer alone.
        port: 1..65535.

    Raises:
        WeightsError: if the weights are neither here nor within reach.
    """
    networks.fetch()
    from streamlit.web import cli  # noqa: PLC0415 - slow to import, and not needed to say what is wrong

    script = _INSTALLED if _INSTALLED.is_file() else _CLONE
    arguments = ["run", str(script), f"--server.address={host}", f"--server.port={port}"]
    cli.main(arguments, prog_name="brainseg app")
