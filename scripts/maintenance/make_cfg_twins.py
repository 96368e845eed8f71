"""Write copies of cfg/yolo*-gam*.yaml for the other blocks, with the same rows but for the block's.

    python scripts/maintenance/make_cfg_twins.py

Run it after changing a GAM model YAML or adding a block. `tests/test_cfg_twins.py` fails while a copy is out of date.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

CFG = Path(__file__).resolve().parents[2] / "cfg"
BLOCKS = (
    "BAM",
    "CAA",
    "CBAM",
    "CoordAtt",
    "ECA",
    "ELA",
    "EMA",
    "LSKA",
    "MLCA",
    "SCSA",
    "SE",
    "SimAM",
    "Triplet",
    "UltralyticsCBAM",
)
SOURCE = re.compile(r"yolov?\d+-gam(-backbone)?")


def twins() -> dict[Path, str]:
    """Return path and text of every twin."""
    found = {}
    for source in sorted(path for path in CFG.glob("*.yaml") if SOURCE.fullmatch(path.stem)):
        head, body = source.read_text(encoding="utf-8").split("\n\n", 1)
        title = head.partition("\n")[0]
        for block in BLOCKS:
            article = "an" if block in ("ECA", "ELA", "EMA", "LSKA", "MLCA", "SCSA", "SE", "UltralyticsCBAM") else "a"
            found[source.with_stem(source.stem.replace("-gam", f"-{block.lower()}"))] = (
                f"{title.replace('a GAM block', f'{article} {block} block')}\n"
                f"# Generated from {source.name} by scripts/maintenance/make_cfg_twins.py, {block} in place of GAM.\n"
                "# Write arguments between the brackets; docs/blocks.md lists them.\n\n"
                + re.sub(r"\bGAM, \[.*?\]\]", f"{block}, []]", body)
            )
    return found


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for path, text in twins().items():
        path.write_text(text, encoding="utf-8")
    print(f"wrote {len(twins())} files to {CFG}")
