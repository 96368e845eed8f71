"""Differences over datasets, against other formulas for the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from gam_yolo.evaluation.meta_analysis import over_datasets

VALUES = [0.031, -0.012, 0.054, 0.002]


def test_data_sets_that_vary_more_than_their_errors_are_a_sample_for_students_test() -> None:
    errors = [0.004, 0.006, 0.002, 0.01]
    found = over_datasets(VALUES, [norm.ppf(0.95) * e for e in errors], 0.9)
    theirs = ttest_1samp(VALUES, 0)
    low, high = theirs.confidence_interval(0.9)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, theirs.pvalue))
    # The variance of the estimates is tau² and, on average, the squared errors.
    assert found.tau**2 + np.mean(np.square(errors)) == pytest.approx(np.var(VALUES, ddof=1))
    assert found.i2 == pytest.approx(found.tau**2 / np.var(VALUES, ddof=1))
    # The mean of independent estimates has a quarter of the root of their summed squares.
    assert found.here_high - found.value == pytest.approx(norm.ppf(0.95) * np.sqrt(np.square(errors).sum()) / 4)


def test_data_sets_that_agree_by_chance_get_an_interval_of_their_errors() -> None:
    found = over_datasets([0.01, 0.0101, 0.0099], [norm.ppf(0.975) * 0.02] * 3)
    assert (found.tau, found.i2) == (0, 0)
    assert found.high - found.value == pytest.approx(4.302653 * 0.02 / 3**0.5)  # t for 2 degrees of freedom
    assert found.new_high is not None
    assert found.new_high - found.value == pytest.approx(12.706205 * 0.02 / 3**0.5)  # and for 1


def test_two_data_sets_have_students_factor_of_one_degree_of_freedom_and_say_nothing_of_a_third() -> None:
    found = over_datasets([0.01, 0.03], [0.002, 0.002])
    assert found.high - found.value == pytest.approx(12.706205 * 0.01)
    assert found.new_low is found.new_high is None


def test_variants_that_do_the_same_everywhere_do_not_differ() -> None:
    found = over_datasets([0.0, 0.0], [0.0, 0.0])
    assert (found.value, found.low, found.high, found.p, found.i2) == (0, 0, 0, 1, 0)


def test_the_table_of_the_simulation_is_that_of_its_file(root: Path) -> None:
    content = json.loads((root / "docs/results/dataset-coverage.json").read_text())
    text = (root / "docs/study.md").read_text()
    table = text.partition("<!-- dataset coverage -->\n")[2].partition("<!-- /dataset coverage -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert content["simulations"] == 2000
    for row, found in zip(rows, content["scenarios"], strict=True):
        keys = ("overall", "here", "new", "weighted", "width", "weighted_width")
        assert row[4:] == [f"{found[key]:.1f}" if key in found else "\N{EN DASH}" for key in keys]
        assert (row[0], row[2], row[3]) == (str(len(found["scales"])), str(found["seeds"]), str(found["tau"]))
    for key, said in (("overall", "overall interval covers {} %"), ("weighted", "as low as {} %"), ("new", "to {} %")):
        assert said.format(min(found[key] for found in content["scenarios"] if key in found)) in " ".join(text.split())
