from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from ultralytics.utils import LOGGER


class Lines(logging.Handler):
    """What Ultralytics logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler = Lines()
    LOGGER.addHandler(handler)
    yield handler.said
    LOGGER.removeHandler(handler)
