"""Results judged by the aims set for GAM."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

from gam_speed.results import OURS, PLAIN, Json

__all__ = ["aims"]


def aims(results: Json) -> list[Json]:
    """Judge the results by the aims set for GAM.

    Blocks are judged in the preset `blog`, each batch by itself, over the n and s shapes that were measured: the median
    and the worst case each have a verdict. On a GPU in bfloat16 and both memory formats (Ultralytics trains
    channels-last there); on a CPU in float32 and contiguous (it trains and predicts so there).

    Returns:
        One entry a figure and case, with the keys `figure`, `case`, `aim`, `measured` (None where it was not) and
        `verdict`.
    """
    gpu = results["machine"]["gpu"] is not None
    dtype, formats = ("bfloat16", ["contiguous", "channels_last"]) if gpu else ("float32", ["contiguous"])
    batches = sorted({record["batch"] for record in results["blocks"]}, reverse=True) or [None]
    judged: list[Json] = []

    def judge(figure: str, case: str, aim: float, measured: float | None, least: bool = False) -> None:
        met = measured is not None and (measured >= aim if least else measured <= aim)
        verdict = "not measured" if measured is None else "met" if met else "missed"
        judged.append(
            {
                "figure": figure,
                "case": case,
                "aim": f"at {'least' if least else 'most'} {aim:g}",
                "measured": measured,
                "verdict": verdict,
            }
        )

    def block(
        figure: str, mode: str, levels: str, value: Callable[[Json], float | None], aim: float, least: bool = False
    ) -> None:
        for memory, batch in itertools.product(formats, batches):
            where = {
                "mode": [mode],
                "dtype": [dtype],
                "memory_format": [memory],
                "batch": [batch],
                "scale": "ns",
                "level": levels.split(),
                "compared": ["all", "blog"],  # compiled cases repeat them
            }
            records = [r for r in results["blocks"] if all(r[key] in wanted for key, wanted in where.items())]
            values = [v for r in records if (v := value(r["candidates"])) is not None]
            case = f"batch {batch}, n and s, {levels}, {dtype}, {memory}"
            judge(figure, f"median of {len(values)}: {case}", aim, statistics.median(values) if values else None, least)
            judge(figure, f"worst of {len(values)}: {case}", aim, (min if least else max)(values, default=None), least)

    def speedup(c: Json) -> float | None:
        return 1 / r if (r := c["blog"].get("over_reference")) else None

    def memory(c: Json) -> float | None:
        mine, theirs = (c[name].get("peak_bytes") for name in ("blog", "reference"))
        return mine / theirs if mine and theirs else None

    every = "P3 P4 P5"
    limit: Callable[[Json], float | None] = lambda c: c["blog"].get("over_limit")  # noqa: E731
    block("block inference over its bare convolutions", "inference", every, limit, 1.10 if gpu else 1.25)
    block("block training step over its bare convolutions", "training", every, limit, 1.20 if gpu else 1.35)
    block("articles' code over block, training step", "training", "P3", speedup, 2.0, least=True)
    block("peak training memory over the articles' code's", "training", every, memory, 0.5)
    models = results["models"]
    for record in models.get("train", []) or [None]:
        figure = "YOLOv8n-GAM over YOLOv8n, train step, over the ratio of GFLOPs"
        if record is None:
            judge(figure, "", 1.0, None)
            continue
        key = "gflops" if models["counts"][PLAIN]["gflops"] else "gflops_torch"
        gflops = models["counts"][OURS][key] / models["counts"][PLAIN][key]
        slower = record["models"][OURS].get("over_plain")
        case = f"batch {record['batch']}, {record['imgsz']} px, {record['dtype']}, GFLOPs {gflops:.2f} times"
        judge(figure, case, 1.0, slower / gflops if slower else None)
    return judged
