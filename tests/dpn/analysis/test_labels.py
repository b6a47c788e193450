"""Names in a plot cover neither each other nor what is drawn."""

from itertools import combinations

import pytest
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from dpn.analysis.labels import Label, Stroke, line, point, write_labels
from dpn.analysis.style import TEXT, new_figure

CROWDED = [(40.0, 50.0), (40.0, 51.0), (40.5, 50.5), (41.0, 50.0), (39.5, 50.2)]


def written(places, strokes):
    """Write a name beside every place; return the axes and the names."""
    figure = new_figure(8, 5)
    axes = figure.subplots()
    axes.set(xlim=(0, 100), ylim=(0, 100))
    labels = [Label(f"method-{number}", x, y, TEXT) for number, (x, y) in enumerate(places)]
    write_labels(figure, axes, labels, strokes)
    return axes, [text for text in axes.texts if text.get_text()]


def boxes(texts):
    return [text.get_window_extent() for text in texts]


def test_names_of_points_close_together_do_not_overlap_and_stay_inside():
    axes, texts = written(CROWDED, [point(x, y) for x, y in CROWDED])
    assert [text.get_text() for text in texts] == [f"method-{number}" for number in range(len(CROWDED))]
    assert not any(left.overlaps(right) for left, right in combinations(boxes(texts), 2))
    assert all(
        axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1) for box in boxes(texts)
    )


def test_a_name_stands_right_beside_a_point_that_is_alone():
    _, (text,) = written([(50.0, 50.0)], [point(50.0, 50.0)])
    assert text.get_position() == (9, 0)


@pytest.mark.parametrize(
    "strokes",
    [[Stroke(58.0, 0.0, 100.0)], list(line([(50.0, 50.0), (100.0, 50.0)]))],
    ids=["a bar beside it", "a line to the right"],
)
def test_a_name_gives_way_to_what_is_drawn(strokes):
    axes, (text,) = written([(50.0, 50.0)], [point(50.0, 50.0), *strokes])
    (box,) = boxes([text])
    for stroke in strokes:
        (left, bottom), (right, top) = axes.transData.transform(
            [(stroke.x, stroke.low), (stroke.x, stroke.high)]
        )
        assert not box.overlaps(Bbox.from_extents(left, bottom, right, top))


def test_a_thin_line_leads_to_names_that_stand_further_away_and_to_no_other():
    axes, texts = written(CROWDED, [point(x, y) for x, y in CROWDED])
    far = [text for text in texts if max(map(abs, text.get_position())) > 9]
    leaders = [text for text in axes.texts if isinstance(text, Annotation) and text.arrow_patch is not None]
    assert far
    assert [leader.xy for leader in leaders] == [text.xy for text in far]
