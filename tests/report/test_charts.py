"""Charts take the page's colours, keep out of each other's way on it, and write no label on another."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from xml.etree.ElementTree import fromstring

from gam_yolo.report.charts import Interval, Line, bars, colour, curves, forest, scatter

ROWS = [Interval("a", 1.0, 0.5, 1.5, 0, "+1.0"), Interval("b $x$ <i>", -2.0, None, None, 11, "-2.0")]


def every_kind() -> str:
    drawn = [forest("Forest", ROWS, "points"), bars("Bars", [("one", ROWS[:1]), ("two", ROWS)], "mAP")]
    lines = [Line("a", [0, 1, 2], [0.1, 0.4, 0.3], 0)]
    drawn += [scatter("Scatter", [(1.0, ROWS[0]), (2.0, ROWS[1])], "ms", "mAP"), curves("C", lines, "x", "y")]
    return "\n".join(chart.html() for chart in drawn)


def elements(drawn: str) -> list[str]:
    return re.findall(r'<svg class="chart .*?</svg>', drawn, re.DOTALL)


def test_each_chart_comes_for_screens_and_for_phones_and_is_well_formed() -> None:
    drawn = elements(every_kind())
    assert [re.findall('class="chart (\\w+)"', chart)[0] for chart in drawn] == ["wide", "narrow"] * 4
    for chart in drawn:
        root = fromstring(chart.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))  # noqa: S314  ours
        assert root.attrib["aria-label"].startswith(root.findtext("title") or "?")
        assert len(list(root.iter())) > 20


def test_colours_and_fonts_are_the_pages() -> None:
    drawn = every_kind()
    assert re.findall(r"#[0-9a-f]{6}\b", drawn) == []
    assert {"--c0", "--c11", "--ink", "--soft", "--line"} <= set(re.findall(r"var\((--\w+)\)", drawn))
    assert "font-family" not in drawn
    assert "<style" not in drawn


def test_a_dozen_variants_differ_in_colour_and_none_has_the_baselines() -> None:
    assert len({colour(i) for i in range(12)}) == 12
    assert colour(0) not in {colour(i) for i in range(1, 100)}


def test_names_in_charts_do_not_meet_on_the_page() -> None:
    names = Counter(re.findall(r'\bid="([^"]+)"', every_kind()))
    assert names
    assert set(names.values()) == {1}


def test_labels_are_written_as_they_are() -> None:
    assert "b $x$ &lt;i&gt;" in forest("Forest", ROWS, "points").html()


def test_epochs_are_whole() -> None:
    for drawn in elements(curves("Training", [Line("a", [1, 2, 3], [10.0, 20.0, 30.0], 0)], "epoch", "mAP").html()):
        ticks = re.findall(r"text-anchor: middle[^>]*>([\d.]+)</text>", drawn)
        assert ticks == ["1", "2", "3"]


def test_a_chart_is_the_same_from_run_to_run() -> None:
    assert every_kind() == every_kind()


def test_labels_of_close_points_meet_neither_each_other_nor_a_point() -> None:
    points = [(1.0 + 0.01 * i, Interval(f"variant-{i}", 30 + 0.1 * i, 26, 34, i)) for i in range(9)]
    points.append((3.0, Interval("far", 30.2, 26, 34, 9)))
    for drawn in elements(scatter("Accuracy", points, "GFLOPs", "mAP").html()):
        text = r'<text style="([^"]*)" x="([-\d.]+)" y="([-\d.]+)"[^>]*>(variant-\d|far)</text>'
        boxes = {}
        for style, x, y, label in re.findall(text, drawn):
            left = float(x) - (7 * len(label) if "text-anchor: end" in style else 0)
            boxes[label] = (left, float(y) - 11, left + 7 * len(label), float(y) + 2)  # `y` is the line it stands on
        assert len(boxes) == 10
        marks = [(float(x), float(y)) for x, y in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', drawn)]
        boxes |= {mark: (mark[0] - 5, mark[1] - 5, mark[0] + 5, mark[1] + 5) for mark in marks}
        pairs = [(a, b) for a, b in combinations(boxes, 2) if isinstance(a, str)]
        assert [(a, b) for a, b in pairs if overlap(boxes[a], boxes[b])] == []
        far = boxes["far"]
        assert min(abs((far[1] + far[3]) / 2 - y) for _, y in marks) < 6  # beside its point: nothing is in its way


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
