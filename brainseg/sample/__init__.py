"""The sample that comes with the package: a synthetic patient, nobody's brain, to try the program on."""

from pathlib import Path

__all__ = ["SYNTHETIC_GLIOMA"]

SYNTHETIC_GLIOMA = Path(__file__).parent / "synthetic_glioma"
"""A patient folder in the layout of the LGG data set: 28 slices and their masks."""
