"""Identifiers: which texts are ids, and that the made ones are fresh, well formed and readable back."""

import pytest

from agentws.wire.ids import (
    RunNo,
    ThreadNo,
    is_client_id,
    is_principal_name,
    new_connection_id,
    new_number,
    new_thread_id,
    request_id_of,
    run_id_of,
    run_no_of_request,
)

NUMBERS = [0, 2, 0xABCDEF, (1 << 63) - 2, (1 << 63) - 1]


@pytest.mark.parametrize("value", ["a", "7", "-", ".", ":", "_", "AZaz09._:-", "x" * 128, "null", "..", "__proto__"])
def test_a_text_of_the_given_characters_is_a_client_id(value: str) -> None:
    assert is_client_id(value)


@pytest.mark.parametrize(
    "value", ["", " ", "a b", "x" * 129, "ü", "a/b", "a\n", "\na", "a\0", "a@b", "٣", "a\u200b", "\ud800", "a+b", "{a}"]
)
def test_any_other_text_is_no_client_id(value: str) -> None:
    assert not is_client_id(value)


@pytest.mark.parametrize("value", ["a", " ", "x" * 255, "🎈" * 255, "auth0|5f", "Zoë & Co.", "' OR 1=1 --", "a\u2028b"])
def test_a_principal_may_have_any_name_without_control_characters(value: str) -> None:
    assert is_principal_name(value)


@pytest.mark.parametrize(
    "value", ["", "x" * 256, "a\nb", "\0", "\x1f", "a\x7f", "\x80", "a\x9f", "\ud800", "\udfff", "a\tb", "a\n"]
)
def test_a_name_is_not_empty_nor_long_nor_holds_control_characters_or_surrogates(value: str) -> None:
    assert not is_principal_name(value)


def test_numbers_are_even_distinct_and_fit_63_bits() -> None:
    numbers = [new_number() for _ in range(20_000)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 < number < 1 << 63 and number % 2 == 0 for number in numbers)


def test_numbers_made_later_are_greater_by_their_time() -> None:
    milliseconds = [new_number() >> 21 for _ in range(1000)]
    assert milliseconds == sorted(milliseconds)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_request_id_gives_its_run_back(number: int) -> None:
    request_id = request_id_of(RunNo(number))
    assert is_client_id(request_id)
    assert run_no_of_request(request_id) == number


@pytest.mark.parametrize(
    "request_id",
    [
        *("", "req-", "req-1", "run-0000000000000002", "req-00000000000000002", "req-000000000000000g"),
        *("REQ-0000000000000002", "req-000000000000000A", " req-0000000000000002", "req-0000000000000002\n"),
        *("req-8000000000000000", "req-ffffffffffffffff", "req--000000000000002", "req-" + "\u0660" * 16),
    ],
)
def test_another_text_is_the_request_of_no_run(request_id: str) -> None:
    assert run_no_of_request(request_id) is None


@pytest.mark.parametrize("number", NUMBERS)
def test_ids_made_from_a_number_are_client_ids_of_their_own_kind(number: int) -> None:
    made = [request_id_of(RunNo(number)), run_id_of(RunNo(number)), new_thread_id(ThreadNo(number))]
    assert all(is_client_id(each) for each in made)
    assert len(set(made)) == 3


def test_different_numbers_make_different_ids() -> None:
    assert len({run_id_of(RunNo(number)) for number in NUMBERS}) == len(NUMBERS)
    assert len({new_thread_id(ThreadNo(number)) for number in NUMBERS}) == len(NUMBERS)


def test_connection_ids_are_fresh_client_ids() -> None:
    made = {new_connection_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(is_client_id(each) for each in made)
