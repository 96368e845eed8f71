"""Put a report into the docs: its JSON, charts of its page as SVG files, and its table in Markdown, printed.

python scripts/maintenance/publish_report.py runs/study/voc-small/report/report.json docs/results/voc-small

writes `voc-small.json`, and `voc-small-1.svg` and `voc-small-2.svg`: the page's first and second chart, with the
page's style in them. `--rename /data/runs=runs` shortens folders' names, which are nobody else's; `--hide control`
keeps a variant that is far from all others out of the charts.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gam_yolo.report.formatting import points, signed_in_full
from gam_yolo.report.render import write

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
    arguments.prefix.with_suffix(".json").write_text(text, encoding="utf-8")
    charts = svgs(without(json.loads(text), arguments.hide)) if arguments.charts else []
    for place, number in enumerate(arguments.charts, 1):
        out = arguments.prefix.with_name(f"{arguments.prefix.name}-{place}.svg")
        out.write_text(charts[number - 1], encoding="utf-8")
    print(table(json.loads(text)))


def without(report: dict[str, Any], hidden: list[str]) -> dict[str, Any]:
    """Take variants out of a report, and what is said relative to them."""
    variants = [variant for variant in report["variants"] if variant["name"] not in hidden]
    for variant in variants:
        variant["differences"] = {name: tree for name, tree in variant["differences"].items() if name not in hidden}
    control = None if report["control"] in hidden else report["control"]
    return {**report, "variants": variants, "control": control}


def svgs(report: dict[str, Any]) -> list[str]:
    """Draw a report's page and return the charts for screens, each a document of its own."""
    with TemporaryDirectory() as folder:
        write(report, [], Path(folder))
        page = (Path(folder) / "report.html").read_text(encoding="utf-8")
    style = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL)) + " text { font-family: sans-serif }"
    return [
        f"<svg {NAMESPACES} {opening}><style>{style}</style>{GROUND}{rest}\n"
        for opening, rest in re.findall(r'<svg (class="chart wide"[^>]*)>(.*?</svg>)', page, re.DOTALL)
    ]


def table(report: dict[str, Any]) -> str:
    """The main table as `docs/results.md` has it, with the value of each seed."""
    baseline = report["baseline"]
    names = ["variant", "mAP 50-95", "mAP 50", f"minus {baseline} (95 % interval)", "verdict", "seeds"]
    rows = [[*names, "parameters", "GFLOPs"], ["---"] * 8]
    for variant in report["variants"]:
        found, cost = variant["metrics"], variant["cost"]
        difference, verdict = "baseline", ""
        if variant["name"] != baseline:
            against = variant["differences"][baseline]["metrics"]["AP"]
            difference, verdict = signed_in_full(against), against["verdict"]
        seeds = ", ".join(points(value) for value in found["AP"]["seeds"])
        scores = [points(found[metric]["value"]) for metric in ("AP", "AP50")]
        costs = [f"{cost['parameters'] / 1e6:.2f} M", f"{cost['gflops']:.2f}"]
        rows.append([variant["name"], *scores, difference, verdict, seeds, *costs])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
