"""Bytes or paths -> `Study`: which files are slices, which are masks, and whose they are.

Upload: ``find_cases(expand(files))``, then `read_case` of the chosen one. Disk: `read_study`. Both give
the same study for the same files. Every problem is an `InputError` of one sentence naming the file and the
remedy.
"""

from brainseg.io.cases import Case, find_cases
from brainseg.io.files import NamedBytes, collect, expand
from brainseg.io.study import read_case, read_study

__all__ = ["Case", "NamedBytes", "collect", "expand", "find_cases", "read_case", "read_study"]
