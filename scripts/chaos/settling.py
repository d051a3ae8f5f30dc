"""The last reading: when faults are over, what is in doubt is asked again, and all is read anew from the beginning."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from scripts.chaos.clients import Person
from scripts.chaos.link import Frame, Link, Lost, Refused
from scripts.chaos.record import ENDS
from scripts.chaos.web import Web

__all__ = ["settle"]

T = TypeVar("T")

ANSWER_S = 20.0
QUIET_S = 2.0
"""A connection that is told nothing for so long, when all runs have ended, has been told everything."""


async def settle(person: Person) -> None:
    """Resolves what is in doubt, waits until every accepted run has ended, and reads everything anew."""
    watching = [link for link in person.links if link.is_open]
    for link in watching:
        link.keep()
    for start in list(person.unanswered.values()):
        done = await person.start(start, None)
        if done is not None:
            done[1].cut()
    epochs: dict[str, str] = {}
    for thread_id in sorted(set(person.threads)):
        epochs[thread_id] = await _again(person, partial(_wait_for_ends, person, thread_id))
    await _again(person, partial(_ask_what_is_gone, person, epochs))
    threads = [name for name, epoch in epochs.items() if epoch]
    await _again(person, partial(_read, threads), final=True)
    await _read_over_http(person, threads)
    await asyncio.gather(*(_watch(link) for link in watching))


async def _again(person: Person, ask: Callable[[Link], Awaitable[T]], *, final: bool = False) -> T:
    """Asks over one connection, and over another where that one is lost."""
    while True:
        link = await person.connect(cut=False, final=final)
        try:
            return await ask(link)
        except (Lost, TimeoutError):
            link.log.final = False
        finally:
            link.cut()


async def _wait_for_ends(person: Person, thread_id: str, link: Link) -> str:
    """Waits until every run of the thread has ended; returns its epoch, or nothing if the thread is gone."""
    try:
        epoch = str((await link.ask({"type": "subscribe", "thread_id": thread_id}, timeout_s=ANSWER_S))["epoch"])
    except Refused as refused:
        if refused.retryable:
            raise Lost from refused
        return ""
    while True:
        with link.expected(lambda told: told.get("type") in ENDS) as ending:
            mine = (run for run, (_, told) in person.accepted.items() if told["thread_id"] == thread_id)
            if all(person.ended(run) for run in mine if person.accepted[run][1]["epoch"] == epoch):
                return epoch
            async with asyncio.timeout(ANSWER_S):
                await ending


async def _ask_what_is_gone(person: Person, epochs: dict[str, str], link: Link) -> None:
    """Runs of threads that are gone have ended: their keys say so."""
    for start, told in person.accepted.values():
        while told["epoch"] != epochs.get(told["thread_id"]):
            again = await link.ask({**start.frame, "subscribe": False}, timeout_s=ANSWER_S)
            if again.get("status") not in ("queued", "running"):
                break
            await asyncio.sleep(0.5)


async def _read(threads: list[str], link: Link) -> None:
    """Every thread from 0, its history, and the list."""
    for thread_id in threads:

        def caught_up(told: Frame, name: str = thread_id) -> bool:
            return bool(told.get("type") == "caught_up" and told.get("thread_id") == name)

        with link.expected(caught_up) as coming:
            await link.ask({"type": "subscribe", "thread_id": thread_id, "after_seq": 0}, timeout_s=ANSWER_S)
            async with asyncio.timeout(ANSWER_S * 3):
                await coming
        await link.ask({"type": "unsubscribe", "thread_id": thread_id}, timeout_s=ANSWER_S)
        await _pages(partial(link.ask, timeout_s=ANSWER_S), {"type": "get_thread_history", "thread_id": thread_id})
    await _pages(partial(link.ask, timeout_s=ANSWER_S), {"type": "list_threads"})


async def _pages(ask: Callable[[Frame], Awaitable[Frame]], frame: Frame) -> None:
    before: str | None = None
    while True:
        told = await ask({**frame, "limit": 40} | ({"before": before} if before else {}))
        before = told.get("next_before")
        if before is None:
            return


async def _read_over_http(person: Person, threads: list[str]) -> None:
    """The same over HTTP."""
    for thread_id in threads:
        await _web_again(person, partial(_read_events, thread_id), via="page")
    await _web_again(person, partial(_read_lists, threads), via="http")


async def _web_again(person: Person, ask: Callable[[Web], Awaitable[None]], *, via: str) -> None:
    """Asks, and again where there was no answer."""
    while True:
        async with person.web(via, final=True) as web:
            try:
                return await ask(web)
            except Lost:
                web.is_not_final()
        await person.pause(1.0)


async def _read_events(thread_id: str, web: Web) -> None:
    seq, last = await web.page(thread_id, after_seq=0, limit=1000)
    while seq < last:
        seq, last = await web.page(thread_id, after_seq=seq, limit=1000)


async def _read_lists(threads: list[str], web: Web) -> None:
    for thread_id in threads:
        await _pages(partial(_history, web, thread_id), {})
    await _pages(partial(_threads, web), {})


async def _history(web: Web, thread_id: str, frame: Frame) -> Frame:
    return await web.history(thread_id, limit=200, before=frame.get("before"))


async def _threads(web: Web, frame: Frame) -> Frame:
    return await web.threads(limit=200, before=frame.get("before"))


async def _watch(link: Link) -> None:
    """Waits until the connection is told nothing more; then it must have been told everything."""
    seen = -1
    while link.is_open and seen != link.frames:
        seen = link.frames
        await asyncio.sleep(QUIET_S)
    link.log.open_at_end = link.is_open
    link.cut()
