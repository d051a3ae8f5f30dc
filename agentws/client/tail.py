"""`agentws tail`: a thread's events, one line each, as they happen; each once, also across restarts of the server."""

import sys

import msgspec

from agentws.client.connection import Client
from agentws.client.link import Connected, Lost, Token
from agentws.client.reader import Event
from agentws.client.session import Gone, Reset, Trouble
from agentws.client.text import cut, one_line
from agentws.wire.answers import CaughtUp

__all__ = ["line_of", "tail"]


async def tail(
    url: str,
    thread_id: str,
    *,
    user: str | None,
    token: Token,
    after_seq: int,
    as_json: bool,
    follow: bool,
    width: int | None,
) -> int:
    """Prints the thread's events after `after_seq`; returns the exit status.

    Args:
        as_json: the frames as they came, one line each.
        follow: go on with what happens, until the thread is deleted.
        width: cells of a line; None: as long as they are.
    """
    async with Client(url, user=user, token=token) as client:
        await client.follow(thread_id, after_seq=after_seq)
        async for update in client:
            match update:
                case Event():
                    line = msgspec.json.encode(update.frame).decode() if as_json else line_of(update)
                    print(line if as_json or width is None else cut(line, width), flush=True)
                case CaughtUp() if not follow:
                    return 0
                case Gone(reason=reason):
                    _note(f"the thread is gone ({reason})")
                    return 0 if reason == "deleted" else 1
                case Reset(epoch=epoch):
                    _note(f"the thread is told anew, its epoch is {epoch}")
                case Trouble(error=error):
                    _note(error.message)
                case Lost(why=why, retry_in_s=retry_in_s):
                    _note(f"{why}; trying again in {retry_in_s:.1f} s")
                case Connected():
                    _note("connected again")
    return 0


def _note(text: str) -> None:
    print(f"agentws: {one_line(text)}", file=sys.stderr, flush=True)


def line_of(event: Event) -> str:
    """An event on one line: time of day (UTC), number, type, the run's last characters, and what matters."""
    attempt = f" (attempt {event.attempt})" if event.attempt > 1 else ""
    head = f"{event.timestamp[11:]} {event.seq:>5} {event.type:<15} {event.run_id[-8:]}"
    return one_line(f"{head} {_matter(event)}{attempt}".rstrip())


def _matter(event: Event) -> str:
    payload = event.payload
    match event.type:
        case "agent_queued":
            return f"position {payload['position']}"
        case "agent_started":
            return str(payload["message"])
        case "agent_thinking":
            return str(payload["reasoning"])
        case "agent_message":
            return str(payload["text"])
        case "tool_executing":
            return f"{payload['tool_name']} {_json(payload['parameters'])}"
        case "tool_completed":
            said = _json(payload["result"]) if payload["success"] else payload["error"]["message"]
            return f"{payload['tool_name']} {payload['outcome']} in {payload['duration_ms']} ms: {said}"
        case "agent_completed":
            return f"in {payload['duration_ms']} ms"
        case "agent_error":
            return f"{payload['code']}: {payload['message']}"
        case "agent_stopped":
            return f"reason {payload['reason']}"
        case _:
            return _json(payload)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
