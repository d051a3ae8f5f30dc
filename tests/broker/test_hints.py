"""What travels between processes fits, can be read again, tells of nobody, and is bounded while it waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentws.broker.hints import MOST_BYTES, Hint, Letter, Outbox, read_letter, topic_of, write_letters
from agentws.core.context import Principal
from agentws.ports import ThreadKey
from agentws.wire.ids import RunNo, ThreadId


def key(thread_id: str = "t", user_id: str = "u", tenant_id: str = "") -> ThreadKey:
    return ThreadKey(Principal(tenant_id, user_id), ThreadId(thread_id))


TOPIC = topic_of(key())


def read_all(letters: list[str]) -> list[Letter]:
    read = [read_letter(letter) for letter in letters]
    return [letter for letter in read if letter is not None]


def test_what_is_written_is_read() -> None:
    outbox = Outbox(echo=7)
    hints = [Hint(TOPIC, "e1", 12, False), Hint(topic_of(key("other")), "e2", 3, True)]
    for hint in hints:
        outbox.add(hint)
    outbox.add_stop(RunNo(5))
    outbox.add_work()
    (letter,) = write_letters("me", outbox)
    assert read_letter(letter) == Letter(sender="me", echo=7, hints=hints, stops=[RunNo(5)], work=True)


def test_hints_of_a_thread_become_one_with_the_greatest_number_and_a_deletion_is_kept() -> None:
    outbox = Outbox()
    for last_seq, deleted in ((3, False), (9, True), (5, False)):
        outbox.add(Hint(TOPIC, "e", last_seq, deleted))
    outbox.add(Hint(TOPIC, "new", 1, False))
    assert len(outbox) == 2
    (letter,) = read_all(write_letters("me", outbox))
    assert letter.hints == [Hint(TOPIC, "e", 9, True), Hint(TOPIC, "new", 1, False)]


def test_beyond_the_bound_the_oldest_are_dropped() -> None:
    outbox = Outbox(most=3)
    for number in range(5):
        outbox.add(Hint(topic_of(key(str(number))), "e", 1, False))
        outbox.add_stop(RunNo(number))
    (letter,) = read_all(write_letters("me", outbox))
    assert [hint.topic for hint in letter.hints] == [topic_of(key(str(number))) for number in (2, 3, 4)]
    assert letter.stops == [2, 3, 4]


def test_what_was_not_told_is_put_back_before_what_is_newer() -> None:
    outbox = Outbox(most=2, echo=1)
    outbox.add(Hint(TOPIC, "e", 4, True))
    outbox.add_work()
    taken = outbox.take()
    assert not outbox
    outbox.add(Hint(TOPIC, "e", 2, False))
    outbox.add(Hint(TOPIC, "later", 1, False))
    outbox.put_back(taken)
    (letter,) = read_all(write_letters("me", outbox))
    assert (letter.echo, letter.work) == (None, True)
    assert letter.hints == [Hint(TOPIC, "e", 4, True), Hint(TOPIC, "later", 1, False)]


def test_many_hints_are_few_letters_each_of_which_the_database_takes() -> None:
    outbox = Outbox()
    for number in range(1000):
        outbox.add(Hint(topic_of(key(str(number))), "0123456789ab", 10**17 + number, True))
    letters = write_letters("s" * 12, outbox)
    assert all(len(letter.encode()) <= MOST_BYTES for letter in letters)
    assert len(letters) <= 1 + 1000 * 60 // MOST_BYTES
    assert sum(len(letter.hints) for letter in read_all(letters)) == 1000


def test_a_topic_tells_nothing_and_differs_for_every_part_of_the_key() -> None:
    keys = [key(), key("t2"), key(user_id="v"), key(tenant_id="u"), key("", "ut"), key("tu", ""), key("", "", "ut")]
    topics = {topic_of(each) for each in keys}
    assert len(topics) == len(keys)
    assert {len(topic) for topic in topics} == {22}
    assert topic_of(key()) == TOPIC


def test_an_epoch_that_could_end_the_quotes_is_not_sent() -> None:
    outbox = Outbox()
    for epoch in ("it's", "a b", "", "x\n", "x" * 65, "ü"):
        outbox.add(Hint(TOPIC, epoch, 1, False))
    assert not outbox


@pytest.mark.parametrize(
    "text", ["", "2 me", "1", "1 ", "1 me x", "1 me 1 2", " 1 me", "{}", "1 m'e", "\0", "1 " + "m" * 33]
)
def test_a_letter_of_another_form_is_none(text: str) -> None:
    assert read_letter(text) is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "w ",
        f"{TOPIC} e",
        f"{TOPIC} e x",
        f"{TOPIC} e -1",
        f"{TOPIC} e {10**18}",
        f"{TOPIC} e 1 x",
        "s",
        "s x",
        "s 1 2",
    ],
)
def test_an_entry_of_another_form_does_not_keep_the_others_from_being_read(line: str) -> None:
    read = read_letter(f"1 me\n{TOPIC} e 1\n{line}\ns 4")
    assert read == Letter(sender="me", echo=None, hints=[Hint(TOPIC, "e", 1, False)], stops=[RunNo(4)], unreadable=1)


@given(st.text())
def test_reading_never_fails(text: str) -> None:
    read_letter(text)
    assert read_letter(f"1 me\n{text}") is not None
