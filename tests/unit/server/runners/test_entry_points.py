"""Entry points: which of them run the command that they get."""

from __future__ import annotations

import pytest

from lyceum_magic.server.runners.engine.entry_points import hands_over

POSTGRES = """\
#!/usr/bin/env bash
main() {
	if [ "${1:0:1}" = '-' ]; then
		set -- postgres "$@"
	fi
	exec "$@"
}
main "$@"
"""
JUPYTER = """\
#!/bin/bash
if [ $# -eq 0 ]; then cmd=( "bash" ); else cmd=( "$@" ); fi
exec sudo --preserve-env --user jovyan "${cmd[@]}"
"""
KEEPS = [
    POSTGRES, JUPYTER,
    'if [[ $# -eq 0 ]]; then\n  exec bash\nelse\n  exec "$@"\nfi',
    'export A=1\n"$@"', "exec $@", 'exec "${@}"', 'exec tini -- "$@"', 'exec gosu app "$@"',
    'exec sudo -E -u app A="$A" "$@"', 'exec /usr/bin/tini -g -- gosu app "$@"',
    "import os, sys\nos.execvp(sys.argv[1], sys.argv[1:])",
]  # fmt: skip
LEAVES = [
    'exec python3 /app/main.py "$@"', 'exec gosu app python3 main.py "$@"',
    'exec tini -- python3 main.py "$@"', '# exec "$@"\nexec app', 'set -- app "$@"\napp -x "$@"',
    'for each in "$@"; do echo "$each"; done', "exec app", 'eval "$@"',
]  # fmt: skip


@pytest.mark.parametrize("text", KEEPS)
def test_a_script_that_execs_its_arguments_hands_over(text: str) -> None:
    assert hands_over(["/entry"], {"/entry": f"#!/bin/sh\n{text}\n"}.get)


@pytest.mark.parametrize("text", LEAVES)
def test_a_script_that_gives_them_to_a_program_does_not(text: str) -> None:
    assert not hands_over(["/entry"], {"/entry": f"#!/bin/sh\n{text}\n"}.get)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("/bin/echo", False),
        ("python3", False),
        ("bash", False),
        ("bash -lc", False),
        ("bash /entry", True),
        ("tini --", True),
        ("/usr/bin/tini -g -- /entry", True),
        ("/usr/bin/tini -g -- app", False),
        ("env A=1", True),
        ("gosu app", True),
        ("conda run -n base", True),
        ("conda info", False),
        ("/init", True),
    ],
)
def test_programs_are_known_by_their_names(words: str, answer: bool) -> None:
    assert hands_over(words.split(), {"/entry": POSTGRES}.get) is answer
