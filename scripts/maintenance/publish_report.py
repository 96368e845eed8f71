"""Put a report into the docs: its JSON, charts of its page as SVG files, and its table in Markdown, printed.

    python scripts/maintenance/publish_report.py runs/study/voc-small/report/report.json docs/results/voc-small

writes `voc-small.json`, compact, and `voc-small-1.svg` and `voc-small-2.svg`: the page's first and second chart, with
the page's style in them. `--rename /data/runs=runs` shortens folder names, which mean nothing elsewhere; `--hide
control` keeps a variant that is far from all others out of the charts.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

from gam_yolo.report.formatting import METRIC_NAMES, points, signed_in_full
from gam_yolo.report.render import page
from gam_yolo.report.result import Comparison

NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
GROUND = '<rect width="100%" height="100%" style="fill:var(--paper)"/>'


def main() -> None:
    """Write the files and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("--charts", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rename", nargs="*", default=[], metavar="OLD=NEW")
    parser.add_argument("--hide", nargs="*", default=[], metavar="VARIANT")
    arguments = parser.parse_args()
    text = arguments.report.read_text(encoding="utf-8")
    for old, new in (pair.split("=", 1) for pair in arguments.rename):
        text = text.replace(old, new)
    content = json.loads(text)
    report = Comparison.from_dict(content, str(arguments.report))
    compact = json.dumps(content, separators=(",", ":")) + "\n"
    arguments.prefix.with_suffix(".json").write_text(compact, encoding="utf-8")
    charts = svgs(without(report, arguments.hide)) if arguments.charts else []
    for place, number in enumerate(arguments.charts, 1):
        out = arguments.prefix.with_name(f"{arguments.prefix.name}-{place}.svg")
        out.write_text(charts[number - 1], encoding="utf-8")
    print(table(report))


def without(report: Comparison, hidden: list[str]) -> Comparison:
    """Take variants out of a report, and the differences to them."""
    variants = {
        name: replace(variant, differences={k: v for k, v in variant.differences.items() if k not in hidden})
        for name, variant in report.variants.items()
        if name not in hidden
    }
    return replace(report, variants=variants, control=None if report.control in hidden else report.control)


def svgs(report: Comparison) -> list[str]:
    """Return the charts of a report's page for screens, each a document of its own."""
    return svg_documents(page(report), report)


def svg_documents(charts: str, report: Comparison) -> list[str]:
    """Return the charts for screens in some HTML as documents of their own, in the style of a report's page."""
    style = "".join(re.findall(r"<style>(.*?)</style>", page(report), re.DOTALL)) + " text { font-family: sans-serif }"
    return [
        f"<svg {NAMESPACES} {opening}><style>{style}</style>{GROUND}{rest}\n"
        for opening, rest in re.findall(r'<svg (class="chart wide"[^>]*)>(.*?</svg>)', charts, re.DOTALL)
    ]


def table(report: Comparison) -> str:
    """Return the main table as `docs/results.md` has it, with the value of each seed."""
    task = report.about
    scores = [METRIC_NAMES[metric] for metric in (task.main, task.second)]
    names = ["variant", *scores, f"minus {report.baseline} (95 % interval)", "verdict", "seeds"]
    rows = [[*names, "parameters", "GFLOPs"], ["---"] * 8]
    for variant in report.variants.values():
        main, difference, verdict, costs = variant.metrics[task.main], "baseline", "", ["", ""]
        if variant.name != report.baseline:
            gain = variant.minus(report.baseline)[task.main]
            difference, verdict = signed_in_full(gain), gain.verdict or ""
        seeds = ", ".join(points(value) for value in main.seeds)
        if variant.cost:
            costs = [f"{variant.cost.parameters / 1e6:.2f} M", f"{variant.cost.gflops or 0:.2f}"]
        scores = [points(found.value) for found in (main, variant.metrics[task.second])]
        rows.append([variant.name, *scores, difference, verdict, seeds, *costs])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
