"""`python -m brainseg` is the command `brainseg`."""

from brainseg.cli import main

main()
