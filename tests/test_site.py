"""The documentation site builds without a warning, and its pages need nothing from elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gam_yolo


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(root / "mkdocs.yml"), "-d", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_document_is_a_page_and_is_found_by_the_search(site: Path, root: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text("utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    documents = {f"{path.stem}.html" for path in (root / "docs").glob("*.md")}
    assert documents | {"index.html", "index.zh-CN.html", "api.html"} <= found | {""}


def test_the_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*src="(https?:[^"]+)"', page.read_text("utf-8"))
        loaded += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="(https?:[^"]+)"', page.read_text("utf-8"))
        assert not loaded, page.name


def test_the_search_works_in_pages_that_are_opened_as_files(site: Path) -> None:
    """A browser gives such a page neither the index as JSON nor a worker: both come as scripts of the site."""
    for page in site.rglob("*.html"):
        scripts = re.findall(r'<script[^>]*src="([^"]+)"', page.read_text("utf-8"))
        if page.name not in ("404.html", "sample-report.html"):
            shims = [page.parent / script for script in scripts if "iframe-worker" in script]
            assert len(shims) == 1, page.name
            assert "window.Worker = " in shims[0].read_text("utf-8")
    inlined = (site / "search/search_index.js").read_text("utf-8").removeprefix("var __index = ")
    assert json.loads(inlined) == json.loads((site / "search/search_index.json").read_text("utf-8"))


def test_a_search_in_a_file_finds_pages(site: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    playwright = pytest.importorskip("playwright.sync_api")
    if browser is None:
        pytest.skip("there is no Chromium")
    asked: list[str] = []
    with playwright.sync_playwright() as started:
        page = started.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "look.html").as_uri())
        page.locator("input[name=query]").press_sequentially("gain", delay=100)
        found = page.locator(".md-search-result__link")
        found.first.wait_for(timeout=60_000)
        assert any("results.html" in link.get_attribute("href") for link in found.all())
    assert all(url.startswith(("file:", "data:")) for url in asked)


def test_links_lead_to_pages_and_files_of_the_site(site: Path) -> None:
    for page in site.glob("*.html"):
        if page.name == "404.html":  # its links start at the server's root
            continue
        for link in re.findall(r'<a [^>]*href="([^"#]+)', page.read_text("utf-8")):
            assert re.match(r"https?:|mailto:|data:", link) or (site / link).exists(), f"{page.name}: {link}"


def test_the_reference_has_every_public_name(site: Path) -> None:
    text = (site / "api.html").read_text("utf-8")
    described = {"blocks", "BLOCKS"}  # a package that can be called, and a mapping: python.md has them
    missing = [name for name in gam_yolo.__all__ if not re.search(rf'id="[\w.]*\b{name}"', text)]
    assert set(missing) <= described | {"__version__"}


def test_the_sample_report_is_a_report(site: Path) -> None:
    text = (site / "sample-report.html").read_text("utf-8")
    assert "gam" in text
    assert text.count("<svg") >= 2
