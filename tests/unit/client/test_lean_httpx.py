"""httpx is imported without its command line, which works all the same."""

from __future__ import annotations

import pytest

from tests.tools.programs import run_program


def test_nothing_of_the_command_line_is_loaded() -> None:
    code = """
import sys
import lyceum_magic.api
print(sorted({"httpx._main", "rich", "pygments"} & set(sys.modules)))
"""
    assert run_program(code) == "[]\n"


def test_the_command_line_works_when_it_is_called() -> None:
    code = """
import sys
import lyceum_magic.client.api, httpx
sys.argv = ["httpx", "--help"]
httpx.main()
"""
    assert "A next generation HTTP client." in run_program(code)


@pytest.mark.parametrize("before", ["import httpx", "import httpx._main"])
def test_an_httpx_that_was_imported_before_stays_as_it_is(before: str) -> None:
    code = f"""
{before}
main = httpx.main
import lyceum_magic.client.api
import httpx._main
print(httpx.main is main is httpx._main.main)
"""
    assert run_program(code) == "True\n"
