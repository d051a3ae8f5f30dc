"""What the clients of the load do, each a coroutine over one Person that ends by itself or when it is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable

from scripts.chaos.clients import Person
from scripts.chaos.link import Link, Lost, Refused
from scripts.chaos.record import ENDS

__all__ = ["BEHAVIOURS", "Behaviour"]

Behaviour = Callable[[Person], Awaitable[None]]

FOLLOW_S = 20.0


async def follow(person: Person, link: Link, thread_id: str, run_id: str) -> None:
    """Reads on, over as many connections as it takes, until the run has ended or it has taken long enough."""
    try:
        async with asyncio.timeout(FOLLOW_S):
            while not person.ended(run_id):
                if link.is_open:
                    try:
                        await link.until(
                            lambda told: told.get("run_id") == run_id and told["type"] in ENDS, timeout_s=FOLLOW_S
                        )
                    except Lost:
                        continue
                    return
                link = await person.connect()
                epoch, seq = link.log.recording.held(person.name, thread_id)
                frame = {"type": "subscribe", "thread_id": thread_id, "after_seq": seq}
                try:
                    await link.ask({**frame, "epoch": epoch} if epoch else frame, timeout_s=person.patience_s)
                except Lost:
                    continue
    except (Refused, TimeoutError):
        return


async def echo(person: Person) -> None:
    link = await person.connect()
    for _ in range(person.rng.randint(1, 5)):
        thread_id = person.rng.choice(person.threads)
        done = await person.start(person.new_start("echo", thread_id), link)
        if done is not None:
            answer, link = done
            await follow(person, link, thread_id, answer["run_id"])
    link.cut()


BEHAVIOURS: tuple[tuple[Behaviour, int], ...] = ((echo, 1),)
