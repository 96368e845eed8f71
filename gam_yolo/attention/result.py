"""What `look` returns: what the records of `gam_yolo.attention.schema` can be turned into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gam_yolo.attention import page
from gam_yolo.attention.schema import SCHEMA, SCHEMA_VERSION, LookRecord
from gam_yolo.report.files import SavedResult, write_files

__all__ = ["LookResult"]


@dataclass(frozen=True)
class LookResult(LookRecord, SavedResult):
    """The result of `look`; `print` shows it as a table, and `save` writes `look.html`, `look.json` and the drawings.

    Its attributes are those of `gam_yolo.attention.schema.LookRecord`.
    """

    SCHEMA = (SCHEMA, SCHEMA_VERSION)

    def to_files(self) -> Mapping[str, str | bytes]:
        """Return the content of each file: the page, the JSON file, and the drawings as PNG files."""
        return {"look.html": page.page(self), "look.json": self.to_json(), **page.drawings(self)}

    def save(self, folder: str | Path) -> Path:
        """Write the files, as `SavedResult.save` does; the drawings of an earlier look in the same folder go."""
        images = filter(Path.is_file, Path(folder, "pictures").glob("*.png"))
        earlier, files = {*filter(page.is_drawing, images)}, self.to_files()
        write_files(Path(folder), files)
        for drawing in earlier - {Path(folder, name) for name in files}:
            drawing.unlink(missing_ok=True)
        return Path(folder, "look.html")

    def __str__(self) -> str:
        lines = []
        for model in self.models:
            lines.append(f"{model.name}: {self.images} image{'s' if self.images != 1 else ''}")
            for block in model.blocks:
                lines.append(f"  {block.label}: {block.finding}")
                lines += [f"    {gate.name}: {gate.finding}" for gate in block.gates]
            for worth in model.worth:
                lost = worth.lost
                span = "" if lost.low is None else f" ({100 * lost.low:+.1f} to {100 * (lost.high or 0):+.1f})"
                lines.append(f"  {worth.block}: worth {100 * (lost.value or 0):+.1f} points of mAP{span}")
            if model.faithfulness:
                lines.append(f"  heat maps: {model.faithfulness.finding}")
        return "\n".join([*lines, *self.notes])
