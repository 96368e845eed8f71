from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="opening the page needs pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("opening the page needs chromium on the PATH (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 400), ("dark", 400)])
def test_the_page_is_whole(browser: Any, report: Path, scheme: str, width: int) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = (report / "report.html").as_uri()
    page.goto(address)
    page.wait_for_load_state("networkidle")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]

    pictures = page.evaluate("[...document.images].map(i => [i.alt, i.naturalWidth])")
    assert len(pictures) >= 6
    assert all(alt and size > 50 for alt, size in pictures)
    charts = page.evaluate(
        "[...document.querySelectorAll('svg.chart')].filter(s => s.checkVisibility() && !s.closest('details'))"
        ".map(s => [s.getAttribute('aria-label'), s.getBoundingClientRect().width, s.querySelectorAll('*').length,"
        " s.classList.contains('narrow')])"
    )
    assert len(charts) >= 4
    assert len({label for label, *_ in charts}) == len(charts)  # each in one of its forms
    assert all(label and size > 300 and parts > 20 for label, size, parts, _ in charts)
    assert {narrow for *_, narrow in charts} == {width == 400}

    assert page.evaluate("document.documentElement.scrollWidth") <= width  # wide tables scroll by themselves
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(v) for v in background[4:-1].split(",")) < 200) == (scheme == "dark")
    text = page.inner_text("body")
    for heading in ("Result", "Precision and recall", "Classes", "Protocol", "differ most"):
        assert heading in text
    context.close()
