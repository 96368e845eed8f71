"""What does comparing seed by seed change? Coverage and width of 95 % intervals, with seeds paired and crossed.

    python scripts/evidence/paired_seeds.py --output docs/results/paired-seeds.json

Normal variables: the values of two variants' seeds have a correlation between variants, and the images have a variance
of the same size as the seeds' part. Both intervals are those of `gam_yolo.evaluation.difference`. Prints a Markdown
table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from gam_yolo.evaluation import Samples, difference

IMAGES, AT_ONCE = 400, 1000


def run(seeds: int, correlation: float, simulations: int) -> dict[str, Any]:
    """Simulate one row."""
    rng = np.random.default_rng([seeds, int(100 * correlation)])
    wave = np.tile([1.0, -1.0], IMAGES // 2) * np.sqrt((IMAGES - 1) / IMAGES)  # replicates of variance 1
    images = np.full(AT_ONCE, float(IMAGES))
    image_variance = 2 / seeds  # of the difference; the seeds' part is the same if they are not correlated
    held: dict[bool, list[float]] = {True: [], False: []}
    width: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(-(-simulations // AT_ONCE)):
        shared = np.sqrt(correlation) * rng.normal(size=(seeds, AT_ONCE))
        own = np.sqrt(1 - correlation) * rng.normal(size=(2, seeds, AT_ONCE))
        other = np.sqrt(image_variance) * rng.normal(size=AT_ONCE)
        spread = np.sqrt(image_variance * rng.chisquare(IMAGES / 2, AT_ONCE) / (IMAGES / 2))
        first = Samples(shared + own[0], (shared + own[0])[..., None] + 0 * wave, images, images)
        value = shared + own[1] + other
        second = Samples(value, value[..., None] + spread[:, None] * wave, images, images)
        for paired in (True, False):
            found = difference(second, first, paired=paired)
            held[paired].append(float(np.mean((found.low <= 0) & (found.high >= 0))))
            width[paired].append(float(np.mean(found.high - found.low)))
    return {
        "seeds": seeds,
        "correlation": correlation,
        "simulations": len(held[True]) * AT_ONCE,
        "paired_covered": round(100 * float(np.mean(held[True])), 1),
        "crossed_covered": round(100 * float(np.mean(held[False])), 1),
        "width_ratio": round(float(np.mean(width[True]) / np.mean(width[False])), 2),
    }


def line(result: dict[str, Any]) -> str:
    """Write one result as a row of the table."""
    keys = ("seeds", "correlation", "paired_covered", "crossed_covered", "width_ratio", "simulations")
    return f"| {' | '.join(str(result[key]) for key in keys)} |"


def main() -> None:
    """Run all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=10000)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    print("| seeds | correlation | paired: covered, % | crossed: covered, % | width, paired / crossed | simulations |")
    print("|" + " --- |" * 6)
    results = [run(k, c, arguments.simulations) for k in (3, 5, 10) for c in (0.0, 0.3, 0.6, 0.9)]
    print("\n".join(map(line, results)))
    if arguments.output:
        lines = ",\n".join(json.dumps(result, separators=(",", ":")) for result in results)
        arguments.output.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
