"""A difference over several datasets, for the few datasets that a study has.

Dataset i estimates its own true difference, d_i, with an interval of half-width h_i. Its error variance v_i is taken
as (h_i / z)², with the normal quantile z. This includes Student's factor for few seeds, which makes it cautious. True
differences vary between datasets with the variance tau² (random effects). Every dataset counts the same:

    mean = sum of d_i / k,    S = max(sample variance of d_i, mean of v_i),    tau² = S - mean of v_i

- The interval is mean ± t sqrt(S / k), with Student's quantile for k - 1 degrees of freedom. With the sample variance
  for S it is the interval of Hartung, Knapp, Sidik and Jonkman for equal weights. Its modified form is never narrower
  than the errors of the datasets alone imply; hence the maximum (Röver, Knapp and Friede, BMC Medical Research
  Methodology 15:99, 2015). tau² is the estimate of Hedges and Olkin (Statistical Methods for Meta-Analysis, 1985).
- Weights of 1 / (v_i + tau²) are usual. They make narrower intervals where one dataset is much more precise than the
  others. But tau² is poorly known from few datasets, and such weights then cover too rarely: in our simulation down to
  88 % instead of 95 %. Equal weights cover at least as often as they say whatever the v_i are: Student's test of one
  sample is conservative for unequal variances (Benjamini, The American Statistician 37, 1983). Shuster (Statistics in
  Medicine 29, 2010) has more reasons for equal weights.
- The interval for the true difference on a new dataset is mean ± t sqrt(tau² + S / k) with k - 2 degrees of freedom
  (Higgins, Thompson and Spiegelhalter, Journal of the Royal Statistical Society A 172, 2009). It needs three datasets.
- I² = tau² / S is the share of the variance between the estimates that their errors do not explain (Higgins and
  Thompson, Statistics in Medicine 21, 2002).
- The interval for the mean over these datasets, and no others, does not need tau². Its half-width is sqrt(sum of
  h_i²) / k, with the half-widths h_i of the datasets' own intervals ("fixed effects": Rice, Higgins and Lumley,
  Journal of the Royal Statistical Society A 181, 2018).

With two datasets Student's quantile is 12.7 at 95 %. The interval is valid and very wide: two datasets say little
about a third. `docs/study.md` has the simulated coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from gam_yolo.evaluation.statistics import Verdict

__all__ = ["Overall", "over_datasets"]


@dataclass(frozen=True)
class Overall:
    """A difference over datasets.

    Attributes:
        value: The mean of the differences.
        low: Lower end of its interval, for datasets like these.
        high: Upper end of it.
        p: Two-sided p-value against zero, for datasets like these.
        here_low: Lower end of the interval for the mean over these datasets alone.
        here_high: Upper end of it.
        new_low: Lower end of the interval for the true difference on a new dataset; None with two datasets.
        new_high: Upper end of it.
        tau: Standard deviation of the true differences between datasets.
        i2: Share of the variance between the estimates that their errors do not explain, from 0 to 1.
        datasets: Names of the datasets.
        p_holm: The p-value, corrected by Holm's rule for the number of variants.
        verdict: What follows from `p_holm`.
    """

    value: float
    low: float
    high: float
    p: float
    here_low: float
    here_high: float
    new_low: float | None
    new_high: float | None
    tau: float
    i2: float
    datasets: tuple[str, ...] = ()
    p_holm: float | None = None
    verdict: Verdict | None = None


def over_datasets(values: Sequence[float], halves: Sequence[float], level: float = 0.95) -> Overall:
    """Average differences over datasets.

    Args:
        values: The difference on each dataset, two or more.
        halves: Half the width of each one's own interval, at the same level.
        level: Confidence level of all intervals.

    Examples:
        >>> found = over_datasets([0.01, 0.03, 0.02], [0.0196, 0.0196, 0.0196])
        >>> f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
        '0.020 (-0.005 to 0.045)'
    """
    k, mean = len(values), float(np.mean(values))
    own = float(np.mean(np.square(halves)) / ndtri((1 - level) / 2) ** 2)
    spread = max(float(np.var(values, ddof=1)), own)
    error, tau2 = math.sqrt(spread / k), spread - own

    def t(dof: int) -> float:
        return float(-stdtrit(dof, (1 - level) / 2))

    half, here = t(k - 1) * error, math.hypot(*halves) / k
    new = t(k - 2) * math.sqrt(tau2 + spread / k) if k > 2 else None
    return Overall(
        value=mean,
        low=mean - half,
        high=mean + half,
        p=float(2 * stdtr(k - 1, -abs(mean) / error)) if error else 1.0,
        here_low=mean - here,
        here_high=mean + here,
        new_low=None if new is None else mean - new,
        new_high=None if new is None else mean + new,
        tau=math.sqrt(tau2),
        i2=tau2 / spread if spread else 0.0,
    )
