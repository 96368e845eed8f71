"""The result of a comparison: what the records of `gam_yolo.report.schema` can be turned into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gam_yolo.errors import UserError, brief
from gam_yolo.report import render, tables
from gam_yolo.report.files import SavedResult
from gam_yolo.report.records import read_record
from gam_yolo.report.schema import SCHEMA, SCHEMA_VERSION, ComparisonRecord, VariantResult

if TYPE_CHECKING:
    import pandas

__all__ = ["Comparison"]


@dataclass(frozen=True)
class Comparison(ComparisonRecord, SavedResult):
    """The result of a comparison; `print` shows its main table, and `save` writes the four files of a report.

    Its attributes are those of `gam_yolo.report.schema.ComparisonRecord`.
    """

    SCHEMA = (SCHEMA, SCHEMA_VERSION)

    def to_files(self) -> Mapping[str, str]:
        """Return the text of each file of the report, the page first."""
        return render.files(self)[1]

    def to_markdown(self) -> str:
        """Return the text of `report.md`."""
        return render.markdown(self)

    def to_latex(self) -> str:
        """Return the main table for LaTeX, with the package booktabs."""
        from gam_yolo.report.paper import latex

        return latex(self)

    def save_figures(self, folder: str | Path) -> list[Path]:
        """Write the charts as PDF and SVG files in the widths of one and of two columns; return the files.

        Raises:
            UserError: They cannot be written.
        """
        from gam_yolo.report.paper import save_figures

        return save_figures(self, Path(folder))

    def to_dataframe(self) -> pandas.DataFrame:
        """Return a pandas data frame: one row per variant, class and metric, and one per difference.

        The columns are those of `report.csv`. `class` is empty for a value over all classes, `minus` for a value that
        is no difference.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("a data frame needs pandas, which is not installed", fix="Run pip install pandas") from None
        return pandas.DataFrame(tables.rows(self), columns=tables.COLUMNS)

    @classmethod
    def _arranged(cls, content: dict[str, Any], source: str) -> dict[str, Any]:
        variants = content.get("variants")
        if not isinstance(variants, list):
            raise UserError(f"is {brief(variants)}", at=f"{source}, variants", expected="a list")
        found = [read_record(VariantResult, v, f"{source}, variants[{i}]") for i, v in enumerate(variants)]
        return {**content, "variants": {variant.name: variant for variant in found}}

    def __str__(self) -> str:
        return tables.text(self)

    def _repr_html_(self) -> str:
        return tables.html(self)
