"""The HTTP side of a user: starts, pages, histories and event streams, recorded in the form of the frames that ask the
same over a WebSocket, so that the same checks hold."""

from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from scripts.chaos.link import Frame, Lost, Refused, reset
from scripts.chaos.record import Log

__all__ = ["Web"]

_STATUS = {
    "validation_error": 400,
    "unauthorized": 401,
    "identity_mismatch": 403,
    "forbidden_origin": 403,
    "thread_not_found": 404,
    "run_not_found": 404,
    "agent_not_found": 404,
    "run_id_conflict": 409,
    "idempotency_conflict": 409,
    "thread_busy": 409,
    "rate_limited": 429,
    "too_many_runs": 429,
    "too_many_threads": 429,
    "too_many_subscriptions": 429,
    "overloaded": 503,
    "draining": 503,
    "database_unavailable": 503,
    "internal_error": 500,
}
_TIMEOUT_S = 12.0


class Web:
    """Requests of one user at one server, recorded in `log`. To be used as an async context.

    Every method raises:
        Lost: if there was no answer, or half of one.
        Refused: if it is an error.
    """

    def __init__(self, log: Log, url: str) -> None:
        self._log = log
        self._asked = 0
        self._client = httpx.AsyncClient(base_url=url, params={"user": log.user}, timeout=_TIMEOUT_S, trust_env=False)

    async def __aenter__(self) -> "Web":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    def is_not_final(self) -> None:
        """Makes what was asked here no part of the last reading, which is begun anew."""
        self._log.final = False

    def _sent(self, frame: Frame, may: frozenset[str] = frozenset()) -> str:
        self._asked += 1
        name = f"h{self._asked}"
        self._log.sent({**frame, "id": name}, may=may)
        return name

    async def _ask(self, frame: Frame, method: str, path: str, status: int, **request: Any) -> Frame:
        """Asks what the frame asks; the answer is recorded as that frame's."""
        name = self._sent(frame)
        try:
            response = await self._client.request(method, path, **request)
        except (httpx.HTTPError, OSError) as error:
            raise Lost from error
        if response.status_code in (502, 504):
            raise Lost
        return self._told(name, response.status_code, response.content, status)

    def _told(self, name: str, status: int, content: bytes, wanted: int) -> Frame:
        try:
            body = msgspec.json.decode(content)
        except msgspec.DecodeError:
            body = None
        if not isinstance(body, dict):
            self._log.fault("http", f"{status} with {content[:200]!r}")
            raise Lost
        if body.get("type") == "error":
            wanted = _STATUS.get(str(body.get("code")), 400)
        elif body.get("duplicate") is True:
            wanted = 200
        if status != wanted:
            self._log.fault("http", f"status {status}, not {wanted}, for {content[:200]!r}")
        told = {**body, "id": name}
        if body.get("type") == "error":
            self._log.got(told)
            raise Refused(body)
        return told

    async def start(self, frame: Frame, *, by_header: bool, by_path: bool) -> Frame:
        """Starts a run; the key in its header or in the body, the thread in the path or in the body."""
        body, headers, path = dict(frame), {}, "/api/runs"
        if by_header:
            headers["Idempotency-Key"] = body.pop("idempotency_key")
        if by_path and "thread_id" in body:
            path = f"/api/threads/{body.pop('thread_id')}/runs"
        told = await self._ask(frame, "POST", path, 202, json=body, headers=headers)
        self._log.got(told)
        return told

    async def stop(self, run_id: str) -> Frame:
        frame = {"type": "stop_agent", "run_id": run_id}
        told = await self._ask(frame, "POST", f"/api/runs/{run_id}/stop", 202, json={})
        self._log.got(told)
        return told

    async def page(self, thread_id: str, *, after_seq: int, limit: int) -> tuple[int, int]:
        """A page of events, each recorded; returns the number that it ends at, and the thread's."""
        frame = {"type": "subscribe", "thread_id": thread_id, "after_seq": after_seq}
        query = {"after_seq": after_seq, "limit": limit}
        told = await self._ask(frame, "GET", f"/api/threads/{thread_id}/events", 200, params=query)
        events = told.pop("events", [])
        self._log.got({**told, "type": "subscribed"} | ({} if "timestamp" in told else {"timestamp": _NO_TIME}))
        if len(events) > limit:
            self._log.fault("pages", f"{len(events)} events for a limit of {limit}")
        for event in events:
            self._log.heard(msgspec.json.encode(event))
        return (int(events[-1]["seq"]) if events else after_seq), int(told.get("last_seq") or 0)

    async def history(self, thread_id: str, *, limit: int, before: str | None) -> Frame:
        query = {"limit": limit} | ({"before": before} if before else {})
        frame = {"type": "get_thread_history", "thread_id": thread_id, **query}
        told = await self._ask(frame, "GET", f"/api/threads/{thread_id}/messages", 200, params=query)
        self._log.got({"type": "thread_history", "timestamp": _NO_TIME, **told})
        return told

    async def threads(self, *, limit: int, before: str | None) -> Frame:
        query = {"limit": limit} | ({"before": before} if before else {})
        told = await self._ask({"type": "list_threads", **query}, "GET", "/api/threads", 200, params=query)
        self._log.got({"type": "thread_list", "timestamp": _NO_TIME, **told})
        return told

    async def stream(self, thread_id: str, *, after_seq: int, resumed: bool, enough: Callable[[Frame], bool]) -> None:
        """Reads an event stream until a frame is enough; then resets its socket."""
        name = self._sent({"type": "subscribe", "thread_id": thread_id, "after_seq": after_seq})
        query = {} if resumed else {"after_seq": after_seq}
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(after_seq)} if resumed else {})
        try:
            async with self._client.stream(
                "GET", f"/api/threads/{thread_id}/events", params=query, headers=headers
            ) as response:
                if response.status_code != 200:
                    self._told(name, response.status_code, await response.aread(), 200)
                    return
                fields: dict[str, str] = {}
                async for line in response.aiter_lines():
                    if line:
                        field, _, value = line.partition(":")
                        fields[field] = value.removeprefix(" ")
                    elif self._ends(fields, name, enough):
                        reset(response.extensions["network_stream"].get_extra_info("socket"))
                        self._log.recording.counts["cuts"] += 1
                        return
                    else:
                        fields = {}
        except (httpx.HTTPError, OSError) as error:
            raise Lost from error

    def _ends(self, fields: dict[str, str], name: str, enough: Callable[[Frame], bool]) -> bool:
        """Takes an item of the stream; returns whether it is enough."""
        if "data" not in fields:
            return False
        frame: Frame = msgspec.json.decode(fields["data"])
        told = (fields.get("event"), fields.get("id"))
        if told != (frame.get("type"), str(frame["seq"]) if "event_id" in frame else None):
            self._log.fault("sse", f"event and id are {told} for {fields['data'][:200]}")
        if frame.get("type") in ("subscribed", "caught_up") and frame.get("id") is None:
            frame["id"] = name
            self._log.got(frame)
        else:
            self._log.heard(fields["data"])
        return enough(frame)


_NO_TIME = "1970-01-01T00:00:00.000Z"
"""For bodies, which have no row of their own on the page that would name a time."""
