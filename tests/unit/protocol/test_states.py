"""States, and the two vocabularies in which the wire names them."""

from __future__ import annotations

import pytest

from lyceum_magic.protocol.states import FINAL, State, legacy_name, parse_state

#: States in the official client's table for the legacy endpoint.
LEGACY_FINAL = {"completed", "failed_user", "failed_system", "failed", "timeout", "cancelled"}
LEGACY_LIVE = {"running", "pending", "queued"}


@pytest.mark.parametrize("state", State)
def test_every_state_is_read_back_from_its_own_name(state: State) -> None:
    assert parse_state(state.value) is state


@pytest.mark.parametrize("state", State)
def test_the_official_client_knows_every_legacy_name(state: State) -> None:
    name = legacy_name(state)
    assert name in (LEGACY_FINAL if state.is_final else LEGACY_LIVE)
    assert legacy_name(State.FAILED, timed_out=True) == "timeout"


@pytest.mark.parametrize("name", sorted(LEGACY_FINAL))
def test_legacy_ends_are_final_here_too(name: str) -> None:
    state = parse_state(name)
    assert state is not None
    assert state.is_final


def test_a_run_that_is_being_cancelled_is_still_active() -> None:
    assert parse_state("cancelling") is State.RUNNING


def test_an_unknown_name_is_no_state() -> None:
    assert parse_state("beyond") is None
    assert parse_state("None") is None


def test_the_five_ends() -> None:
    assert {state.value for state in FINAL} == {
        "completed", "failed", "system_failure", "aborted", "cancelled",
    }  # fmt: skip
