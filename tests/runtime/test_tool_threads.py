"""Tools in threads are bounded, told, waited for and left; none that is left takes another's place."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentws.runtime.tools import StopSign, ToolCall, ToolThreads, TooManyLeft, invoke, stopping


class Block:
    """A tool that stays in its thread until `release`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._go_on = threading.Event()
        self.begun = asyncio.Event()
        self.told: list[bool] = []

    def __call__(self) -> str:
        self._loop.call_soon_threadsafe(self.begun.set)
        self._go_on.wait(30)
        self.told.append(stopping())
        return "released"

    def release(self) -> None:
        self._go_on.set()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


async def left(threads: ToolThreads) -> Block:
    """A tool whose caller has gone."""
    block = Block()
    call = asyncio.create_task(invoke(block, {}, threads=threads))
    await block.begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    return block


async def until_none_at_work(threads: ToolThreads) -> None:
    async with asyncio.timeout(20):
        while threads.at_work:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_tool_that_was_left_takes_no_other_s_place(executor: ThreadPoolExecutor) -> None:
    threads = ToolThreads(executor, most=1, most_left=2)
    blocks = [await left(threads)]
    async with asyncio.timeout(20):
        assert await invoke(lambda: "served", {}, threads=threads) == "served"
    assert (threads.at_work, threads.abandoned) == (1, 1)
    blocks[0].release()
    await until_none_at_work(threads)
    assert threads.abandoned == 0
    assert blocks[0].told == [True]


async def test_beyond_the_limit_of_those_left_a_tool_is_refused_and_not_called(
    executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    threads = ToolThreads(executor, most=1, most_left=1)
    block = await left(threads)
    called: list[int] = []
    with caplog.at_level(logging.ERROR), pytest.raises(TooManyLeft, match="1 tools"):
        await invoke(lambda: called.append(1), {}, threads=threads)
    assert not called
    assert "no other is called" in caplog.text
    block.release()
    await until_none_at_work(threads)
    await invoke(lambda: called.append(1), {}, threads=threads)
    assert called == [1]


async def test_who_waits_for_a_thread_is_refused_when_the_last_one_was_left(executor: ThreadPoolExecutor) -> None:
    threads = ToolThreads(executor, most=1, most_left=1)
    block = Block()
    holder = asyncio.create_task(invoke(block, {}, threads=threads))
    await block.begun.wait()
    waiting = asyncio.create_task(invoke(lambda: None, {}, threads=threads))
    await asyncio.sleep(0)
    assert threads.at_work == 2
    holder.cancel()
    async with asyncio.timeout(20):
        with pytest.raises(TooManyLeft):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await holder
    block.release()
    await until_none_at_work(threads)


async def test_no_more_are_at_work_than_may_be_and_each_gets_its_turn(executor: ThreadPoolExecutor) -> None:
    threads = ToolThreads(executor, most=2)
    lock, going, most = threading.Lock(), 0, 0

    def count(number: int) -> int:
        nonlocal going, most
        with lock:
            going += 1
            most = max(most, going)
        with lock:
            going -= 1
        return number

    async with asyncio.timeout(20):
        results = await asyncio.gather(*(invoke(count, {"number": each}, threads=threads) for each in range(50)))
    assert results == list(range(50))
    assert most <= 2
    await until_none_at_work(threads)


async def test_one_that_is_cancelled_while_it_waits_for_a_thread_is_never_called(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = ToolThreads(executor, most=1)
    block, called = Block(), threading.Event()
    holder = asyncio.create_task(invoke(block, {}, threads=threads))
    await block.begun.wait()
    call = ToolCall(StopSign())
    waiting = [asyncio.create_task(invoke(called.set, {}, threads=threads, call=call)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    serve = threads._serve_waiting

    def serve_and_cancel() -> None:
        serve()
        waiting[1].cancel()

    # The second has been given its turn when it is cancelled, and gives it back.
    monkeypatch.setattr(threads, "_serve_waiting", serve_and_cancel)
    block.release()
    assert await holder == "released"
    assert [type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)] == [
        asyncio.CancelledError,
        asyncio.CancelledError,
    ]
    assert not call.began
    assert not call.left
    async with asyncio.timeout(20):
        assert await invoke(lambda: "next", {}, threads=threads) == "next"
    assert not called.is_set()
    await until_none_at_work(threads)


async def test_while_the_run_stops_a_call_is_waited_for(executor: ThreadPoolExecutor) -> None:
    threads, sign = ToolThreads(executor), StopSign()
    block, call = Block(), ToolCall(sign)
    task = asyncio.create_task(invoke(block, {}, threads=threads, call=call))
    await block.begun.wait()
    sign.put_up(wait_until=asyncio.get_running_loop().time() + 20)
    task.cancel()
    asyncio.get_running_loop().call_soon(block.release)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not call.left
    assert block.told == [True]
    await until_none_at_work(threads)


@pytest.mark.parametrize("again", [False, True])
async def test_it_is_left_when_its_time_is_over_or_it_is_cancelled_again(
    again: bool, executor: ThreadPoolExecutor
) -> None:
    threads, sign = ToolThreads(executor), StopSign()
    block, call = Block(), ToolCall(sign)
    task = asyncio.create_task(invoke(block, {}, threads=threads, call=call))
    await block.begun.wait()
    sign.put_up(wait_until=asyncio.get_running_loop().time() + (600 if again else 0.01))
    task.cancel()
    if again:
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert call.left
    assert threads.abandoned == 1
    block.release()
    await until_none_at_work(threads)


async def test_a_result_that_was_there_is_not_lost_to_a_cancellation() -> None:
    call = ToolCall(StopSign())
    with ThreadPoolExecutor(1) as executor:
        task = asyncio.create_task(invoke(lambda: "there", {}, threads=ToolThreads(executor), call=call))
        await asyncio.sleep(0)
        # Its only thread has gone on to this, and the loop, which stood still, has not heard of the end.
        executor.submit(int).result(20)
        task.cancel()
        assert await task == "there"
    assert call.owed


async def test_a_coroutine_that_a_thread_had_made_is_not_begun_after_a_cancellation() -> None:
    begun: list[int] = []

    async def tool() -> None:
        begun.append(1)

    with ThreadPoolExecutor(1) as executor:
        task = asyncio.create_task(invoke(lambda: tool(), {}, threads=ToolThreads(executor)))
        await asyncio.sleep(0)
        executor.submit(int).result(20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not begun


@pytest.mark.parametrize("why", ["stopping", "withdrawn"])
@pytest.mark.parametrize("in_loop", [True, False])
async def test_a_call_that_is_not_wanted_any_more_is_not_made(
    executor: ThreadPoolExecutor, why: str, in_loop: bool
) -> None:
    threads, sign, called = ToolThreads(executor), StopSign(), list[int]()

    async def tool() -> None:
        called.append(1)

    call = ToolCall(sign)
    if why == "stopping":
        sign.put_up(wait_until=None)
    else:
        call.withdraw()
    with pytest.raises(asyncio.CancelledError):
        await invoke(tool if in_loop else lambda: called.append(1), {}, threads=threads, call=call)
    assert not called
    assert not call.began
    assert threads.at_work == 0
    # What is asked for after the stop is to clean up.
    await invoke(tool if in_loop else lambda: called.append(1), {}, threads=threads, call=ToolCall(sign))
    assert called == [1]
    await until_none_at_work(threads)


async def test_a_thread_may_end_after_the_loop(executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Event()

    async def leave() -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def tool() -> None:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(30)

        task = asyncio.create_task(invoke(tool, {}, threads=ToolThreads(executor)))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await asyncio.to_thread(asyncio.run, leave())
    go_on.set()
    await asyncio.to_thread(executor.shutdown)
    assert not caplog.records


def test_outside_a_tool_nothing_is_stopping() -> None:
    assert stopping() is False
