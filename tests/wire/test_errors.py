"""The catalogue of errors against the table of section 4 and the statuses of section 6."""

import re

import pytest

from agentws.wire.errors import CATALOGUE, AgentError, Fault, Refusal

LIMITS = ["rate_limited", "overloaded", "too_many_runs", "too_many_subscriptions", "too_many_threads", "draining"]
FINAL = [
    *("invalid_json", "not_an_object", "missing_type", "unknown_type", "reserved_type", "unsupported_frame"),
    *("not_implemented", "validation_error", "ambiguous_thread", "thread_not_found", "run_not_found"),
    *("agent_not_found", "run_id_conflict", "idempotency_conflict", "identity_mismatch", "unauthorized"),
    *("forbidden_origin", "token_expired"),
]
RETRYABLE = [*LIMITS, "thread_busy", "database_unavailable", "internal_error"]
OF_AGENTS = ["agent_timeout", "agent_failed", "worker_lost"]
OF_TOOLS = ["tool_failed", "tool_timeout", "tool_stopped", "tool_too_large"]

STATUSES = {
    **dict.fromkeys(FINAL, 400),
    **dict.fromkeys(["unauthorized", "token_expired"], 401),
    **dict.fromkeys(["forbidden_origin", "identity_mismatch"], 403),
    **dict.fromkeys(["thread_not_found", "run_not_found", "agent_not_found"], 404),
    **dict.fromkeys(["run_id_conflict", "idempotency_conflict", "thread_busy"], 409),
    **dict.fromkeys(["rate_limited", "too_many_runs", "too_many_subscriptions", "too_many_threads"], 429),
    **dict.fromkeys(["overloaded", "draining", "database_unavailable"], 503),
    "internal_error": 500,
}


def test_the_catalogue_has_the_codes_of_the_page_and_no_others() -> None:
    assert set(CATALOGUE) == {*FINAL, *RETRYABLE, *OF_AGENTS, *OF_TOOLS}


@pytest.mark.parametrize("code", FINAL)
def test_what_the_user_did_wrong_is_not_retryable(code: str) -> None:
    assert not CATALOGUE[code].retryable


@pytest.mark.parametrize("code", RETRYABLE)
def test_limits_and_the_servers_own_troubles_are_retryable(code: str) -> None:
    assert CATALOGUE[code].retryable


@pytest.mark.parametrize(("code", "status"), STATUSES.items())
def test_a_code_has_its_http_status(code: str, status: int) -> None:
    assert CATALOGUE[code].status == status


@pytest.mark.parametrize("code", CATALOGUE)
def test_the_text_of_a_code_is_a_sentence_for_users(code: str) -> None:
    text = CATALOGUE[code].text
    assert re.fullmatch(r"[A-Z][^_{}]+\.", text)
    assert code not in text


def test_a_fault_carries_its_code_and_the_catalogues_text() -> None:
    fault = Fault("thread_not_found")
    assert (fault.code, fault.text) == ("thread_not_found", CATALOGUE["thread_not_found"].text)
    assert (fault.details, fault.retry_after_ms) == (None, None)


def test_a_fault_names_its_field_and_may_have_a_text_of_its_own() -> None:
    fault = Fault("validation_error", "content", text="No text.")
    assert (fault.text, fault.details) == ("No text.", {"field": "content"})


def test_a_fault_of_no_known_code_cannot_be_made() -> None:
    with pytest.raises(KeyError):
        Fault("no_such_code")


@pytest.mark.parametrize("code", LIMITS)
def test_a_refusal_is_a_fault_that_says_when_to_come_back(code: str) -> None:
    refusal = Refusal(code, retry_after_ms=250)
    assert isinstance(refusal, Fault)
    assert (refusal.code, refusal.retry_after_ms) == (code, 250)


@pytest.mark.parametrize("retryable", [True, False])
def test_an_agent_may_fail_with_a_code_of_its_own(retryable: bool) -> None:
    error = AgentError("model_unavailable", "The model is away.", retryable=retryable)
    assert (error.code, error.message, error.retryable) == ("model_unavailable", "The model is away.", retryable)
    assert str(error) == "The model is away."
    assert not isinstance(error, Fault)


def test_an_agents_failure_is_final_unless_it_says_otherwise() -> None:
    assert AgentError("no_credit", "Nothing left.").retryable is False
