"""The last reading: when faults are over, what is in doubt is asked again, and all is read anew from the beginning."""

from scripts.chaos.clients import Person
from scripts.chaos.link import Frame, Lost, Refused
from scripts.chaos.record import ENDS

__all__ = ["settle"]

ANSWER_S = 20.0


async def settle(person: Person) -> None:
    """Resolves what is in doubt, waits until every accepted run has ended, and reads everything anew."""
    for start in list(person.unanswered.values()):
        await person.start(start, None)
    await _wait_for_ends(person)
    await _read_threads(person)


async def _wait_for_ends(person: Person) -> None:
    for thread_id in sorted({str(answer["thread_id"]) for _, answer in person.accepted.values()}):
        while True:
            link = await person.connect(cut=False)
            try:
                await link.ask({"type": "subscribe", "thread_id": thread_id}, timeout_s=ANSWER_S)
                while not all(
                    person.ended(run)
                    for run, (_, answer) in person.accepted.items()
                    if answer["thread_id"] == thread_id
                ):
                    await link.until(lambda told: told.get("type") in ENDS, timeout_s=ANSWER_S)
            except (Lost, TimeoutError):
                continue
            except Refused:
                pass
            finally:
                link.cut()
            break


async def _read_threads(person: Person) -> None:
    link = await person.connect(cut=False, final=True)
    for thread_id in person.threads:

        def caught_up(told: Frame, name: str = thread_id) -> bool:
            return told["type"] == "caught_up" and told["thread_id"] == name

        with link.expected(caught_up) as coming:
            await link.ask({"type": "subscribe", "thread_id": thread_id}, timeout_s=ANSWER_S)
            await coming
        await link.ask({"type": "unsubscribe", "thread_id": thread_id}, timeout_s=ANSWER_S)
    link.cut()
