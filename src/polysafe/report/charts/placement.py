"""Where labels go beside the points that they name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_DIRECTIONS = 12
_RINGS = 14
_CLEARANCE = 1.0


class Box(NamedTuple):
    """A rectangle in CSS pixels, y growing downwards."""

    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """Its middle."""
        return self.left + self.width / 2, self.top + self.height / 2

    def overlap(self, other: Box) -> float:
        """Area that two boxes share."""
        width = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        height = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    radii: Sequence[float],
    room: Box,
) -> list[Box]:
    """Puts a label near each point, off all points and off the other labels as long as there is room.

    Greedy, in the order of the points: each label takes the nearest free place around its point, or, where none is
    free, the one that covers least.

    Args:
        points: Where the points are, inside `room`.
        sizes: Width and height of each label.
        radii: How far each point reaches.
        room: What labels must not leave.

    Returns:
        One box per point, inside `room`.
    """
    dots = [Box(x - radius, y - radius, 2 * radius, 2 * radius) for (x, y), radius in zip(points, radii, strict=True)]
    placed: list[Box] = []
    for (x, y), (width, height), radius in zip(points, sizes, radii, strict=True):
        best, least = None, math.inf
        for box in _candidates(x, y, width, height, room, radius):
            covered = sum(box.overlap(other) for other in dots) + sum(10 * box.overlap(other) for other in placed)
            if covered < least:
                best, least = box, covered
            if least == 0.0:
                break
        assert best is not None
        placed.append(best)
    return placed


def _candidates(x: float, y: float, width: float, height: float, room: Box, radius: float) -> Iterator[Box]:
    """Places around a point, the nearest first, each pushed into the room."""
    for ring in range(_RINGS):
        distance = radius + _CLEARANCE + ring * height * 0.6
        for turn in range(_DIRECTIONS):
            angle = 2 * math.pi * (turn / _DIRECTIONS) - math.pi / 4
            left = x + math.cos(angle) * (distance + width / 2) - width / 2
            top = y + math.sin(angle) * (distance + height / 2) - height / 2
            yield Box(
                min(max(left, room.left), room.left + room.width - width),
                min(max(top, room.top), room.top + room.height - height),
                width,
                height,
            )
