"""How many seeds and images a difference needs: against closed formulas, and as a user asks it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import nct, norm, t
from typer.testing import CliRunner

from gam_yolo import Comparison, UserError, compare, power
from gam_yolo.cli import app
from gam_yolo.evaluation import METRICS, read_coco, resample
from gam_yolo.evaluation.bootstrap import draw_weights
from gam_yolo.evaluation.statistics import Samples, difference
from gam_yolo.report.power import Noise, Plan

from .conftest import DataSet

IMAGES_ONLY = Noise(images=0.01**2, both=0.0, seeds=0.0, images_dof=5000, seeds_dof=4)


def test_many_images_and_no_seed_noise_are_a_z_test() -> None:
    for d in (0.01, 0.028, 0.04):
        assert IMAGES_ONLY.detection(d, 1, 3, 0.95) == pytest.approx(norm.sf(1.96 - d / 0.01), abs=0.003)
    plan = Plan(0.02, 0.95, pilot=1000, images=1000, seeds=3)
    expected = 1000 * ((norm.ppf(0.8) + norm.ppf(0.975)) * 0.01 / 0.02) ** 2
    assert plan.images_needed(IMAGES_ONLY, 0.8) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("seeds", [3, 8])
def test_seed_noise_alone_and_paired_is_a_t_test(seeds: int) -> None:
    noise = Noise(images=0.0, both=0.0, seeds=0.01**2, images_dof=5000, seeds_dof=4, paired=True)
    d = 0.02
    critical = t.ppf(0.975, seeds - 1)
    expected = nct.sf(critical, seeds - 1, d / 0.01 * math.sqrt(seeds))
    assert noise.detection(d, 1, seeds, 0.95) == pytest.approx(expected, abs=0.003)


def test_where_seeds_alone_cannot_help_there_is_no_number() -> None:
    plan = Plan(0.02, 0.95, pilot=500, images=500, seeds=3)
    noise = replace(IMAGES_ONLY, seeds=0.01**2)
    assert plan.seeds_needed(noise, 0.8) is None
    assert replace(plan, images=2000).seeds_needed(noise, 0.8) is not None
    assert plan.detectable(noise, 0.9) > plan.detectable(noise, 0.8) > 2


def test_the_named_number_is_the_smallest() -> None:
    noise = Noise(images=0.005**2, both=0.004**2, seeds=0.02**2, images_dof=60, seeds_dof=4)
    plan = Plan(0.03, 0.95, pilot=300, images=300, seeds=4)
    k, n = plan.seeds_needed(noise, 0.8), plan.images_needed(noise, 0.8)
    assert k is not None
    assert noise.detection(0.03, 1, k, 0.95) >= 0.8 > noise.detection(0.03, 1, k - 1, 0.95)
    assert n is None or noise.detection(0.03, n / 300, 4, 0.95) >= 0.8


def pilot(data_set: DataSet) -> Comparison:
    named = {"a": 0.5, "b": 0.6, "c": 0.7}
    variants = {
        name: [data_set.predictions(f"power-{name}", skill, s) for s in (1, 2, 3)] for name, skill in named.items()
    }
    return compare(variants, gt=data_set.truth, replicates=200)


def test_the_report_records_the_variances(data_set: DataSet) -> None:
    """As the evaluator gives them, and enough to compute the share of the seeds."""
    found = pilot(data_set)
    truth = read_coco(data_set.truth)
    weights = draw_weights(len(truth.ids), 200, 0)
    from gam_yolo.evaluation import read_detections

    def samples(name: str) -> Samples:
        paths = [data_set.folder / f"power-{name}-s{s}.json" for s in (1, 2, 3)]
        return resample(truth, [read_detections(path, truth) for path in paths], weights)

    own = difference(samples("b"), samples("a"))
    recorded = found.variants["b"].minus("a")["AP"]
    j = METRICS.index("AP")
    for key in ("image_variance", "seed_variance", "interaction", "image_dof"):
        assert getattr(recorded, key) == pytest.approx(getattr(own, key)[0, j], rel=1e-12)
    total = (recorded.image_variance or 0) + (recorded.seed_variance or 0)
    assert recorded.seed_share == pytest.approx((recorded.seed_variance or 0) / total)


def test_the_command_answers_from_a_report(data_set: DataSet, tmp_path: Path) -> None:
    found = pilot(data_set)
    found.save(tmp_path / "report")
    shown = CliRunner().invoke(app, ["power", str(tmp_path), "--detect", "8", "--comparisons", "1"])
    assert shown.exit_code == 0, shown.output
    answer = power(found, detect=8, comparisons=1)
    assert shown.output.strip() == str(answer)
    assert "To detect a difference of 8 points of mAP 50-95 (95 % confidence)" in shown.output
    assert "80% or 90%" in shown.output
    assert (answer.images, answer.seeds) == (60, 3)
    for need in (*answer.seeds_needed, *answer.images_needed):
        low, number, high = (math.inf if n is None else n for n in (need.low, need.number, need.high))
        assert low <= number <= high
    several = power(found, detect=8)
    assert several.comparisons == 2
    assert several.detectable[0] > answer.detectable[0]  # Holm's rule has its price
    assert power(found, detect=8, seeds=20, images=600, comparisons=1).detectable[0] < answer.detectable[0]


def test_what_a_report_lacks_is_said(data_set: DataSet, tmp_path: Path) -> None:
    found = pilot(data_set)
    old: dict[str, Any] = json.loads(found.to_json())
    for variant in old["variants"]:
        for tree in variant["differences"].values():
            for cell in tree["metrics"].values():
                for key in ("image_variance", "seed_variance", "interaction", "image_dof"):
                    cell.pop(key, None)
    (tmp_path / "report.json").write_text(json.dumps(old))
    with pytest.raises(UserError, match=r"report\.json: .* not record the variances of its differences\. Run compare"):
        power(tmp_path)
    few: dict[str, Any] = json.loads(found.to_json())
    for variant in few["variants"]:
        for tree in variant["differences"].values():
            for cell in tree["metrics"].values():
                cell.update(low=None, high=None, image_variance=None, verdict="too few images")
    (tmp_path / "report.json").write_text(json.dumps(few))
    with pytest.raises(
        UserError, match=r"differences have no interval, so their noise is not known\. Take a pilot with"
    ):
        power(tmp_path)
    single = compare(
        {n: data_set.predictions(f"single-{n}", s, 5) for n, s in (("a", 0.5), ("b", 0.9))}, gt=data_set.truth
    )
    with pytest.raises(UserError, match=r"one training seed, so the seeds' variance is not known\. Expected two"):
        power(single)
    with pytest.raises(UserError, match=r"there is no metric 'mAP'"):
        power(found, metric="mAP")
    with pytest.raises(UserError, match=r"is 1000\. Expected points, at most 100"):
        power(found, detect=1000)
    for wrong in ({"detect": 0}, {"seeds": 1}, {"images": -5}, {"comparisons": math.nan}):
        with pytest.raises(UserError, match=f"--{next(iter(wrong))} .* is "):
            power(found, **wrong)
    with pytest.raises(UserError, match=r"has no report\.json\. Expected the folder of a comparison or study"):
        power(tmp_path.parent)


def test_paired_seeds_are_a_paired_t_test() -> None:
    """Where images add nothing, the p-value is that of the t-test of the differences, seed by seed."""
    rng = np.random.default_rng(0)
    common = rng.normal(0.4, 0.02, (6, 1))
    values = [common + rng.normal(shift, 0.004, (6, 1)) for shift in (0.0, 0.006)]
    images = np.array([1000.0])
    wiggle = 1e-7 * np.tile([1.0, -1.0], 500)
    first, second = (Samples(v, v[..., None] + wiggle, images, images) for v in values)
    paired = difference(second, first, paired=True)
    from scipy.stats import ttest_rel

    assert paired.p[0] == pytest.approx(ttest_rel(values[1][:, 0], values[0][:, 0]).pvalue, rel=1e-3)
    assert paired.p[0] < difference(second, first).p[0]


def test_main_metric_of_classifiers(root: Path) -> None:
    found = power(root / "docs/results/cifar10.json", detect=1)
    assert found.metric == "top1"
    assert found == power(root / "docs/results/cifar10.json", detect=1, metric="top1")
    assert "from what the seeds change on single images" in str(found)
