"""What the documentation site has beside `docs/`: the start pages, an API reference, and a sample report.

MkDocs calls the functions here (`hooks` in mkdocs.yml). The documents stay as GitHub shows them: links between `docs/`
and the other folders are rewritten for the site, and links to files that the site lacks become text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gam_yolo
from gam_yolo.report.render import page as report_page
from gam_yolo.report.result import Comparison

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "README.zh-CN.md": "index.zh-CN.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Documents of the top folder, and their pages."""
REPORT = "sample-report.html"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in `docs/`."""
    from mkdocs.structure.files import File

    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text("utf-8")))
    files.append(File.generated(config, "api.md", content=reference()))
    committed = ROOT / "docs/results/voc-small.json"
    report = Comparison.from_dict(json.loads(committed.read_text("utf-8")), str(committed))
    files.append(File.generated(config, REPORT, content=report_page(report)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite a page's links for the site."""
    del config
    source = {target: Path(name) for name, target in PAGES.items()}.get(
        page.file.src_uri, Path("docs", page.file.src_uri)
    )

    def rewrite(match: re.Match[str]) -> str:
        text, link = match["text"], match["link"]
        path, _, anchor = link.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        target = (ROOT / source.parent / path).resolve().relative_to(ROOT).as_posix()
        target = PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        if files.get_file_from_path(target) is None:
            return text  # not on the site
        up = "../" * page.file.src_uri.count("/")
        return f"{match['mark']}[{text}]({up}{target}{'#' + anchor if anchor else ''})"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)  # code has no links
    parts[::2] = [
        re.sub(r"(?P<mark>!?)\[(?P<text>[^\]]*)\]\((?P<link>[^)\s]+)\)", rewrite, part) for part in parts[::2]
    ]
    if page.file.src_uri == "results.md":
        parts.append(f"\n\nA report as `gam-yolo compare` writes it: [the study on VOC]({REPORT}).\n")
    return "".join(parts)


def reference() -> str:
    """Return the API reference: the public names, each by the module that defines it."""
    lines = ["# API reference", ""]
    for name in sorted(gam_yolo.__all__):
        found = getattr(gam_yolo, name)
        module = getattr(found, "__module__", "")
        if module.startswith("gam_yolo") and hasattr(found, "__qualname__"):
            lines += [f"::: {module}.{found.__qualname__}", ""]
    return "\n".join(lines)
