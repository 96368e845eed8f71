"""Labels that would lie on each other are drawn below each other."""

from __future__ import annotations

import re
from itertools import pairwise

from gam_yolo.report.charts import Interval, scatter


def test_labels_of_close_points_do_not_overlap() -> None:
    points = [(1.0 + 0.001 * i, Interval(f"variant-{i}", 30 + 0.1 * i, 26, 34, i)) for i in range(5)]
    points.append((3.0, Interval("far", 30.2, 26, 34, 5)))
    drawn = scatter("Accuracy", points, "GFLOPs", "mAP")
    place = {
        label: (float(x), float(y))
        for x, y, label in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" [^>]*>(variant-\d|far)</text>', drawn)
    }
    heights = sorted(y for label, (_, y) in place.items() if label != "far")
    assert len(heights) == 5
    assert all(below - above >= 14 for above, below in pairwise(heights))
    alone = re.findall(r'cy="([\d.]+)"', scatter("Accuracy", points, "GFLOPs", "mAP"))
    assert f"{place['far'][1] - 4:.1f}" in alone  # beside its point, since nothing is in its way
