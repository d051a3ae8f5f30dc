"""Reads a service's metrics as a scraper does, and holds them to what has to move."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from prometheus_client.parser import text_string_to_metric_families

from agentws.app import Service

__all__ = ["families", "moved", "until", "value"]

PATIENCE_S = 20.0


def families(service: Service) -> dict[str, str]:
    """The families that a scrape tells of: name → type."""
    return {each.name: each.type for each in text_string_to_metric_families(service.metrics.render().decode())}


def value(service: Service, sample: str, **labels: str) -> float:
    """A sample's value; 0 where there is none with these labels."""
    for family in text_string_to_metric_families(service.metrics.render().decode()):
        for each in family.samples:
            if each.name == sample and each.labels == labels:
                return float(each.value)
    return 0.0


@contextlib.contextmanager
def moved(service: Service, sample: str, *, by: float | None = None, **labels: str) -> Iterator[None]:
    """A sample that is greater after the block than before it. `by`: by exactly so much."""
    before = value(service, sample, **labels)
    yield
    change = value(service, sample, **labels) - before
    assert change > 0 if by is None else change == by, f"{sample} {labels} moved by {change}"


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for something that nothing tells of."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
