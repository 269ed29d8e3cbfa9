"""Sends a finished output to the hub: exactly what its manifest vouches for, private by default, resumable."""

from polysafe.publish.contents import Item, Publication, gather
from polysafe.publish.push import Pushed, push

__all__ = ["Item", "Publication", "Pushed", "gather", "push"]
