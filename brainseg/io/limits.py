"""How much is read before a sentence says that it is too much."""

MAX_UPLOAD = 300 * 2**20
"""Bytes of one file that a page or the API takes. A patient of 1,000 slices zipped stays below; the whole
data set (about 1 GB) belongs on the command line, not in a browser's memory."""

MAX_FILES = 20_000
"""Files in one folder or zip; the LGG data set has about 8,000, and its published zip holds it twice."""

MAX_SLICES = 1_000
"""Slices of one patient."""

MAX_SIDE = 4_096
"""Rows or columns of one slice, in pixels."""

MAX_VOXELS = 2**27
"""Slices x rows x columns of one patient: 1.6 GB once in float32 with three channels."""

MAX_VOLUME_VOXELS = 2**28
"""Voxels of one sequence as its file stores it, before thin planes are averaged into slices: 600 planes of
512 x 512 are 157 million."""

MAX_UNZIPPED = 2 * 2**30
"""Bytes of all members of a zip together."""

MAX_RATIO = 100
"""Unpacked to packed size, once the unpacked size passes `RATIO_FROM`; blank masks alone pack 800 to 1."""

RATIO_FROM = 64 * 2**20
"""Bytes under which a high ratio does no harm."""

MAX_NAME = 1_000
"""Bytes of a file's whole relative path, in UTF-8."""

MAX_PART = 255
"""Bytes of one part of it, as file systems allow."""
