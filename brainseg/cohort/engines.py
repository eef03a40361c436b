"""Engines by the name the user gives."""

from __future__ import annotations

from enum import StrEnum

from brainseg.cohort.outcome import Engine


class EngineName(StrEnum):
    """Who does the work: processes of this machine, or Ray."""

    LOCAL = "local"
    RAY = "ray"


def engine(name: EngineName, workers: int) -> Engine:
    """The engine of that name.

    Raises:
        BrainsegError: if it is not installed.
    """
    # torch, and Ray if there is one, come with the work.
    if name is EngineName.RAY:
        from brainseg.cohort.on_ray import on_ray  # noqa: PLC0415

        return on_ray(workers)
    from brainseg.cohort.processes import processes  # noqa: PLC0415

    return processes(workers)
