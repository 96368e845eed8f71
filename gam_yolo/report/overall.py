"""The result of a study of several datasets: a comparison on each, and the differences over all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from gam_yolo.errors import UserError, brief
from gam_yolo.evaluation import holm, verdict
from gam_yolo.evaluation.meta_analysis import Overall, over_datasets
from gam_yolo.report import charts, formatting
from gam_yolo.report.files import REPORT, SavedResult
from gam_yolo.report.formatting import (
    METRIC_NAMES,
    MINUS,
    listed,
    plain_text,
    printable,
    signed,
    signed_in_full,
    signed_span,
)
from gam_yolo.report.records import map_text
from gam_yolo.report.render import environment, interval
from gam_yolo.report.result import Comparison
from gam_yolo.report.schema import Difference

__all__ = ["StudyResult", "summarize"]

_COLUMNS = ("variant", "minus", "dataset", *(field.name for field in fields(Overall) if field.name != "datasets"))


@dataclass(frozen=True)
class StudyResult(SavedResult):
    """The result of a study of several datasets; `print` shows its table, and `save` writes the files of a report.

    Attributes:
        created: When it was made, in ISO 8601.
        name: Name of the study.
        headline: The result in one sentence.
        notes: What to know before trusting it.
        level: Confidence level of intervals and verdicts.
        datasets: The comparison on each dataset, without its pictures, by the name of the dataset.
        overall: The differences over the datasets in the main metric: `overall["gam"]["plain"]` is gam minus plain.
    """

    created: str
    name: str
    headline: str
    notes: tuple[str, ...]
    level: float
    datasets: Mapping[str, Comparison]
    overall: Mapping[str, Mapping[str, Overall]]

    SCHEMA = ("gam-yolo/study", 1)

    @property
    def baseline(self) -> str:
        """Name of the variant that the others are compared with."""
        return next(iter(self.datasets.values())).baseline

    @property
    def metric(self) -> str:
        """Name of the main metric of the task."""
        return METRIC_NAMES[next(iter(self.datasets.values())).about.main]

    @property
    def references(self) -> tuple[str, ...]:
        """The baseline and, if there is one, the control."""
        return max((comparison.references for comparison in self.datasets.values()), key=len)

    def difference(self, variant: str, reference: str, dataset: str) -> Difference | None:
        """Return a difference on one dataset in the main metric; None where there is none."""
        return _difference(self.datasets[dataset], variant, reference)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `report.json`, that of each dataset's own included."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        overall = {name: {key: asdict(one) for key, one in found.items()} for name, found in self.overall.items()}
        datasets = {name: comparison.to_dict() for name, comparison in self.datasets.items()}
        content |= {"datasets": datasets, "overall": overall}
        return {"schema": self.SCHEMA[0], "schema_version": self.SCHEMA[1], **content}

    def to_markdown(self) -> str:
        """Return the text of `report.md`."""
        shown = map_text(self, formatting.markdown)
        return environment().get_template("study.md.j2").render(report=shown)

    def to_csv(self) -> str:
        """Return the text of `report.csv`: a row for each difference on each dataset, and over all."""
        out = io.StringIO()
        writer = csv.DictWriter(out, _COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for variant, reference, overall in self.rows():
            names = {"variant": variant, "minus": reference}
            found = {dataset: self.difference(variant, reference, dataset) for dataset in self.datasets}
            rows = [{"dataset": dataset, **asdict(one)} for dataset, one in found.items() if one]
            for row in (*rows, {"dataset": "", **asdict(overall)}):
                writer.writerow({key: formatting.cell(value) for key, value in (names | row).items()})
        return out.getvalue()

    def to_html(self) -> str:
        """Return the text of `report.html`."""
        shown = map_text(self, printable)
        template = environment().get_template("study.html.j2")
        return template.render(report=shown, chart=_chart(shown))

    def to_files(self) -> Mapping[str, str]:
        """Return the text of each file of the report. The page links to those of the datasets, `../NAME/report/`."""
        texts = (self.to_html(), self.to_markdown(), self.to_json(), self.to_csv())
        return dict(zip(REPORT, texts, strict=True))

    @classmethod
    def _arranged(cls, content: dict[str, Any], source: str) -> dict[str, Any]:
        datasets = content.get("datasets")
        if not isinstance(datasets, dict):
            raise UserError(f"is {brief(datasets)}", at=f"{source}, datasets", expected="an object")
        found = {name: Comparison.from_dict(own, f"{source}, {name}") for name, own in datasets.items()}
        return {**content, "datasets": found}

    def rows(self) -> Iterator[tuple[str, str, Overall]]:
        """Yield each difference over the datasets: the variant, what is subtracted, and the difference."""
        for variant, found in self.overall.items():
            for reference, overall in found.items():
                yield variant, reference, overall

    def __str__(self) -> str:
        table = [("", *self.datasets, "overall")]
        for variant, reference, overall in self.rows():
            own = (self.difference(variant, reference, dataset) for dataset in self.datasets)
            cells = (signed_in_full(found) if found else "" for found in own)
            table.append((f"{variant} {MINUS} {reference}", *cells, f"{signed_in_full(overall)} {overall.verdict}"))
        return plain_text(self.headline, table, self.notes)


def summarize(name: str, datasets: Mapping[str, Comparison], notes: Sequence[str] = ()) -> StudyResult:
    """Average the differences of a study over its datasets.

    The differences to the baseline are one family of tests, those to the control another (Holm). A dataset on which a
    difference has no interval is left out of it, and a note says so.

    Args:
        name: Name of the study.
        datasets: The comparison on each dataset, of the same variants with the same baseline; two or more.
        notes: What else a reader has to know.
    """
    first = next(iter(datasets.values()))
    level, references = first.statistics.level, max((c.references for c in datasets.values()), key=len)
    variants = list(dict.fromkeys(variant for comparison in datasets.values() for variant in comparison.variants))
    found: dict[str, dict[str, Overall]] = {}
    said, without = list(notes), []
    for reference in references:
        family = {}
        for variant in variants:
            own = {key: _difference(comparison, variant, reference) for key, comparison in datasets.items()}
            known = {key: d for key, d in own.items() if d and None not in (d.value, d.low, d.high)}
            if len(known) > 1:
                family[variant] = _over(known, level)
            if any(own.values()) and len(known) < len(datasets):
                others = ", ".join(key for key in datasets if key not in known)
                without.append(f"{variant} {MINUS} {reference} on {others}")
        corrected = holm(np.array([one.p for one in family.values()]))
        for (variant, one), p in zip(family.items(), corrected, strict=True):
            judged = replace(one, p_holm=float(p), verdict=verdict(one.value, float(p), level))
            found.setdefault(variant, {})[reference] = judged
    if without:
        said.append(f"There is no interval for {'; '.join(without)}. What is over the datasets is without these.")
    if any(len(one.datasets) == 2 for own in found.values() for one in own.values()):
        said.append(
            "Two datasets say little about others: the overall interval has Student's factor for one degree of "
            "freedom, 12.7 at 95 %. The interval for the mean over these two alone is narrower."
        )
    said += [f"{key}: {warning}" for key, comparison in datasets.items() for warning in comparison.warnings]
    return StudyResult(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        name=name,
        headline=_headline(found, first.baseline, level, len(datasets), METRIC_NAMES[first.about.main]),
        notes=tuple(said),
        level=level,
        datasets={key: replace(comparison, pictures=()) for key, comparison in datasets.items()},
        overall={variant: found[variant] for variant in variants if variant in found},
    )


def _difference(comparison: Comparison, variant: str, reference: str) -> Difference | None:
    own = comparison.variants.get(variant)
    found = own.differences[reference][comparison.about.main] if own and reference in own.differences else None
    return found if found and found.value is not None else None


def _over(known: Mapping[str, Difference], level: float) -> Overall:
    values = [d.value or 0.0 for d in known.values()]
    halves = [((d.high or 0.0) - (d.low or 0.0)) / 2 for d in known.values()]
    return replace(over_datasets(values, halves, level), datasets=tuple(known))


def _headline(
    found: Mapping[str, Mapping[str, Overall]], baseline: str, level: float, datasets: int, metric: str
) -> str:
    """Return the result in one sentence."""
    clear: list[str] = []
    alike: list[str] = []
    for variant, overall in sorted(
        ((variant, own[baseline]) for variant, own in found.items() if baseline in own),
        key=lambda pair: pair[1].verdict == "no detectable difference",
    ):
        # Units and level are given once, at the first interval.
        unit, prefix = ("", "") if clear or alike else (" points", f"{100 * level:g} % interval ")
        span = f"{signed(overall.value)}{unit}, {prefix}{signed_span(overall)}"
        if overall.verdict != "no detectable difference":
            clear.append(f"{variant} is {overall.verdict} than {baseline} in {metric} ({span})")
            continue
        if overall.here_low > 0 or overall.here_high < 0:
            span += f"; over these alone {signed(overall.here_low)} to {signed(overall.here_high)}"
        alike.append(f"{variant} ({span})")
    if alike:
        show = "shows" if len(alike) == 1 else "show"
        clear.append(f"{listed(alike)} {show} no detectable difference from {baseline} in {metric}")
    return f"Over {datasets} datasets, {'; '.join(clear) or 'there is nothing to compare'}."


def _chart(result: StudyResult) -> str:
    """Draw the differences on each dataset and over all, one group of rows per variant."""
    number = {name: i for i, name in enumerate(next(iter(result.datasets.values())).variants)}
    groups = []
    for variant, reference, overall in result.rows():
        found = [
            *((name, result.difference(variant, reference, name)) for name in result.datasets),
            ("overall", overall),
        ]
        rows = [interval(name, one, number.get(variant, 1), signed(one.value)) for name, one in found if one]
        groups.append((f"{variant} {MINUS} {reference}", [*rows[:-1], replace(rows[-1], pooled=True)]))
    metric = result.metric
    return (
        charts.forest_groups(f"Difference in {metric} on each dataset", groups, f"points of {metric}").html()
        if groups
        else ""
    )
