"""Programs that tools run: what comes back, what is refused, and that nothing of them is left."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentws.runtime import process
from agentws.runtime.process import ProcessError, run_process

from ..processes import ROOT

pytestmark = pytest.mark.long

SH = "/bin/sh"
# Tells the number of each process in a file, and hangs; what is in `$1` is done by the child before.
FAMILY = '(eval "$1"; echo $$ >"$0.parent"; exec sh -c \'echo $$ >"$0.child"; sleep 600\' "$0") & wait'
STUBBORN = "trap '' TERM; "


def family(mark: Path, does: str = "") -> tuple[str, ...]:
    """A command whose child hangs; `running` waits for it."""
    return (SH, "-c", f"{does}{FAMILY}", str(mark), does)


def begun(mark: Path) -> list[int]:
    """The process numbers of those of a family that have told theirs."""
    return [int(told) for file in mark.parent.glob(f"{mark.name}.*") if (told := file.read_text().strip())]


async def running(mark: Path) -> list[int]:
    """The process numbers of a family, once it is all there."""
    async with asyncio.timeout(20):
        while len(pids := begun(mark)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    return pids


def at_work(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def until_gone(*pids: int) -> None:
    async with asyncio.timeout(20):
        while any(map(at_work, pids)):  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No child of this process that was not there before, no file that was not open."""
    before = len(os.listdir("/proc/self/fd"))
    children = set(ours())
    yield
    assert set(ours()) <= children
    # The event loop's own are closed by then, or not yet.
    assert len(os.listdir("/proc/self/fd")) <= before


def ours() -> list[int]:
    """The processes whose parent this is, ended or not."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after[1]) == os.getpid():
            found.append(int(place.parent.name))
    return found


async def test_a_program_s_end_and_outputs_come_back() -> None:
    done = await run_process(SH, "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert not done.stdout_truncated
    assert not done.stderr_truncated


async def test_arguments_are_no_shell_s() -> None:
    words = ["a b", "$HOME", "`id`", "; exit 1", "*", ""]
    done = await run_process(sys.executable, "-c", "import sys; print(sys.argv[1:])", *words)
    assert done.stdout == f"{words}\n"


@pytest.mark.parametrize(
    ("given", "read"), [(None, ""), ("é🎈", "é🎈"), (b"raw", "raw"), ("x" * 300_000, "x" * 300_000)]
)
async def test_input_is_read(given: str | bytes | None, read: str) -> None:
    assert (await run_process("cat", input=given)).stdout == read


async def test_directory_and_variables_are_given(tmp_path: Path) -> None:
    done = await run_process(SH, "-c", 'pwd; echo "$A"', cwd=tmp_path, env={"A": "b"})
    assert done.stdout == f"{tmp_path}\nb\n"


async def test_the_server_s_own_variables_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTWS_JWT_SECRET", "secret")
    monkeypatch.setenv("MINE", "yes")
    done = await run_process("env")
    assert "MINE=yes" in done.stdout
    assert "AGENTWS" not in done.stdout


async def test_output_is_bounded_and_the_program_not_held_up() -> None:
    done = await run_process(
        SH,
        "-c",
        "head -c 5000000 /dev/zero | tr '\\0' x; head -c 10 /dev/zero >&2; echo end >&2",
        max_output_bytes=1000,
    )
    assert (done.returncode, done.stdout, done.stdout_truncated) == (0, "x" * 1000, True)
    assert (done.stderr.endswith("end\n"), done.stderr_truncated) == (True, False)
    exact = await run_process("printf", "x" * 10, max_output_bytes=10)
    assert (exact.stdout, exact.stdout_truncated) == ("x" * 10, False)


async def test_all_that_a_program_wrote_before_its_end_comes_back() -> None:
    for _ in range(20):
        done = await run_process(SH, "-c", "head -c 60000 /dev/zero | tr '\\0' x")
        assert len(done.stdout) == 60_000


async def test_what_is_no_text_is_replaced() -> None:
    assert (await run_process("printf", "a\\377b")).stdout == "a\ufffdb"


@pytest.mark.parametrize(
    ("command", "options", "why"),
    [
        ((), {}, "needs at least a program"),
        (("/nowhere/nothing",), {}, r"cannot start '/nowhere/nothing': .*No such file"),
        (("no-such-program-here",), {}, "cannot start 'no-such-program-here'"),
        (("/etc",), {}, r"cannot start '/etc': .*Permission denied"),
        (("true",), {"cwd": "/nowhere"}, r"cannot start 'true': .*/nowhere"),
        (("true", "a\0b"), {}, "cannot start 'true': embedded null"),
    ],
)
async def test_what_cannot_be_started_is_said(command: tuple[str, ...], options: dict[str, Any], why: str) -> None:
    with pytest.raises(ProcessError, match=why):
        await run_process(*command, **options)


async def test_a_program_without_an_interpreter_is_not_given_to_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo ran\n")
    script.chmod(0o755)
    with pytest.raises(ProcessError, match="Exec format error"):
        await run_process(script)


async def test_out_of_time_it_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    mark = tmp_path / "m"
    with pytest.raises(TimeoutError, match=r"'/bin/sh' did not end within 0\.5 s"):
        await run_process(*family(mark), timeout_s=0.5)
    # On a busy machine some may not have begun by then.
    assert not any(map(at_work, begun(mark)))


async def test_cancelled_it_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    mark = tmp_path / "m"
    task = asyncio.create_task(run_process(*family(mark)))
    pids = await running(mark)
    task.cancel()
    async with asyncio.timeout(1.5):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not any(map(at_work, pids))


@pytest.mark.parametrize("again", [False, True])
async def test_what_does_not_heed_the_first_signal_is_killed_after_a_while_or_when_cancelled_again(
    tmp_path: Path, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_TERMINATE_S", 600.0 if again else 0.2)
    mark = tmp_path / "m"
    task = asyncio.create_task(run_process(*family(mark, STUBBORN)))
    pids = await running(mark)
    task.cancel()
    if again:
        await asyncio.sleep(0.1)
        assert all(map(at_work, pids))
        task.cancel()
    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not any(map(at_work, pids))


async def test_what_a_program_leaves_behind_is_ended_and_does_not_hold_the_call(tmp_path: Path) -> None:
    # The child has the pipes open, and tells its number before its parent ends.
    began = time.monotonic()
    done = await run_process(SH, "-c", 'sleep 600 & echo "$!"')
    assert done.returncode == 0
    assert time.monotonic() - began < 60
    assert not at_work(int(done.stdout))


async def test_a_cancellation_while_what_was_left_behind_is_ended_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_TERMINATE_S", 600.0)
    mark = tmp_path / "m"
    task = asyncio.create_task(run_process(SH, "-c", f"{STUBBORN}({FAMILY}) &", str(mark), STUBBORN))
    pids = await running(mark)
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(map(at_work, pids))


async def test_what_has_left_its_group_does_not_hold_the_call_either() -> None:
    code = "import os,time\nif os.fork():\n os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    async with asyncio.timeout(30):
        done = await run_process(SH, "-c", f'{sys.executable} -c "$0"; sleep 0.2', code)
    pid = int(done.stdout)
    assert at_work(pid)
    os.kill(pid, signal.SIGKILL)
    await until_gone(pid)


async def test_many_at_once_leave_nothing() -> None:
    async def one(number: int) -> str:
        return (await run_process("echo", str(number))).stdout

    assert await asyncio.gather(*(one(number) for number in range(20))) == [f"{number}\n" for number in range(20)]


async def test_where_there_is_no_handle_of_a_process_a_thread_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(pid: int) -> int:
        raise OSError("not here")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert (await run_process("echo", "hi")).stdout == "hi\n"
    mark = tmp_path / "m"
    task = asyncio.create_task(run_process(*family(mark)))
    pids = await running(mark)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(map(at_work, pids))


@pytest.mark.parametrize("does", ["", STUBBORN])
async def test_when_the_server_is_killed_its_programs_end(tmp_path: Path, does: str) -> None:
    mark = tmp_path / "m"
    code = f"import asyncio, agentws\nasyncio.run(agentws.run_process(*{family(mark, does)!r}))"
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT)
    try:
        pids = await running(mark)
    finally:
        server.kill()
        await server.wait()
    await until_gone(*pids)
