"""Section 3: what `update_thread`, `switch_thread`, `get_thread_history` and `delete_thread` have in common."""

import pytest

from .client import Server, connect, fresh
from .shapes import Frame
from .threads import listed

ANSWER_OF = {
    "update_thread": "thread_updated",
    "switch_thread": "thread_switched",
    "get_thread_history": "thread_history",
    "delete_thread": "thread_deleted",
}
NAMED_ONLY = [*ANSWER_OF, "subscribe", "unsubscribe"]
every = pytest.mark.parametrize("kind", ANSWER_OF)


@every
async def test_the_thread_may_be_named_in_the_payload_or_at_the_top(server: Server, kind: str) -> None:
    async with connect(server) as client:
        for shape in ("payload", "flat", "top beside a payload", "both"):
            thread_id = (await client.new_thread())["thread_id"]
            frame: Frame = {"type": kind}
            if shape != "payload":
                frame["thread_id"] = thread_id
            if shape != "flat":
                frame["payload"] = {"thread_id": thread_id} if shape in {"payload", "both"} else {}
            await client.granted(frame, ANSWER_OF[kind])


@pytest.mark.parametrize("kind", NAMED_ONLY)
@pytest.mark.parametrize("frame", [{}, {"payload": {}}, {"thread_id": None}, {"payload": {"thread_id": None}}])
async def test_a_frame_that_names_no_thread_names_the_field(server: Server, kind: str, frame: Frame) -> None:
    async with connect(server) as client:
        await client.refused({"type": kind, **frame}, "validation_error", field="thread_id")


@every
@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "ü", 5, True, [], {}])
async def test_a_thread_id_of_the_wrong_form_is_named(server: Server, kind: str, bad: object) -> None:
    async with connect(server) as client:
        await client.refused({"type": kind, "thread_id": bad}, "validation_error", field="thread_id")
        await client.refused({"type": kind, "payload": {"thread_id": bad}}, "validation_error", field="thread_id")


@every
async def test_a_thread_that_the_user_lacks_is_not_found(server: Server, kind: str) -> None:
    async with connect(server) as client:
        await client.refused({"type": kind, "thread_id": fresh("t")}, "thread_not_found")
        await client.still_serves()


@every
async def test_another_users_thread_is_not_found_and_stays_as_it_was(server: Server, kind: str) -> None:
    async with connect(server) as owner, connect(server) as stranger:
        thread = await owner.new_thread(title="mine", metadata={"a": 1})
        payload = {"thread_id": thread["thread_id"], "title": "theirs", "metadata": {}}
        await stranger.refused({"type": kind, "payload": payload}, "thread_not_found")
        assert (await listed(owner))["threads"] == [thread]
        assert (await listed(stranger))["threads"] == []


@every
async def test_of_two_users_threads_of_one_name_only_ones_own_is_meant(server: Server, kind: str) -> None:
    name = fresh("t")
    async with connect(server) as one, connect(server) as two:
        await one.new_thread(name, title="one's")
        before = await two.new_thread(name, title="two's")
        await one.granted({"type": kind, "payload": {"thread_id": name, "title": "changed"}}, ANSWER_OF[kind])
        assert (await listed(two))["threads"] == [before]
        await two.still_serves()
        assert not any(frame["type"] == "thread_deleted" for frame in two.log)


@every
async def test_two_different_threads_are_ambiguous_and_both_stay(server: Server, kind: str) -> None:
    async with connect(server) as client:
        one, two = [(await client.new_thread())["thread_id"] for _ in range(2)]
        await client.refused({"type": kind, "thread_id": one, "payload": {"thread_id": two}}, "ambiguous_thread")
        assert {thread["thread_id"] for thread in (await listed(client))["threads"]} == {one, two}


@pytest.mark.parametrize("kind", [*ANSWER_OF, "list_threads"])
@pytest.mark.parametrize("inside", [False, True], ids=["at the top", "in the payload"])
async def test_another_users_id_is_refused_and_nothing_happens(server: Server, kind: str, inside: bool) -> None:
    async with connect(server) as client:
        thread = await client.new_thread(title="as it was")
        fields: Frame = {"thread_id": thread["thread_id"], "title": "changed"}
        claim = {"user_id": fresh("other")}
        frame = {"payload": fields | claim} if inside else {"payload": fields, **claim}
        await client.refused({"type": kind, **frame}, "identity_mismatch")
        assert (await listed(client))["threads"] == [thread]


@pytest.mark.parametrize("kind", [*ANSWER_OF, "list_threads"])
@pytest.mark.parametrize("payload", ["text", 5, True, []])
async def test_a_payload_that_is_no_object_is_refused(server: Server, kind: str, payload: object) -> None:
    async with connect(server) as client:
        await client.refused({"type": kind, "thread_id": fresh("t"), "payload": payload}, "validation_error")


@every
async def test_the_types_are_checked_before_the_thread_is_looked_for(server: Server, kind: str) -> None:
    async with connect(server) as client:
        field = {"update_thread": "title", "switch_thread": "after_seq", "get_thread_history": "limit"}.get(kind)
        if field is not None:
            frame = {"type": kind, "payload": {"thread_id": fresh("t"), field: []}}
            await client.refused(frame, "validation_error", field=field)
        mismatch = {"type": kind, "thread_id": fresh("t"), "user_id": fresh("other")}
        await client.refused(mismatch | {"payload": {"thread_id": fresh("t")}}, "identity_mismatch")


async def test_thread_frames_are_answered_in_the_order_in_which_they_were_sent(server: Server) -> None:
    async with connect(server) as client:
        name = fresh("t")
        sent = [
            await client.post({"type": kind, "thread_id": name, **fields})
            for kind, fields in [
                ("create_thread", {"title": "first"}),
                ("update_thread", {"title": "second"}),
                ("list_threads", {}),
                ("get_thread_history", {}),
                ("delete_thread", {}),
                ("get_thread_history", {}),
                ("create_thread", {}),
            ]
        ]
        answers = [await client.answer_to(frame_id) for frame_id in sent]
        kinds = ["thread_created", "thread_updated", "thread_list", "thread_history", "thread_deleted", "error"]
        assert [answer["type"] for answer in answers] == [*kinds, "thread_created"]
        assert [frame["id"] for frame in client.log if frame.get("id") in sent] == sent
        assert answers[2]["threads"][0]["title"] == "second"
        assert answers[-1]["thread"]["title"] is None
