"""What tests of logs change in their process is put back."""

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """What `configure` changes is global: it is put back after the test."""
    root = logging.getLogger()
    named = [logging.getLogger(name) for name in ("agentws", "uvicorn.error")]
    handlers, root.handlers = root.handlers, []
    levels = {each: each.level for each in (root, *named)}
    filters = {each: list(each.filters) for each in named}
    yield
    structlog.reset_defaults()
    root.handlers = handlers
    for logger, level in levels.items():
        logger.setLevel(level)
    for logger, kept in filters.items():
        logger.filters = kept
