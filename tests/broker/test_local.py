"""Followers in this process are told at once, in order, each of its own threads only."""

import pytest

from agentws.broker.local import LocalBroker
from agentws.core.context import Principal
from agentws.core.replay import Batch
from agentws.ports import ThreadKey
from agentws.wire.ids import ThreadId


class Recorder:
    def __init__(self) -> None:
        self.heard: list[int] = []

    def push(self, batch: Batch) -> None:
        self.heard.append(batch.last_seq)


def key(thread_id: str = "t", user_id: str = "u", tenant_id: str = "") -> ThreadKey:
    return ThreadKey(Principal(tenant_id, user_id), ThreadId(thread_id))


def batch(last_seq: int) -> Batch:
    return Batch(epoch="e", after_seq=last_seq - 1, last_seq=last_seq)


def test_all_followers_of_a_thread_hear_everything_in_order() -> None:
    broker, one, two = LocalBroker(), Recorder(), Recorder()
    broker.subscribe(key(), one)
    broker.subscribe(key(), two)
    for last_seq in (1, 2, 3):
        broker.publish(key(), batch(last_seq))
    assert one.heard == two.heard == [1, 2, 3]


@pytest.mark.parametrize("other", [key("t2"), key(user_id="v"), key(tenant_id="acme")])
def test_nobody_hears_of_another_thread_user_or_tenant(other: ThreadKey) -> None:
    broker, recorder = LocalBroker(), Recorder()
    broker.subscribe(key(), recorder)
    broker.publish(other, batch(1))
    broker.unsubscribe(other, recorder)
    broker.publish(key(), batch(2))
    assert recorder.heard == [2]


def test_what_nobody_followed_is_not_kept_for_who_comes_later() -> None:
    broker, recorder = LocalBroker(), Recorder()
    broker.publish(key(), batch(1))
    broker.subscribe(key(), recorder)
    assert recorder.heard == []


def test_who_has_unsubscribed_hears_nothing_more() -> None:
    broker, stays, leaves = LocalBroker(), Recorder(), Recorder()
    broker.subscribe(key(), stays)
    broker.subscribe(key(), leaves)
    broker.publish(key(), batch(1))
    broker.unsubscribe(key(), leaves)
    broker.publish(key(), batch(2))
    assert (stays.heard, leaves.heard) == ([1, 2], [1])


def test_unsubscribing_again_does_nothing() -> None:
    broker, recorder = LocalBroker(), Recorder()
    broker.unsubscribe(key(), recorder)
    broker.subscribe(key(), recorder)
    broker.unsubscribe(key(), recorder)
    broker.unsubscribe(key(), recorder)
    broker.publish(key(), batch(1))
    assert recorder.heard == []


def test_subscribing_twice_is_subscribing_once() -> None:
    broker, recorder = LocalBroker(), Recorder()
    broker.subscribe(key(), recorder)
    broker.subscribe(key(), recorder)
    broker.publish(key(), batch(1))
    assert recorder.heard == [1]


def test_a_follower_that_fails_is_logged_and_does_not_keep_others_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def push(self, batch: Batch) -> None:
            raise RuntimeError("broken follower")

    broker, before, after = LocalBroker(), Recorder(), Recorder()
    for listener in (before, Broken(), after):
        broker.subscribe(key(), listener)
    broker.publish(key(), batch(1))
    assert before.heard == after.heard == [1]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "broken follower" in caplog.text


def test_a_follower_may_leave_or_come_while_it_is_told() -> None:
    broker, late = LocalBroker(), Recorder()

    class Leaving(Recorder):
        def push(self, batch: Batch) -> None:
            super().push(batch)
            broker.unsubscribe(key(), self)
            broker.subscribe(key(), late)

    leaving = Leaving()
    broker.subscribe(key(), leaving)
    broker.publish(key(), batch(1))
    broker.publish(key(), batch(2))
    assert (leaving.heard, late.heard) == ([1], [2])
