from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from polysafe.report.charts.placement import Box, place_labels

ROOM = Box(40.0, 20.0, 280.0, 230.0)
POINTS = st.lists(st.tuples(st.floats(40, 320), st.floats(20, 250)), max_size=30)


@given(POINTS)
def test_labels_stay_inside_and_off_each_other(points: list[tuple[float, float]]) -> None:
    placed = place_labels(points, [(15.0, 11.0)] * len(points), [6.0] * len(points), ROOM)
    assert len(placed) == len(points)
    for box in placed:
        assert ROOM.left <= box.left
        assert box.left + box.width <= ROOM.left + ROOM.width + 1e-9
        assert ROOM.top <= box.top
        assert box.top + box.height <= ROOM.top + ROOM.height + 1e-9
    assert all(one.overlap(other) == 0.0 for one, other in combinations(placed, 2))


@given(st.tuples(st.floats(70, 290), st.floats(50, 220)))
def test_a_lonely_point_has_its_label_beside_it(point: tuple[float, float]) -> None:
    (box,) = place_labels([point], [(15.0, 11.0)], [6.0], ROOM)
    dot = Box(point[0] - 6, point[1] - 6, 12, 12)
    across, down = box.centre
    assert box.overlap(dot) == 0.0
    assert abs(across - point[0]) + abs(down - point[1]) < 30


def test_overlap_is_the_shared_area() -> None:
    assert Box(0, 0, 10, 10).overlap(Box(5, 5, 10, 10)) == 25.0
    assert Box(0, 0, 10, 10).overlap(Box(10, 0, 5, 5)) == 0.0
