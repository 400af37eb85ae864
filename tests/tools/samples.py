"""Tests with many variants: those that `make test` runs, and those left to `make test-all`.

A variant is left out where its neighbours take the same way through the code and each costs a
process or more. What is left out is marked `exhaustive`; without `-m` pytest runs everything. Of
generated examples, `make test` takes a quarter.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, settings

#: Test -> n, where `make test` runs its first variant and every n-th after that; or a slice of the
#: variants.
SAMPLES: dict[str, dict[str, int | slice]] = {
    # Each starts one or two servers.
    "tests/integration/test_local_server.py": {
        "test_a_broken_file_beside_a_live_server_is_written_again": 4,
        "test_what_is_no_file_in_the_place_of_one_keeps_no_server_from_its_start": 3,
        "test_a_file_that_no_server_wrote_is_replaced": 3,
        "test_a_file_that_names_another_machine_is_not_followed": 3,
        "test_a_key_that_others_could_read_is_never_used_again": 3,
    },
    "tests/integration/test_server_life.py": {
        "test_an_option_that_makes_no_sense_is_refused": 3,
        "test_a_server_whose_folder_is_gone_ends_with_all_it_has_started": 2,
        "test_a_key_does_not_outlive_a_server_that_ends_in_order": 2,
    },
    "tests/integration/test_bad_ends.py": {
        "test_a_run_that_takes_its_own_output_away_is_told_that_it_is_lost": 2,
        "test_a_run_ends_for_its_notebook_after_a_power_cut": 2,
    },
    "tests/integration/test_earlier_state.py": {"test_a_move_that_was_cut_off_goes_on": 2},
    "tests/integration/test_keys_command.py": {
        "test_bad_input_is_one_sentence": 3,
        "test_a_life_that_is_none_is_refused": 3,
    },
    "tests/attacks/test_files.py": {
        "test_links_that_a_stranger_left_in_a_folder_of_ours_are_not_followed": 2,
        "test_nothing_is_opened_in_a_foreign_folder": 2,
    },
    "tests/attacks/test_connections.py": {
        "test_runs_begin_and_end_under_a_storm_of_half_open_connections": 2,
    },
    # Each starts a kernel, and a program that drives it.
    "tests/integration/test_nbval.py": {"test_a_marked_cell_passes_and_its_values_are_compared": 2},
    "tests/integration/test_errors.py": {"test_papermill_ends_as_the_cell_does": 3},
    "tests/integration/test_quickstart.py": {
        "test_papermill_shows_the_same_text": slice(0, None, 3)
    },
    "tests/integration/test_kernel.py": {"test_bad_input_is_one_sentence_and_starts_nothing": 2},
    # Each starts a kernel, and a run for each cell of a notebook.
    "tests/integration/test_notebook_runs.py": {
        "test_a_notebook_shows_there_what_it_shows_here": 6,
    },
    # Each starts an interpreter, and runs in it.
    "tests/integration/test_fork.py": {"test_an_inherited_run_says_attach_again": 2},
    "tests/integration/test_threads.py": {"test_any_call_may_be_the_first": 2},
    "tests/integration/test_process_ends.py": {
        "test_a_program_that_takes_the_places_of_our_files_ends_as_it_ends": 2,
        "test_a_program_that_kills_its_supervisor_too_is_lost": 2,
    },
    "tests/integration/test_process_runner.py": {"test_a_program_ends_as_python_lets_it": 2},
    "tests/integration/test_differential.py": {"test_a_cell_shows_there_what_it_shows_here": 5},
    "tests/integration/test_kernel_text.py": {
        "test_text_arrives_as_it_was_written": 2,
        "test_much_text_leaves_kernel_and_notebook_small": 2,
    },
    # Each starts a kernel of the matrix. Those that one test leaves out are in another one.
    "tests/integration/test_everywhere.py": {
        "test_every_kernel_of_the_matrix": slice(1, None, 2),
    },
    "tests/browser/test_magic.py": {
        "test_text_comes_while_the_cell_runs_and_the_summary_stays": 2,
        "test_a_detached_run_goes_on_under_its_cell": slice(1, None, 2),
        "test_stop_aborts_the_run_and_leaves_no_process": 2,
        "test_the_quickstart_shows_in_a_browser_what_it_shows_in_nbclient": 2,
    },
    # Each starts a container.
    "tests/containers/test_entry_points.py": {
        "test_a_script_runs_whatever_the_entry_point_is": 2,
    },
    "tests/containers/test_soft_ends.py": {"test_a_program_of_a_script_has_its_grace": 2},
}

#: Modules whose tests start an interpreter each; `make quick` takes every fifth test of them.
IN_PROCESSES = {
    f"tests/unit/{name}.py"
    for name in (
        "magic/test_unloading", "outputs/test_tracebacks", "remote/test_bootstrap",
        "remote/test_display", "remote/test_errors", "remote/test_notebook",
        "remote/test_own_lines", "remote/test_shell", "remote/test_widgets",
        "remote/test_workers", "submission/test_requirements",
    )
}  # fmt: skip

_LEFT_OUT = ("exhaustive", "other_python")


def set_number_of_examples(expression: str) -> None:
    """Let Hypothesis generate fewer examples where the exhaustive tests are left out.

    Args:
        expression: of `-m`.
    """
    settings.register_profile(
        "unhurried",
        deadline=None,  # a busy machine is no failure
        suppress_health_check=[HealthCheck.too_slow],
        max_examples=25 if "not exhaustive" in expression else 100,
    )
    settings.load_profile("unhurried")


def examples(number: int) -> int:
    """Return the number of examples for a test that has another number than most."""
    return max(1, number * settings().max_examples // 100)


def mark_not_quick(items: Iterable[pytest.Item]) -> None:
    """Mark what `make quick` alone leaves out, once `mark_exhaustive` has marked the rest."""
    in_processes = (item for item in items if item.nodeid.partition("::")[0] in IN_PROCESSES)
    others = (item for item in in_processes if not any(map(item.get_closest_marker, _LEFT_OUT)))
    for index, item in enumerate(others):
        if index % 5:
            item.add_marker("not_quick")


def mark_exhaustive(items: Iterable[pytest.Item]) -> None:
    """Mark what `make test` leaves out, and what runs in another Python.

    Of the interpreters, which are given by rising version, `make test` takes our own, the oldest
    and the newest.
    """
    variants: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        variants[item.nodeid.partition("[")[0]].append(item)
    for test, those in variants.items():
        file, _, name = test.partition("::")
        sample = SAMPLES.get(file, {}).get(name, 1)
        taken = those[sample if isinstance(sample, slice) else slice(0, None, sample)]
        pythons = _interpreters(those)
        others = [python for python in dict.fromkeys(pythons.values()) if python != sys.executable]
        for item in those:
            if item not in taken or pythons.get(item) in others[1:-1]:
                item.add_marker("exhaustive")
            if pythons.get(item) in others:
                item.add_marker("other_python")


def _interpreters(items: list[pytest.Item]) -> dict[pytest.Item, object]:
    """Return the interpreter of each test that has a parameter `python`."""
    specs = {item: getattr(item, "callspec", None) for item in items}
    return {
        item: spec.params["python"]
        for item, spec in specs.items()
        if spec is not None and "python" in spec.params
    }
