"""What the clients of the load do, each a coroutine over one Person that ends by itself or when it is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from scripts.chaos.clients import GONE, Person, Start
from scripts.chaos.link import Frame, Link, Lost, Refused
from scripts.chaos.record import ENDS

__all__ = ["BEHAVIOURS", "Behaviour", "create"]

Behaviour = Callable[[Person], Awaitable[None]]

FOLLOW_S = 20.0
_SLOW_BYTES_PER_S = (6_000.0, 40_000.0)


def _subscribe(person: Person, thread_id: str) -> Frame:
    """A subscription from where the user is."""
    epoch, seq = person.recording.held(person.name, thread_id)
    frame: Frame = {"type": "subscribe", "thread_id": thread_id, "after_seq": seq}
    return {**frame, "epoch": epoch} if epoch else frame


async def _follow(person: Person, link: Link, answer: Frame, *, bytes_per_s: float = 0) -> Link:
    """Reads on, over as many connections as it takes, until the run has ended or it has taken long enough."""
    thread_id, run_id = str(answer["thread_id"]), str(answer["run_id"])

    def ends(told: Frame) -> bool:
        return told.get("run_id") == run_id and told.get("type") in ENDS

    with suppress(Refused, TimeoutError):
        async with asyncio.timeout(FOLLOW_S):
            while not person.ended(run_id):
                with suppress(Lost):
                    if not link.is_open:
                        link = await person.connect(bytes_per_s=bytes_per_s)
                        person.recording.counts["resumed"] += 1
                        with link.expected(ends) as coming:
                            await link.ask(_subscribe(person, thread_id), timeout_s=person.patience_s)
                            await coming
                    else:
                        await link.until(ends, timeout_s=FOLLOW_S)
    return link


def _some_start(person: Person, thread_id: str | None, **options: object) -> Start:
    rng = person.rng
    (agent,) = rng.choices(("echo", "tool", "slow", "steady", "fails"), (4, 5, 2, 3, 1))
    if rng.random() < 0.1:
        options["context"] = {"tab": rng.randrange(5)}
    if rng.random() < 0.02:
        options["on_disconnect"] = "stop"
    if rng.random() < 0.05:
        options["subscribe"] = False
    return person.new_start(agent, thread_id, seconds=rng.choice((0.0, 0.5, 1.0, 3.0)), **options)


async def converse(person: Person) -> None:
    """One run after another in a thread, an old one or a new one."""
    link = await person.connect()
    for _ in range(person.rng.randint(1, 3)):
        thread_id = None if person.rng.random() < 0.05 else person.some_thread()
        done = await person.start(_some_start(person, thread_id), link)
        if done is not None:
            link = await _follow(person, done[1], done[0])
    link.cut()


async def crowd(person: Person) -> None:
    """Several starts in one thread at once."""
    thread_id, link = person.some_thread(), await person.connect()
    modes = ["queue"] * 4 + ["interrupt", "reject"]
    starts = [_some_start(person, thread_id, if_busy=person.rng.choice(modes)) for _ in range(person.rng.randint(3, 6))]
    done = await asyncio.gather(*(person.start(start, link) for start in starts))
    accepted = [each for each in done if each is not None]
    for answer, other in accepted[-1:]:
        (await _follow(person, other, answer)).cut()
    link.cut()


async def stop(person: Person) -> None:
    """A slow run, alone or with others behind it, that another connection stops."""
    rng, thread_id = person.rng, person.some_thread()
    link, other = await person.connect(), await person.connect()
    starts = [
        person.new_start(rng.choice(("slow", "steady")), thread_id, seconds=3.0) for _ in range(rng.randint(1, 3))
    ]
    done = [each for each in [await person.start(start, link) for start in starts] if each is not None]
    await person.pause(1.0)
    for answer, _ in done[-1:]:
        named = rng.choice(("run_id", "run_id", "request_id", "thread_id"))
        frame: Frame = {"type": "stop_agent", named: answer[named]}
        if rng.random() < 0.5:
            frame["reason"] = "enough"
        with suppress(Lost, Refused):
            if named == "run_id" and rng.random() < 0.3:
                async with person.web() as web:
                    await web.stop(str(answer["run_id"]))
            else:
                await other.ask(frame, timeout_s=person.patience_s)
        link = await _follow(person, link, answer)
    link.cut()
    other.cut()


async def repeat(person: Person) -> None:
    """A start sent twice at once, again after its answer, and once with other content."""
    start = _some_start(person, person.some_thread())
    links = [await person.connect(), await person.connect()]
    person.unanswered[start.key] = start
    await asyncio.gather(
        *(link.ask(start.frame, timeout_s=person.patience_s) for link in links), return_exceptions=True
    )
    done = await person.start(start, None)
    for link in links:
        link.cut()
    if done is None:
        return
    answer, link = done
    link = await _follow(person, link, answer)
    with suppress(Lost, Refused):
        if person.rng.random() < 0.5:
            other = {**start.frame, "context": {"other": True}}
            await link.ask(other, timeout_s=person.patience_s, may=frozenset({"idempotency_conflict"}))
        else:
            async with person.web() as web:
                await web.start(start.frame, by_header=True, by_path=True)
    link.cut()


async def read_slowly(person: Person) -> None:
    """A large answer over a connection that reads slowly, and cuts itself off at times."""
    pace = person.rng.uniform(*_SLOW_BYTES_PER_S)
    link = await person.connect(bytes_per_s=pace)
    person.recording.counts["slow_readers"] += 1
    done = await person.start(person.new_start("big", person.some_thread()), link)
    if done is not None:
        link = await _follow(person, done[1], done[0], bytes_per_s=pace)
    link.cut()


async def wander(person: Person) -> None:
    """Reads threads from anywhere, with any epoch, and asks for all there is to ask."""
    link = await person.connect()
    with suppress(Lost):
        for _ in range(person.rng.randint(3, 8)):
            with suppress(Refused):
                await link.ask(_question(person), timeout_s=person.patience_s)
            await person.pause(0.3)
    link.cut()


def _question(person: Person) -> Frame:
    rng, thread_id = person.rng, person.some_thread()
    held, seq = person.recording.held(person.name, thread_id)
    after = rng.choice((0, seq, rng.randint(0, seq), rng.randint(0, seq), seq + 1000))
    epoch = rng.choice(({}, {"epoch": held} if held else {}, {"epoch": "another"}))
    kind = rng.choice(("subscribe",) * 4 + ("switch_thread", "unsubscribe", "history", "list", "update", "ping"))
    match kind:
        case "subscribe":
            return {"type": kind, "thread_id": thread_id, "after_seq": after, **epoch}
        case "switch_thread":
            return {"type": kind, "thread_id": thread_id, **rng.choice(({}, {"after_seq": after}))}
        case "history":
            return {"type": "get_thread_history", "thread_id": thread_id, "limit": rng.randint(1, 200)}
        case "list":
            return {"type": "list_threads", "limit": rng.randint(1, 200)}
        case "update":
            return {"type": "update_thread", "thread_id": thread_id, "title": f"<{person.name}> {rng.random()}"}
    return {"type": kind, "thread_id": thread_id}


async def join(person: Person) -> None:
    """A history, and a subscription from where it ends, while a run is at work."""
    thread_id = person.some_thread()
    done = await person.start(person.new_start("slow", thread_id, seconds=0.5), None)
    link = await person.connect()
    with suppress(Lost, Refused):
        told = await link.ask({"type": "get_thread_history", "thread_id": thread_id}, timeout_s=person.patience_s)
        frame = {"type": "subscribe", "thread_id": thread_id, "after_seq": told["resume_after"], "epoch": told["epoch"]}
        await link.ask(frame, timeout_s=person.patience_s)
    if done is not None:
        link = await _follow(person, link, done[0])
        done[1].cut()
    link.cut()


async def create(person: Person, thread_id: str, link: Link) -> Frame | None:
    """The thread, if it could be made."""
    with suppress(Lost, Refused):
        told = await link.ask({"type": "create_thread", "thread_id": thread_id}, timeout_s=person.patience_s)
        if thread_id not in person.threads:
            person.threads.append(thread_id)
        return told
    return None


async def delete(person: Person) -> None:
    """A thread made, used, deleted while it may be at work, and made anew."""
    thread_id = f"{GONE}{person.rng.randint(1, 2)}"
    link, other = await person.connect(), await person.connect()
    if await create(person, thread_id, link) is not None:
        done = await person.start(_some_start(person, thread_id), link)
        await person.pause(0.5)
        with suppress(Lost, Refused):
            await other.ask({"type": "delete_thread", "thread_id": thread_id}, timeout_s=person.patience_s)
        if await create(person, thread_id, other) is not None:
            done = await person.start(_some_start(person, thread_id), other)
        if done is not None:
            link = await _follow(person, link, done[0])
    link.cut()
    other.cut()


async def request(person: Person) -> None:
    """A start over HTTP, then its pages until it has ended."""
    start = _some_start(person, person.some_thread())
    person.unanswered[start.key] = start
    answer = None
    async with person.web() as web:
        with suppress(Lost, Refused):
            answer = await web.start(
                start.frame, by_header=person.rng.random() < 0.5, by_path=person.rng.random() < 0.5
            )
            person.take_accepted(start, answer)
    if answer is None:
        await person.start(start, None)
        return
    seq = int(answer["seq"])
    for _ in range(8):
        async with person.web("page") as web:
            with suppress(Lost, Refused):
                seq, _ = await web.page(str(answer["thread_id"]), after_seq=seq, limit=person.rng.choice((3, 200)))
        if person.ended(str(answer["run_id"])):
            break
        await person.pause(0.8)


async def listen(person: Person) -> None:
    """An event stream, cut off and resumed while a run is at work."""
    thread_id = person.some_thread()
    await person.start(person.new_start("steady", thread_id, seconds=0.5), None)
    for resumed in (False, True):
        left = person.rng.randint(1, 25)

        def enough(_: Frame) -> bool:
            nonlocal left
            left -= 1
            return left <= 0

        async with person.web("sse") as web:
            _, seq = person.recording.held(person.name, thread_id)
            after = person.rng.choice((0, seq))
            with suppress(Lost, Refused, TimeoutError):
                async with asyncio.timeout(3):
                    person.recording.counts["streams"] += 1
                    await web.stream(thread_id, after_seq=after, resumed=resumed, enough=enough)


BEHAVIOURS: tuple[tuple[Behaviour, int], ...] = (
    (converse, 30),
    (crowd, 8),
    (stop, 16),
    (repeat, 12),
    (read_slowly, 3),
    (wander, 15),
    (join, 8),
    (delete, 6),
    (request, 10),
    (listen, 6),
)
"""Each with how often it is chosen."""
