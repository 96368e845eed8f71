"""Draw the differences of several reports in one chart, with a group of rows for each report.

    python scripts/maintenance/publish_overview.py docs/results/overview.svg \
        "VOC2007, 6 epochs=docs/results/voc-small.json" "my data=runs/study/mine/report/report.json"

Each row is a variant minus the report's baseline in the task's main metric, with its 95 % interval. `--hide control`
leaves out a variant that is far from all others. The table of the same figures is printed in Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from publish_report import svg_documents

from gam_yolo.report import charts
from gam_yolo.report.formatting import signed_in_full
from gam_yolo.report.result import Comparison


def main() -> None:
    """Write the chart and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="SVG to write")
    parser.add_argument("reports", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--hide", nargs="*", default=[], metavar="VARIANT")
    arguments = parser.parse_args()
    groups: list[tuple[str, list[charts.Interval]]] = []
    colours: dict[str, int] = {}  # a variant has the same one in every group
    print("| data | variant | metric | minus plain (95 % interval) | verdict | seeds |")
    print(f"|{' --- |' * 6}")
    for name, _, file in (given.partition("=") for given in arguments.reports):
        report = Comparison.load(file)
        rows: list[charts.Interval] = []
        for variant in report.variants.values():
            if variant.name in (report.baseline, *arguments.hide):
                continue
            found = variant.minus(report.baseline)[report.about.main]
            if found.value is not None:
                low, high = (None if end is None else 100 * end for end in (found.low, found.high))
                colour = colours.setdefault(variant.name, len(colours) + 1)
                rows.append(charts.Interval(variant.name, 100 * found.value, low, high, colour))
            seeds = len(variant.metrics[report.about.main].seeds)
            cells = name, variant.name, report.about.short, signed_in_full(found), found.verdict or "", str(seeds)
            print(f"| {' | '.join(cells)} |")
        groups.append((name, rows))
    title = "Variants minus the plain model, points of the main metric"
    chart = charts.forest_groups(title, groups, "points of mAP 50-95 or top-1")
    arguments.out.write_text(svg_documents(chart.html(), report)[0], encoding="utf-8")


if __name__ == "__main__":
    main()
