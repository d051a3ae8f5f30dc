"""Section 4, run events: which come, in what order, and that they fold to what the run ended with. That every field is
there and of its type is checked by the client on every frame."""

import pytest

from .client import Client, Server, connect
from .reader import Reader
from .runs import QUESTION
from .shapes import CRITICAL, TERMINAL, Frame

NEEDS_AGENTS = pytest.mark.needs("agents")


def kinds(events: list[Frame]) -> list[str]:
    return [event["type"] for event in events]


def first_occurrences(events: list[Frame], wanted: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(kind for kind in kinds(events) if kind in wanted))


def folded(events: list[Frame]) -> Reader:
    """A run's own events, which begin with its `agent_started`."""
    return Reader(events[0]["seq"] - 1).feed_all(events)


def only(events: list[Frame], kind: str) -> Frame:
    [event] = [event for event in events if event["type"] == kind]
    return event


@pytest.mark.parametrize(
    ("agent", "text"), [("demo", QUESTION), pytest.param("tool", "look this up", marks=NEEDS_AGENTS)]
)
async def test_the_five_critical_events_come_in_their_order(server: Server, agent: str, text: str) -> None:
    async with connect(server) as client:
        events = await client.run(text, agent=agent)
        assert first_occurrences(events, CRITICAL) == list(CRITICAL)
        assert (kinds(events)[0], kinds(events)[-1]) == ("agent_started", "agent_completed")


async def test_the_default_agent_answers_arithmetic_with_its_result(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run(QUESTION)
        assert events[0]["agent_name"] == "demo"
        assert "84" in events[-1]["payload"]["response"]


async def test_the_default_agent_repeats_other_text(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("quick brown foxes")
        assert "quick brown foxes" in events[-1]["payload"]["response"]


@pytest.mark.parametrize(
    ("agent", "text"),
    [
        ("demo", "what is 2 + 2?"),
        ("demo", "Zoë 🎈"),
        *[
            pytest.param(agent, text, marks=NEEDS_AGENTS)
            for agent, text in [("tool", "abc"), ("echo", "Zoë 🎈"), ("stream", "25")]
        ],
    ],
)
async def test_the_pieces_joined_are_the_response(server: Server, agent: str, text: str) -> None:
    async with connect(server) as client:
        events = await client.run(text, agent=agent)
        assert folded(events).answer(events[0]["run_id"]) == events[-1]["payload"]["response"]


async def test_every_event_names_its_user_thread_run_request_and_agent(server: Server) -> None:
    async with connect(server) as client:
        accepted = await client.start(QUESTION)
        await client.ended(accepted["run_id"])
        for event in client.events(accepted["thread_id"]):
            assert (event["user_id"], event["agent_name"], event["attempt"]) == (client.user_id, "demo", 1)
            for name in ("thread_id", "run_id", "request_id", "epoch"):
                assert event[name] == accepted[name]
            assert not {"root_run_id", "parent_run_id", "depth"} & event.keys()


async def test_a_runs_start_tells_the_users_text(server: Server) -> None:
    async with connect(server) as client:
        started = (await client.run("word for word"))[0]
        assert started["payload"]["message"] == "word for word"


@NEEDS_AGENTS
async def test_a_tool_call_tells_its_parameters_and_its_result(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("abc", agent="tool")
        executing, completed = only(events, "tool_executing"), only(events, "tool_completed")
        assert executing["payload"]["execution_id"] == completed["payload"]["execution_id"]
        for event in (executing, completed):
            assert event["tool_name"] == event["payload"]["tool_name"] == "lookup"
        assert executing["payload"]["parameters"] == {"text": "abc"}
        assert completed["payload"]["result"] == completed["results"] == {"found": "cba"}
        assert (completed["payload"]["outcome"], completed["payload"]["error"]) == ("done", None)
        assert events[-1]["payload"]["response"] == "cba"


@NEEDS_AGENTS
async def test_a_tools_thought_is_told_before_it(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("abc", agent="tool")
        thoughts = folded(events).runs[events[0]["run_id"]].thoughts
        assert [thought.text for thought in thoughts.values()] == ["Looking it up"]


@NEEDS_AGENTS
async def test_thoughts_are_numbered_by_step_from_one(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi", agent="thinker")
        thoughts = folded(events).runs[events[0]["run_id"]].thoughts
        assert list(thoughts) == [1, 2, 3]
        assert events[-1]["payload"]["response"] == "ok"


@NEEDS_AGENTS
async def test_the_server_makes_no_event_up(server: Server) -> None:
    async with connect(server) as client:
        assert set(kinds(await client.run("hi", agent="echo"))) == {"agent_started", "agent_message", "agent_completed"}


@NEEDS_AGENTS
async def test_what_the_agent_emits_is_told_as_it_is(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi", agent="notify")
        assert only(events, "agent_event")["payload"] == {"name": "app.thing", "value": {"n": 1}}
        assert kinds(events).index("agent_event") < kinds(events).index("agent_completed")
        assert events[-1]["payload"]["response"] == "done"


@NEEDS_AGENTS
async def test_progress_is_told_between_a_tools_two_events_and_may_be_merged_to_the_latest(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("hi", agent="steps")
        told = [event for event in events if event["type"] == "tool_progress"]
        around = [kind for kind in kinds(events) if kind.startswith("tool_")]
        assert around == ["tool_executing", *["tool_progress"] * len(told), "tool_completed"]
        assert (told[-1]["payload"]["progress"], told[-1]["payload"]["message"]) == (0.75, "step 3")
        progress = [event["payload"]["progress"] for event in told]
        assert progress == sorted(progress)
        execution = only(events, "tool_executing")["payload"]["execution_id"]
        assert {event["payload"]["execution_id"] for event in told} == {execution}
        assert {event["tool_name"] for event in told} == {"climb"}


@NEEDS_AGENTS
async def test_offsets_count_code_points(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("60", agent="astral")
        text = "".join(f"🎈é{number} " for number in range(60))
        pieces = [event["payload"] for event in events if event["type"] == "agent_message"]
        assert len(pieces) > 1
        assert [piece["text"] for piece in pieces] == [
            text[piece["offset"] : piece["offset"] + len(piece["text"])] for piece in pieces
        ]
        assert folded(events).answer(events[0]["run_id"]) == events[-1]["payload"]["response"] == text


@NEEDS_AGENTS
async def test_a_streamed_answer_comes_in_pieces_that_join(server: Server) -> None:
    async with connect(server) as client:
        events = await client.run("100", agent="stream")
        told = folded(events).answer(events[0]["run_id"])
        assert told.split() == [f"w{number}" for number in range(100)]
        assert told == events[-1]["payload"]["response"]


ENDINGS = [
    ("demo", "agent_completed"),
    ("echo", "agent_completed"),
    ("badtool", "agent_completed"),
    ("badresult", "agent_completed"),
    ("fail", "agent_error"),
    ("unencodable", "agent_error"),
    ("timeout", "agent_error"),
]


@pytest.mark.parametrize(
    ("agent", "ending"), [ENDINGS[0], *(pytest.param(*ending, marks=NEEDS_AGENTS) for ending in ENDINGS[1:])]
)
async def test_a_run_has_one_terminal_event_and_nothing_after_it(server: Server, agent: str, ending: str) -> None:
    async with connect(server) as client:
        accepted = await client.start("hi", agent=agent)
        assert (await client.ended(accepted["run_id"]))["type"] == ending
        await client.run("after it")
        _, events = await client.replay(accepted["thread_id"])
        of_it = Reader().feed_all(events).of(accepted["run_id"])
        assert [kind for kind in kinds(of_it) if kind in TERMINAL] == [ending]
        assert kinds(of_it)[-1] == ending


@NEEDS_AGENTS
async def test_numbers_are_dense_over_all_runs_of_a_thread(server: Server) -> None:
    async with connect(server) as client:
        thread_id = (await client.new_thread())["thread_id"]
        for agent in ("echo", "tool", "fail", "thinker", "demo", "badtool"):
            await client.run("hi", agent=agent, thread_id=thread_id)
        subscribed, events = await client.replay(thread_id)
        reader = Reader().feed_all(events)
        assert reader.last_seq == subscribed["last_seq"]
        assert len(reader.runs) == 6


async def test_numbers_of_two_threads_are_their_own(server: Server) -> None:
    async with connect(server) as client:
        for _ in range(2):
            thread_id = (await client.new_thread())["thread_id"]
            events = await client.run("hi", thread_id=thread_id)
            assert events[0]["seq"] == 1


async def run_by(client: Client, kind: str, field: str) -> list[Frame]:
    accepted = await client.granted({"type": kind, field: QUESTION}, "request_accepted")
    await client.ended(accepted["run_id"])
    return client.reader(accepted["thread_id"], after_seq=accepted["seq"], since=accepted).of(accepted["run_id"])


async def test_all_ways_to_start_tell_the_same_events(server: Server) -> None:
    async with connect(server) as client:
        ways = [("user_message", "content"), ("chat", "message"), ("start_agent", "user_request")]
        told = [first_occurrences(await run_by(client, *way), CRITICAL) for way in ways]
        assert told == [list(CRITICAL)] * 3
