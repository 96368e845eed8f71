"""Take charts out of a report's page as SVG files of their own, for the docs.

python scripts/take_charts.py runs/study/voc-small/report/report.html docs/results/voc-small --charts 1 2

writes `voc-small-1.svg` and `voc-small-2.svg`: the page's first and second chart, with the page's style in them.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def main() -> None:
    """Write the charts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("--charts", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()
    page = arguments.page.read_text(encoding="utf-8")
    style = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    charts = re.findall(r'<svg class="chart wide".*?</svg>', page, re.DOTALL)
    for number in arguments.charts:
        chart = charts[number - 1].replace("<svg ", f"<svg {NAMESPACES} ", 1)
        opening, rest = chart.split(">", 1)
        out = arguments.prefix.with_name(f"{arguments.prefix.name}-{number}.svg")
        ground = '<rect width="100%" height="100%" style="fill:var(--paper)"/>'
        out.write_text(
            f"{opening}><style>{style} text {{ font-family: sans-serif }}</style>{ground}{rest}\n", encoding="utf-8"
        )
        print(out)


if __name__ == "__main__":
    main()
