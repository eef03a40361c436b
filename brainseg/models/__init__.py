"""The networks, written from scratch on shared blocks; `catalogue` lists them."""

from brainseg.models.catalogue import ARCHITECTURES, Architecture, build

__all__ = ["ARCHITECTURES", "Architecture", "build"]
