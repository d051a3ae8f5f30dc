"""The floor under the benchmark: the least that a durable run over a WebSocket costs with the packages of agentws.

Bare ASGI on uvicorn with the settings of `agentws serve`, one SQL function a commit under row-level security, the
events of a run, and nothing else: no claims, no leases, no queue, no second subscriber. It is to be measured against,
never to be used. `python -m scripts.floor` serves it.
"""

import argparse
import asyncio
import socket
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import asyncpg
import msgspec
import uvicorn

from scripts.bench_agent import TOOL_S

__all__ = ["LOGIN", "SCHEMA", "Floor", "main"]

LOGIN = "floor_app"

SCHEMA = f"""
CREATE SCHEMA floor;
CREATE TABLE floor.thread (
    thread_id uuid PRIMARY KEY, user_id text NOT NULL, last_seq bigint NOT NULL, created_at timestamptz DEFAULT now());
CREATE TABLE floor.run (
    run_id uuid PRIMARY KEY, thread_id uuid NOT NULL REFERENCES floor.thread, user_id text NOT NULL,
    name text NOT NULL, agent text NOT NULL, status text NOT NULL, request text NOT NULL, response text,
    started_at timestamptz DEFAULT now(), ended_at timestamptz, UNIQUE (user_id, name));
CREATE TABLE floor.event (
    thread_id uuid NOT NULL, seq bigint NOT NULL, run_id uuid NOT NULL, user_id text NOT NULL, type text NOT NULL,
    body text NOT NULL, at timestamptz DEFAULT now(), PRIMARY KEY (thread_id, seq));
ALTER TABLE floor.thread ENABLE ROW LEVEL SECURITY;
ALTER TABLE floor.run ENABLE ROW LEVEL SECURITY;
ALTER TABLE floor.event ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON floor.thread USING (user_id = current_setting('floor.user_id', true));
CREATE POLICY own ON floor.run USING (user_id = current_setting('floor.user_id', true));
CREATE POLICY own ON floor.event USING (user_id = current_setting('floor.user_id', true));
GRANT USAGE ON SCHEMA floor TO {LOGIN};
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA floor TO {LOGIN};

CREATE FUNCTION floor.accept(p_user text, p_thread uuid, p_run uuid, p_agent text, p_request text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    seq bigint;
BEGIN
    PERFORM set_config('floor.user_id', p_user, true);
    INSERT INTO floor.thread AS t (thread_id, user_id, last_seq) VALUES (p_thread, p_user, 1)
        ON CONFLICT (thread_id) DO UPDATE SET last_seq = t.last_seq + 1 RETURNING last_seq INTO seq;
    INSERT INTO floor.run (run_id, thread_id, user_id, name, agent, status, request)
        VALUES (p_run, p_thread, p_user, p_run::text, p_agent, 'running', p_request);
    INSERT INTO floor.event (thread_id, seq, run_id, user_id, type, body)
        VALUES (p_thread, seq, p_run, p_user, 'agent_started', '');
    RETURN seq;
END $$;

-- p_response ends the run.
CREATE FUNCTION floor.append(
    p_user text, p_thread uuid, p_run uuid, p_types text[], p_bodies text[], p_response text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    n integer := cardinality(p_types);
    last bigint;
BEGIN
    PERFORM set_config('floor.user_id', p_user, true);
    UPDATE floor.thread SET last_seq = last_seq + n WHERE thread_id = p_thread RETURNING last_seq INTO last;
    INSERT INTO floor.event (thread_id, seq, run_id, user_id, type, body)
        SELECT p_thread, last - n + o, p_run, p_user, t, b
        FROM unnest(p_types, p_bodies) WITH ORDINALITY AS x (t, b, o);
    IF p_response IS NOT NULL THEN
        UPDATE floor.run SET status = 'completed', response = p_response, ended_at = now() WHERE run_id = p_run;
    END IF;
    RETURN last;
END $$;
"""

_ACCEPT = "SELECT floor.accept($1,$2,$3,$4,$5)"
_APPEND = "SELECT floor.append($1,$2,$3,$4,$5,$6)"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

if TYPE_CHECKING:
    _Plain = asyncpg.Connection[asyncpg.Record]
    _Pool = asyncpg.Pool[asyncpg.Record]
else:  # asyncpg's classes are generic in their stubs only
    _Plain = asyncpg.Connection

_Event = tuple[str, dict[str, Any]]


class _Connection(_Plain):
    """As in agentws: every setting ends with its transaction, so there is nothing to be reset."""

    def get_reset_query(self) -> str:
        return ""


class Floor:
    """
    Args:
        url: PostgreSQL URL of a database with SCHEMA, as LOGIN.
        commits: a run's; 2: accept, the rest; 3: accept, up to `tool_executing`, the rest.
    """

    def __init__(self, url: str, commits: int) -> None:
        self._url = url
        self._commits = commits
        self._pool: _Pool | None = None

    async def open(self) -> None:
        """Connects, as agentws does."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=12,
            max_size=12,
            max_inactive_connection_lifetime=0,
            max_cached_statement_lifetime=0,
            connection_class=_Connection,
            server_settings={"jit": "off"},
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        user = parse_qs(scope["query_string"].decode())["user"][0]
        await receive()
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
        talk = _Talk(self, user, send)
        await talk.tell(type="connection_established", user_id=user)
        while (message := await receive())["type"] == "websocket.receive":
            payload = _decode(message["text"])["payload"]
            await talk.run(payload["content"], payload["agent"], commits=self._commits)

    async def call(self, query: str, *args: Any) -> int:
        """One function call, which is one transaction; returns the number that it returned."""
        assert self._pool is not None
        async with self._pool.acquire() as connection:
            number: int = await connection.fetchval(query, *args)
            return number


class _Talk:
    """One connection, its user and its thread."""

    def __init__(self, floor: Floor, user: str, send: Any) -> None:
        self._floor = floor
        self._user = user
        self._send = send
        self._thread = uuid.uuid4()

    async def tell(self, **fields: Any) -> None:
        await self._send({"type": "websocket.send", "text": _encode(fields).decode()})

    async def run(self, text: str, agent: str, *, commits: int) -> None:
        run = uuid.uuid4()
        seq = await self._floor.call(_ACCEPT, self._user, self._thread, run, agent, text)
        ids = {"user_id": self._user, "thread_id": str(self._thread), "run_id": str(run)}
        await self.tell(type="request_accepted", seq=seq - 1, **ids)
        await self.tell(type="agent_started", seq=seq, payload={"message": text}, **ids)
        before: list[_Event] = [
            ("agent_thinking", {"reasoning": text}),
            ("tool_executing", {"tool_name": "lookup", "parameters": {"text": text}}),
        ]
        if commits == 3:
            await self._append(run, before, None, ids)
            before = []
        if agent == "bench_slow":
            await asyncio.sleep(TOOL_S)
        result = {"text": text[::-1], "returned": time.monotonic()}
        after: list[_Event] = [
            ("tool_completed", {"tool_name": "lookup", "result": result}),
            ("agent_message", {"text": text}),
            ("agent_completed", {"response": text}),
        ]
        await self._append(run, [*before, *after], text, ids)

    async def _append(
        self, run: uuid.UUID, events: Sequence[_Event], response: str | None, ids: dict[str, str]
    ) -> None:
        types = [kind for kind, _ in events]
        bodies = [_encode(payload).decode() for _, payload in events]
        last = await self._floor.call(_APPEND, self._user, self._thread, run, types, bodies, response)
        for place, (kind, payload) in enumerate(events, last - len(events) + 1):
            await self.tell(type=kind, seq=place, payload=payload, **ids)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, floor: Floor) -> None:
        super().__init__(config)
        self._floor = floor

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._floor.open()
        await super().startup(sockets=sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"floor ready on http://127.0.0.1:{port}", flush=True)


def main() -> None:
    """Serves the floor on a free port of the loopback address."""
    parser = argparse.ArgumentParser(prog="floor", description=main.__doc__)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--commits", type=int, choices=(2, 3), required=True)
    options = parser.parse_args()
    floor = Floor(options.database_url, options.commits)
    config = uvicorn.Config(
        floor,
        host="127.0.0.1",
        port=0,
        loop="uvloop",
        http="h11",
        ws="websockets-sansio",
        ws_max_size=1024 * 1024,
        ws_ping_interval=10,
        ws_ping_timeout=20,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    _Server(config, floor).run()


if __name__ == "__main__":
    main()
