"""The benchmark of latency against width: what it compares, and the width that it reads from the latencies."""

from __future__ import annotations

import math
from typing import Any

import benchmark_width
import pytest
from benchmark_width import PLAIN, WIDTHS
from ultralytics.nn.tasks import DetectionModel

from gam_yolo.blocks.gam import PRESETS


def run_of(**latencies: float) -> dict[str, Any]:
    """Plain models that take 100 ms times their width, and others."""
    times = {PLAIN.format(width): 100 * width for width in WIDTHS} | latencies
    models = {name: {"wall_ms": ms} for name, ms in times.items()}
    return {"runtime": "OpenVINO", "threads": 2, "models": models}


def test_a_latency_between_two_widths_buys_a_width_between_them() -> None:
    run = run_of(light=25, between=38, slow=51)
    assert benchmark_width.same_latency(run, "light") == pytest.approx(0.25)
    assert benchmark_width.same_latency(run, "between") == pytest.approx(0.380)
    assert math.isnan(benchmark_width.same_latency(run, "slow"))


def test_chart_and_table_show_every_block_and_what_is_slower_than_the_widest() -> None:
    run = run_of(between=38, slow=51)
    counts = {name: {"parameters": 1000, "gflops_torch": 1.0} for name in run["models"]}
    results = {"models": counts, "latency": [run, run | {"runtime": "ONNX Runtime", "threads": 1}]}
    assert "| between | 1,000 | 1.0 | 38.0 (0.380) | 38.0 (0.380) |" in benchmark_width.tables(results)
    assert "| slow | 1,000 | 1.0 | 51.0 (over 0.50) | 51.0 (over 0.50) |" in benchmark_width.tables(results)
    drawn = benchmark_width.chart(results)
    assert drawn.count("<circle") == 2 + 2  # the legend, and one block with two runtimes
    assert drawn.count("&gt;") == 2


def test_the_plain_models_go_from_n_to_s_and_every_preset_is_there() -> None:
    configs = benchmark_width.configs()
    assert {f"GAM {preset}" for preset in PRESETS} < configs.keys()
    ends = [DetectionModel(configs[PLAIN.format(width)], verbose=False) for width in (0.25, 0.5)]
    official = [DetectionModel(f"yolov8{scale}.yaml", verbose=False) for scale in "ns"]
    for model, known in zip(ends, official, strict=True):
        assert [p.shape for p in model.parameters()] == [p.shape for p in known.parameters()]
