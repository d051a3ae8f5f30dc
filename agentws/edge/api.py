"""The HTTP routes beside the WebSocket (section 6): the same messages, checks, limits and errors, one request each."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from agentws.core.fold import merge
from agentws.core.framing import first_of, frame
from agentws.core.limits import refuse
from agentws.core.replay import restart_at
from agentws.core.session import Handled
from agentws.edge.admission import Admission
from agentws.edge.bodies import TooLarge, from_query, read_head, read_number, read_start, read_stop, read_text
from agentws.edge.caller import RequestCaller, refusal, respond
from agentws.edge.connection import Desk
from agentws.edge.stream import Streams
from agentws.edge.websocket import Connections
from agentws.ports import Credentials, Journal, Threads, Tickets
from agentws.wire.codec import encode, load, timestamp, timestamp_at
from agentws.wire.errors import Fault
from agentws.wire.ids import ThreadId, is_client_id
from agentws.wire.messages import STARTS, GetThreadHistory, ListThreads, Subscribe
from agentws.wire.schema import protocol_schema

__all__ = ["Api", "api_routes"]

_TICKET_S, _LEAST_TICKET_S, _MOST_TICKET_S = 60, 30, 3600
_UNENDING_S = 365 * 24 * 3600
_PAGE_EVENTS, _MOST_EVENTS = 200, 1000
Handler = Callable[["Api", Request, Credentials], Awaitable[Response]]


class _TicketOrder(msgspec.Struct, frozen=True, kw_only=True):
    ttl_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Api:
    """What the routes are served with."""

    admission: Admission
    desk: Desk
    connections: Connections
    journal: Journal
    threads: Threads
    tickets: Tickets | None
    max_message_bytes: int
    heartbeat_interval_s: float

    async def serve(self, request: Request, handler: Handler) -> Response:
        """Checks who asks and how often, and lets a handler answer; a fault is its error frame."""
        try:
            credentials = await self.admission.admit(request)
            limited = self.desk.buckets.take(credentials.principal, time.monotonic())
            if limited is not None:
                return await self._limit(request, limited)
            return await handler(self, request, credentials)
        except TooLarge as fault:
            return refusal(fault, status=413)
        except Fault as fault:
            return refusal(fault)

    async def carry_out(self, credentials: Credentials, message: Handled) -> Response:
        """Carries a message out; its answer is the response."""
        caller = RequestCaller(credentials.principal, self.desk.commands.tally)
        await self.desk.commands.carry_out(caller, message)
        return respond(caller.reply)

    async def attempt(self, credentials: Credentials, name: str, work: Callable[[], Awaitable[Response]]) -> Response:
        """Does what no message asks for; a failure is answered like that of a message."""
        caller = RequestCaller(credentials.principal, self.desk.commands.tally)
        done: list[Response] = []

        async def do() -> None:
            done.append(await work())

        await self.desk.commands.attempt(caller, name, None, do())
        return done[0] if done else respond(caller.reply)

    async def _limit(self, request: Request, limited: Fault) -> Response:
        tally = self.desk.commands.tally
        if request.method == "POST" and request.url.path.endswith("/runs"):
            # The frame itself is checked first, and a start that is refused counts.
            head = read_head(await read_text(request, most=self.max_message_bytes))
            tally.came(head.type, deprecated=head.deprecated)
            tally.rejected(head.type)
        return refusal(limited)


def api_routes(service: Callable[[], Api | None]) -> list[BaseRoute]:
    """The routes below `/api`.

    Args:
        service: what they are served with; None while there is nothing.
    """

    def route(path: str, method: str, handler: Handler) -> BaseRoute:
        async def endpoint(request: Request) -> Response:
            api = service()
            if api is None:
                return refusal(refuse("overloaded"))
            return await api.serve(request, handler)

        return Route(path, endpoint, methods=[method])

    schema: list[bytes] = []

    async def protocol(request: Request) -> Response:
        if not schema:
            schema.append(encode(protocol_schema()))
        return Response(schema[0], media_type="application/schema+json")

    return [
        Route("/api/protocol.json", protocol),
        route("/api/me", "GET", _me),
        route("/api/tickets", "POST", _issue_ticket),
        route("/api/threads", "GET", _list_threads),
        route("/api/threads/{thread_id}", "GET", _read_thread),
        route("/api/threads/{thread_id}/messages", "GET", _read_messages),
        route("/api/threads/{thread_id}/events", "GET", _read_events),
        route("/api/threads/{thread_id}/runs", "POST", _start_run),
        route("/api/runs", "POST", _start_run),
        route("/api/runs/{run_id}/stop", "POST", _stop_run),
    ]


async def _me(api: Api, request: Request, credentials: Credentials) -> Response:
    # A browser is not told why an upgrade was refused; it can ask here.
    api.connections.check_room()
    principal = credentials.principal
    return JSONResponse(
        {
            "user_id": principal.user_id,
            "tenant_id": principal.tenant_id,
            "expires_at": timestamp_at(credentials.expires_at),
        }
    )


async def _issue_ticket(api: Api, request: Request, credentials: Credentials) -> Response:
    if (tickets := api.tickets) is None:
        # The host's own login decides alone, and knows none.
        raise Fault("not_implemented")
    text = await read_text(request, most=api.max_message_bytes)
    try:
        order = msgspec.convert(load(text) if text else {}, _TicketOrder)
    except msgspec.ValidationError:
        raise Fault("validation_error", "ttl_seconds") from None
    ttl_s = _TICKET_S if order.ttl_seconds is None else order.ttl_seconds
    if not _LEAST_TICKET_S <= ttl_s <= _MOST_TICKET_S:
        raise Fault("validation_error", "ttl_seconds")
    # What never expires buys what does not either.
    unending = credentials.expires_at is None

    async def issue() -> Response:
        issued = await tickets.issue(
            credentials.principal,
            credentials_expire_at=credentials.expires_at,
            ttl_s=_UNENDING_S if unending else ttl_s,
        )
        return JSONResponse(
            {
                "ticket": issued.ticket,
                "expires_at": None if unending else timestamp(issued.expires_at),
                "websocket_url": _websocket_url(request, issued.ticket),
            },
            headers={"Cache-Control": "no-store"},
        )

    return await api.attempt(credentials, "the request for a ticket", issue)


def _websocket_url(request: Request, ticket: str) -> str:
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return f"{scheme}://{request.url.netloc}{request.scope.get('root_path', '')}/ws?ticket={ticket}"


async def _list_threads(api: Api, request: Request, credentials: Credentials) -> Response:
    user_id = credentials.principal.user_id
    message = from_query(ListThreads, "list_threads", user_id, request.query_params, ("limit", "before"))
    return await api.carry_out(credentials, message)


async def _read_messages(api: Api, request: Request, credentials: Credentials) -> Response:
    message = from_query(
        GetThreadHistory,
        "get_thread_history",
        credentials.principal.user_id,
        request.query_params,
        ("limit", "before"),
        thread_id=request.path_params["thread_id"],
    )
    return await api.carry_out(credentials, message)


async def _read_thread(api: Api, request: Request, credentials: Credentials) -> Response:
    thread_id = request.path_params["thread_id"]
    if not is_client_id(thread_id):
        raise Fault("validation_error", "thread_id")

    async def read() -> Response:
        opened = await api.threads.read(credentials.principal, ThreadId(thread_id))
        return Response(encode(opened.thread), media_type="application/json")

    return await api.attempt(credentials, "the request for a thread", read)


async def _start_run(api: Api, request: Request, credentials: Credentials) -> Response:
    tally = api.desk.commands.tally
    head = read_head(await read_text(request, most=api.max_message_bytes))
    if head.type in STARTS:
        tally.came(head.type, deprecated=head.deprecated)
    try:
        message = read_start(
            head,
            credentials.principal.user_id,
            thread_id=request.path_params.get("thread_id"),
            key=request.headers.get("idempotency-key"),
        )
    except Fault:
        tally.rejected(head.type)
        raise
    return await api.carry_out(credentials, message)


async def _stop_run(api: Api, request: Request, credentials: Credentials) -> Response:
    head = read_head(await read_text(request, most=api.max_message_bytes), default="stop_agent")
    message = read_stop(head, credentials.principal.user_id, run_id=request.path_params["run_id"])
    return await api.carry_out(credentials, message)


async def _read_events(api: Api, request: Request, credentials: Credentials) -> Response:
    fields = dict(request.query_params)
    streams = "text/event-stream" in request.headers.get("accept", "")
    if streams and (last := request.headers.get("last-event-id")):
        fields["after_seq"] = last
    message = from_query(
        Subscribe,
        "subscribe",
        credentials.principal.user_id,
        fields,
        ("after_seq", "epoch", "subagents"),
        thread_id=request.path_params["thread_id"],
    )
    limit = read_number("limit", fields.get("limit", str(_PAGE_EVENTS)))
    if not 1 <= limit <= _MOST_EVENTS:
        raise Fault("validation_error", "limit")

    async def read() -> Response:
        return await _page_of_events(api, credentials, message, limit)

    async def stream() -> Response:
        streams = Streams(api.connections, api.desk, heartbeat_interval_s=api.heartbeat_interval_s)
        if await api.journal.read_head(credentials.principal, ThreadId(message.thread_id or "")) is None:
            raise Fault("thread_not_found")
        return streams.open(credentials, message)

    return await api.attempt(credentials, "the request for events", stream if streams else read)


async def _page_of_events(api: Api, credentials: Credentials, message: Subscribe, limit: int) -> Response:
    thread_id, principal = ThreadId(message.thread_id or ""), credentials.principal
    head = await api.journal.read_head(principal, thread_id)
    if head is None:
        raise Fault("thread_not_found")
    after_seq, recovered = restart_at(
        after_seq=message.after_seq,
        epoch=message.epoch,
        first_seq=head.first_seq,
        last_seq=head.last_seq,
        current=head.epoch,
    )
    page = await api.journal.read_events(
        principal, thread_id, epoch=head.epoch, after_seq=after_seq, limit=limit, most_bytes=api.max_message_bytes
    )
    first_seq = head.first_seq
    if page.events and first_of(page.events[0][1]) > after_seq + 1:
        # Retention has been here since the head was read.
        first_seq = first_of(page.events[0][1])
        after_seq, recovered = first_seq - 1, False
    body = {
        "thread_id": thread_id,
        "epoch": head.epoch,
        "first_seq": first_seq,
        "last_seq": head.last_seq,
        "after_seq": after_seq,
        "recovered": recovered,
        "events": [msgspec.Raw(frame(origin, record).encode()) for origin, record in merge(page.events)],
    }
    return Response(encode(body), media_type="application/json")
