"""A hospital's DICOM: files of one or more studies -> cases with their series, and series -> volumes.

`cases` reads headers alone; `acquisitions` decodes the series that have a role, and no other. Nothing is
written, and no message repeats what a header holds: it names the file and the series' number.
"""

from brainseg.io.dicom.decoding import acquisitions
from brainseg.io.dicom.listing import cases

__all__ = ["acquisitions", "cases"]
