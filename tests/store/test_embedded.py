"""The embedded PostgreSQL keeps what was committed, leaves no orphan, finds its next owner and refuses the foreign."""

import asyncio
import contextlib
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import asyncpg
import pytest

from agentws.store import embedded
from agentws.store.embedded import EmbeddedError, EmbeddedPostgres

AS_ROOT = os.geteuid() == 0
LIMIT_S = 30.0
Serve = Callable[[Path], EmbeddedPostgres]
# Starts, says as what, then watches until it is killed. SIGINT is only told, as by a server that drains.
CHILD = """
import asyncio, importlib.metadata, os, pathlib, signal, sys
from agentws.store import embedded
directory, uid, death_signal = sys.argv[1:]
importlib.metadata.version("pip")  # imports what it needs, while it may read it
if uid:
    os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
if not death_signal:
    embedded._PRCTL = None
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
server = embedded.EmbeddedPostgres(pathlib.Path(directory))
server.start()
print("owner" if server.owner else "attached", flush=True)
asyncio.run(server.watch())
"""


@contextlib.contextmanager
def open_place() -> Iterator[Path]:
    """A place that every account can reach and that leaves room for a socket's path; tmp_path is closed to others."""
    place = Path(tempfile.mkdtemp(prefix="emb-", dir="/tmp"))
    place.chmod(0o755)
    yield place
    for written in place.rglob("postmaster.pid"):  # of owners that were killed
        ended(int(written.read_text().split()[0]))
    shutil.rmtree(place)


@pytest.fixture
def home() -> Iterator[Path]:
    with open_place() as place:
        yield place


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A stopped server's directory, to copy: initdb is most of a first start."""
    with open_place() as place:
        server = EmbeddedPostgres(place / "pg")
        server.start()
        server.stop()
        yield place / "pg"


@pytest.fixture
def data_dir(home: Path, made: Path) -> Path:
    subprocess.run(["cp", "-a", str(made), str(home / "pg")], check=True)
    return home / "pg"


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:

        def started(directory: Path) -> EmbeddedPostgres:
            server = EmbeddedPostgres(directory)
            stack.callback(server.stop)
            server.start()
            return server

        yield started


class Child:
    """Another process on a directory; `word` is the next line that it says."""

    def __init__(self, directory: Path, *, uid: int | str = "", death_signal: bool = True) -> None:
        command = [sys.executable, "-c", CHILD, str(directory), str(uid), "yes" * death_signal]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)

    def word(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], LIMIT_S)[0], "the other process says nothing"
        return self.process.stdout.readline().decode().strip()

    def kill(self) -> None:
        with self.process:
            self.process.kill()


Spawn = Callable[..., Child]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    with contextlib.ExitStack() as stack:

        def owning(directory: Path, *, uid: int | str = "", death_signal: bool = True) -> Child:
            child = Child(directory, uid=uid, death_signal=death_signal)
            stack.callback(child.kill)
            assert child.word() == "owner"
            return child

        yield owning


def postmaster(root: Path) -> int:
    return int((root / "data" / "postmaster.pid").read_text().splitlines()[0])


def account_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def ended(pid: int) -> bool:
    """Waits for a process that need not be a child of ours."""
    with contextlib.suppress(ProcessLookupError), open(os.pidfd_open(pid)) as process:
        return bool(select.select([process], [], [], LIMIT_S)[0])
    return True


async def ask(server: EmbeddedPostgres, *statements: str) -> object:
    """The last statement's value, from a connection of its own, as soon as the server takes one."""
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            connection = await asyncpg.connect(server.url(user="postgres", database="postgres"), timeout=LIMIT_S)
            try:
                return [await connection.fetchval(statement) for statement in statements][-1]
            finally:
                await connection.close()
        await asyncio.sleep(0)
    raise AssertionError("no connection")


COMMIT = ("CREATE TABLE kept AS SELECT 42 AS n",)
READ = "SELECT n FROM kept"
STARTED_AT = "SELECT pg_postmaster_start_time()::text"


async def test_first_start_makes_a_cluster_behind_a_private_socket(
    home: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "6000")
    (home / "volume" / "lost+found").mkdir(parents=True)
    server = serve(home / "volume")
    assert server.owner
    shown = {"server_encoding": "UTF8", "fsync": "on", "data_checksums": "on", "listen_addresses": ""}
    assert {name: await ask(server, f"SHOW {name}") for name in shown} == shown
    assert await ask(server, "SELECT upper('ü') || datcollate FROM pg_database WHERE datname = 'postgres'") == "ÜC"
    for name in ("socket", "data"):
        assert (home / "volume" / name).stat().st_mode & 0o777 == 0o700
    assert not (home / "volume" / "data.new").exists()


async def test_a_stop_is_clean_and_a_restart_keeps_the_data(data_dir: Path, serve: Serve) -> None:
    server = serve(data_dir)
    await ask(server, *COMMIT)
    pid = postmaster(data_dir)
    connection = await asyncpg.connect(server.url(user="postgres", database="postgres"))
    server.stop()
    server.stop()
    connection.terminate()
    assert not server.owner
    assert ended(pid)
    server.start()
    assert await ask(server, READ) == 42
    assert "not properly shut down" not in (data_dir / "postgres.log").read_text()


@pytest.mark.skipif(not AS_ROOT, reason="drops from root")
async def test_without_root_it_runs_as_its_starter(home: Path, spawn: Spawn) -> None:
    nobody = pwd.getpwnam("nobody")
    (home / "pg").mkdir(mode=0o700)
    os.chown(home / "pg", nobody.pw_uid, nobody.pw_gid)
    spawn(home / "pg", uid=nobody.pw_uid)
    assert await ask(EmbeddedPostgres(home / "pg"), "SELECT 1") == 1
    assert account_of(postmaster(home / "pg")) == nobody.pw_uid


@pytest.mark.skipif(not AS_ROOT, reason="root only")
def test_under_root_the_server_is_nobody_and_may_write_only_its_own(data_dir: Path, serve: Serve) -> None:
    serve(data_dir)
    nobody = pwd.getpwnam("nobody").pw_uid
    assert account_of(postmaster(data_dir)) == nobody
    assert data_dir.stat().st_uid == 0
    assert {entry.name for entry in data_dir.iterdir() if entry.stat().st_uid == nobody} == {"data", "socket"}
    assert "\nGroups:\t \n" in Path(f"/proc/{postmaster(data_dir)}/status").read_text()


@pytest.mark.parametrize("death_signal", [True, False], ids=["death signal", "watchdog"])
async def test_a_killed_owner_leaves_no_server(data_dir: Path, serve: Serve, spawn: Spawn, death_signal: bool) -> None:
    child, pid = spawn(data_dir, death_signal=death_signal), postmaster(data_dir)
    await ask(EmbeddedPostgres(data_dir), *COMMIT)
    child.kill()
    assert ended(pid)
    server = serve(data_dir)
    assert server.owner
    assert await ask(server, READ) == 42


async def test_a_server_still_shutting_down_is_waited_for(data_dir: Path, spawn: Spawn, serve: Serve) -> None:
    child, server = spawn(data_dir), EmbeddedPostgres(data_dir)
    await ask(server, *COMMIT)
    checkpointer = await ask(server, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    assert isinstance(checkpointer, int)
    os.kill(checkpointer, signal.SIGSTOP)
    try:
        child.kill()
        with contextlib.closing(server._come_up()) as steps:
            assert [next(steps) for _ in range(3)] == [None] * 3
    finally:
        os.kill(checkpointer, signal.SIGCONT)
        server.stop()
    assert await ask(serve(data_dir), READ) == 42


async def test_after_a_kill_of_all_the_dead_number_may_be_anothers(data_dir: Path, serve: Serve, spawn: Spawn) -> None:
    child, pid = spawn(data_dir), postmaster(data_dir)
    await ask(EmbeddedPostgres(data_dir), *COMMIT)
    child.process.send_signal(signal.SIGSTOP)  # so that it starts no other
    os.kill(pid, signal.SIGKILL)
    child.kill()
    assert ended(pid)
    with subprocess.Popen(["sleep", "20"], user=(data_dir / "data").stat().st_uid) as other:  # noqa: ASYNC220
        for left in (data_dir / "data" / "postmaster.pid", data_dir / "socket" / ".s.PGSQL.5432.lock"):
            left.write_text(left.read_text().replace(str(pid), str(other.pid), 1))
        assert await ask(serve(data_dir), READ) == 42
        other.kill()


async def test_a_killed_server_is_started_again(data_dir: Path, serve: Serve) -> None:
    server = serve(data_dir)
    before = await ask(server, *COMMIT, STARTED_AT)
    pid = postmaster(data_dir)
    watching = asyncio.create_task(server.watch())
    os.kill(pid, signal.SIGKILL)
    assert ended(pid)
    assert await ask(server, READ) == 42
    assert await ask(server, STARTED_AT) != before
    watching.cancel()


async def test_a_second_process_attaches_and_then_takes_over(data_dir: Path, serve: Serve, spawn: Spawn) -> None:
    first, pid = spawn(data_dir), postmaster(data_dir)
    second = serve(data_dir)
    seen = second.owner
    await ask(second, *COMMIT)
    address = second.url(user="u", database="d")
    watching = asyncio.create_task(second.watch())
    first.kill()
    assert await asyncio.to_thread(ended, pid)
    assert await ask(second, READ) == 42
    watching.cancel()
    assert (seen, second.owner) == (False, True)
    assert postmaster(data_dir) != pid
    assert second.url(user="u", database="d") == address


async def test_stopping_what_is_attached_stops_nothing(data_dir: Path, serve: Serve) -> None:
    owner, attached = serve(data_dir), serve(data_dir)
    attached.stop()
    assert (owner.owner, attached.owner, await ask(owner, "SELECT 1")) == (True, False, 1)


def test_of_two_that_start_at_once_one_owns_and_one_attaches(home: Path) -> None:
    both = [Child(home / "pg"), Child(home / "pg")]
    assert sorted(child.word() for child in both) == ["attached", "owner"]
    for child in both:
        child.kill()


async def test_an_interrupt_of_the_process_group_does_not_reach_the_server(data_dir: Path, spawn: Spawn) -> None:
    child, server = spawn(data_dir), EmbeddedPostgres(data_dir)
    before = await ask(server, STARTED_AT)
    assert os.getpgid(postmaster(data_dir)) != child.process.pid
    os.killpg(child.process.pid, signal.SIGINT)
    assert child.word() == "interrupted"
    assert await ask(server, STARTED_AT) == before


@pytest.mark.parametrize("content", ["notes.txt", "PG_VERSION"])
def test_a_foreign_directory_is_refused_untouched(home: Path, content: str) -> None:
    (home / content).write_text("18\n")
    with pytest.raises(EmbeddedError, match=f"{home} is neither empty nor an agentws data directory"):
        EmbeddedPostgres(home).start()
    assert [entry.name for entry in home.iterdir()] == [content]


def test_data_of_another_major_version_are_refused_untouched(data_dir: Path) -> None:
    version = data_dir / "data" / "PG_VERSION"
    version.write_text("15\n")
    before = sorted((path, path.stat().st_mtime_ns) for path in data_dir.rglob("*"))
    with pytest.raises(EmbeddedError, match="PostgreSQL 15, this is PostgreSQL 18"):
        EmbeddedPostgres(data_dir).start()
    assert sorted((path, path.stat().st_mtime_ns) for path in data_dir.rglob("*")) == before


async def test_a_half_made_cluster_is_made_anew_and_replaces_no_finished_one(home: Path, serve: Serve) -> None:
    (home / "agentws.lock").touch()
    (home / "data.new").mkdir(mode=0o700)
    (home / "data.new" / "PG_VERSION").write_text("18\n")
    server = serve(home)
    await ask(server, *COMMIT)
    assert not (home / "data.new").exists()
    server.stop()
    (home / "data.new").mkdir()
    server.start()
    assert await ask(server, READ) == 42


def test_a_failed_start_quotes_the_log_and_frees_the_directory(data_dir: Path, serve: Serve) -> None:
    settings = data_dir / "data" / "postgresql.auto.conf"
    settings.write_text("no_such_setting = 1\n")
    server = EmbeddedPostgres(data_dir)
    with pytest.raises(EmbeddedError, match=r"(?s)while starting.*no_such_setting"):
        server.start()
    assert not server.owner
    settings.write_text("")
    assert serve(data_dir).owner


@pytest.mark.parametrize("name", ["x" * 100, "a,b", "gerät"])
def test_a_path_that_no_socket_can_have_gets_a_short_private_one(data_dir: Path, serve: Serve, name: str) -> None:
    directory = data_dir.rename(data_dir.with_name(name))
    server = serve(directory)
    place = Path(unquote(server.url(user="u", database="d")).partition("host=")[2].partition("&")[0])
    try:
        assert place.parent == Path("/tmp")
        assert place.stat().st_mode & 0o777 == 0o700
        assert asyncio.run(ask(server, "SELECT 1")) == 1
        assert not serve(directory).owner
    finally:
        server.stop()
        place.rmdir()


@pytest.mark.skipif(not AS_ROOT, reason="root only")
async def test_below_a_closed_directory_the_data_go_elsewhere_and_are_found_again(
    home: Path, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "_ELSEWHERE", home / "elsewhere")
    modes = {path: path.stat().st_mode for path in tmp_path.parents}
    server = serve(tmp_path / "pg")
    (root,) = (home / "elsewhere").iterdir()
    assert str(root) in caplog.text
    await ask(server, *COMMIT)
    assert not serve(tmp_path / "pg").owner
    server.stop()
    server.start()
    assert await ask(server, READ) == 42
    assert {path: path.stat().st_mode for path in tmp_path.parents} == modes
    server.stop()
    shutil.rmtree(root)
    with pytest.raises(EmbeddedError, match="which is gone"):
        server.start()


@pytest.mark.skipif(not AS_ROOT, reason="root only")
def test_binaries_that_the_account_cannot_reach_are_copied_beside_the_data(
    data_dir: Path, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = embedded._package()
    for name in (source.name, f"{source.name}.libs"):
        (tmp_path / name).symlink_to(source.with_name(name))
    monkeypatch.setattr(embedded, "_package", lambda: tmp_path / source.name)
    for left in ("postgresql-17.1.0", "postgresql-18.6.3.new"):
        (data_dir / left).mkdir()
    serve(data_dir)
    (copy,) = data_dir.glob("postgresql-*")
    assert Path(f"/proc/{postmaster(data_dir)}/exe").readlink() == copy / source.name / "pginstall/bin/postgres"
    assert {path.stat().st_uid for path in copy.rglob("*")} == {0}


async def test_from_another_thread_it_is_refused(data_dir: Path) -> None:
    with pytest.raises(EmbeddedError, match="main thread"):
        await asyncio.to_thread(EmbeddedPostgres(data_dir).start)
