"""A cell in a real kernel shows text of every kind, and keeps the run afterwards."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.embedded import end_server
from tests.tools.kernel import Kernel, running_kernel

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel and one server for all tests of this file."""
    folder = tmp_path_factory.mktemp("kernel")
    state = folder / "lyceum"
    with running_kernel(env={"LYCEUM_MAGIC_HOME": str(state), "HOME": str(folder)}) as kernel:
        yield kernel
    end_server(state)


@pytest.mark.parametrize(
    "text",
    [
        "a\n\n\nb\n",
        "no line end",
        "tab\tand \v and \f\n",
        "\U0001f600 ü e\u0301 \u2028 \u0085 \x1c\n",
        "\x1b[31mred\x1b[0m\n",
        "10 %\r",
        "\x08\x07\x00\n",
        "\n" * 100,
        'data: {"output"}\n\nid: 7\n',
        " leading and trailing \n ",
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_text_arrives_as_it_was_written(kernel: Kernel, text: str, stream: str) -> None:
    cell = kernel.run(f"%%lyceum\nimport sys\nsys.{stream}.write({text!r});")
    assert cell.stream(stream) == text
    assert cell.error is None


def test_a_megabyte_without_a_line_end_is_whole(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum\nprint(''.join(chr(97 + n % 26) for n in range(2**20)), end='')")
    assert cell.stdout == "".join(chr(97 + n % 26) for n in range(2**20))


def test_a_progress_bar_keeps_the_line_that_a_terminal_would_show(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum\nfor n in range(1000): print(n, end='\\r')\nprint('done')")
    assert cell.stdout.split("\r")[-1] == "done\n"
    assert kernel.value("_run.text.count(chr(13))") == "1000"


def test_a_character_written_in_two_halves_is_one(kernel: Kernel) -> None:
    whole = "ü\U0001f600\n".encode()
    code = f"import os, time\nfor b in {whole!r}:\n    os.write(1, bytes([b])); time.sleep(.02)"
    assert kernel.run(f"%%lyceum\n{code}").stdout == "ü\U0001f600\n"


def test_the_cells_text_is_never_expanded(kernel: Kernel) -> None:
    kernel.run("x = 'expanded'")
    cell = kernel.run("%%lyceum\nprint('{x} $x {{x}} $$ %x !echo')")
    assert cell.stdout == "{x} $x {{x}} $$ %x !echo\n"


def test_a_child_of_the_cell_prints_into_the_cell(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum\nimport subprocess\nsubprocess.run(['echo', 'child']);")
    assert cell.stdout == "child\n"


@pytest.mark.parametrize("lines", [2**18, 2**20], ids=["a quarter", "a gigabyte"])
def test_much_text_leaves_kernel_and_notebook_small(kernel: Kernel, lines: int) -> None:
    kernel.run("%%lyceum\n1")
    rss = "__import__('psutil').Process().memory_info().rss"
    before = int(kernel.value(rss))
    cell = kernel.run(
        f"%%lyceum\nline = 'x' * 999\nfor n in range({lines}): print(line)\nprint('the end')"
    )
    assert cell.error is None
    growth = int(kernel.value(rss)) - before
    assert growth < 64 * 2**20
    assert sum(len(str(message["content"])) for message in cell.messages) < 2 * 2**20
    assert kernel.run("%lyceum logs last --grep end").stdout == "the end\n"
    kernel.run("%lyceum forget last")


@pytest.mark.parametrize("option", ["", " --grep x"])
def test_a_long_log_is_printed_in_messages_of_a_size_that_front_ends_take(
    kernel: Kernel, option: str
) -> None:
    kernel.run("%%lyceum\nfor number in range(60_000): print(number, 'x' * 93)")
    cell = kernel.run(f"%lyceum logs last{option}")
    assert cell.stdout == "".join(f"{number} {'x' * 93}\n" for number in range(60_000))
    sizes = [len(m["content"]["text"]) for m in cell.messages if m["msg_type"] == "stream"]
    assert max(sizes) < 1_500_000


def test_the_remote_traceback_points_into_the_cells_own_lines(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum\n\ndef f():\n    1 / 0\n\nf()")
    assert cell.error is not None
    shown = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(cell.error["traceback"]))
    assert ", line 6\n" in shown
    assert ", line 4, in f()\n" in shown
    assert (shown.count("Cell In["), cell.stderr) == (2, "")


def test_a_cell_behind_a_failed_one_finds_its_exception(kernel: Kernel) -> None:
    kernel.run("%%lyceum\n1 / 0")
    code = """
        import pickle, sys
        error = pickle.loads(pickle.dumps(sys.last_value))
        print(type(error).__name__, error.state, error.return_code, error.run_id == _run.id)
    """
    assert kernel.run(textwrap.dedent(code)).stdout == "RunFailed failed 1 True\n"


def test_a_second_look_at_a_run_shows_it_again(kernel: Kernel) -> None:
    kernel.run("%%lyceum\nimport sys\nprint('o')\nprint('e', file=sys.stderr)")
    cell = kernel.run("%lyceum attach last")
    assert (cell.stdout, cell.stderr, cell.error) == ("o\n", "e\n", None)
    assert kernel.run("%lyceum logs").stdout == "o\n"


def test_await_gives_the_result_in_the_users_loop(kernel: Kernel) -> None:
    cell = kernel.run("import lyceum_magic\nrun = await lyceum_magic.submit('print(1)')\nrun.text")
    assert cell.result == "'1\\n'"
    failed = kernel.run("await lyceum_magic.submit('1/0')")
    assert failed.error is not None
    assert failed.error["ename"] == "RunFailed"


def test_tab_offers_options_machines_and_runs(kernel: Kernel) -> None:
    assert "--timeout" in kernel.complete("%%lyceum --ti")
    assert kernel.complete("%%lyceum -m gpu.a1") == [
        "gpu.a100", "gpu.a100.40gb", "gpu.a100.80gb",
    ]  # fmt: skip
    assert "machines" in kernel.complete("%lyceum ma")
    assert "last" in kernel.complete("%lyceum attach la")


def test_a_second_process_that_watches_a_live_run_gets_each_line_once(
    kernel: Kernel, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    code = f"""
        import os, time
        n = 0
        while n < 1000 or not os.path.exists({str(gate)!r}):
            print(n, flush=True)
            n += 1
            time.sleep(.001)
    """
    cell = kernel.start(f"%%lyceum\n{textwrap.dedent(code)}")
    cell.until(lambda cell: "\n9\n" in cell.stdout)
    watching = f"""
        import pathlib, lyceum_magic
        from lyceum_magic.protocol.events import Output
        before, inbox = lyceum_magic.attach("last").watch()
        text = "".join(output.text for output in before)
        while not inbox.is_drained:
            text += "".join(item.text for item in inbox.get(60) if isinstance(item, Output))
            pathlib.Path({str(gate)!r}).touch()
        print(text, end="")
    """
    program = [sys.executable, "-c", textwrap.dedent(watching)]
    seen = subprocess.run(program, env=kernel.environment, capture_output=True, text=True)
    assert seen.stderr == ""
    lines = seen.stdout.splitlines()
    assert lines == [str(n) for n in range(len(lines))]
    cell.done()
    assert kernel.value("_run.text") == repr(seen.stdout)


def test_the_shortest_run_says_that_its_gpu_is_not_there(kernel: Kernel) -> None:
    assert "no GPU on this machine" in kernel.run("%%lyceum -m gpu.a100\n1").summary
    assert "GPU" not in kernel.run("%%lyceum\n1").summary


TURNS = """%%lyceum
import sys
print("out")
print("err", file=sys.stderr)
display(1)
sys.stderr.write("more err")
sys.stdout.write("more out")
2
"""


def test_both_streams_and_displays_arrive_in_the_order_of_the_program(kernel: Kernel) -> None:
    for _ in range(10):  # two pipes: what is out of order is so now and then
        cell = kernel.run(TURNS)
        shown: list[str] = []
        for message in cell.messages:
            content = message["content"]
            if message["msg_type"] == "stream":
                shown += [f"{content['name']}: "] if not shown or shown[-1] == "" else []
                shown[-1] += content["text"]
            elif message["msg_type"] == "display_data":
                shown += [content["data"]["text/plain"], ""]
        assert "".join(shown[1:]) == "stdout: out\nerr\n1stderr: more errmore out2", shown


def test_a_program_that_takes_turns_is_not_slowed_by_a_reader_that_is_behind(
    kernel: Kernel,
) -> None:
    code = (
        "import sys\nfor n in range(20_000):\n    print('x' * 500)\n"
        "    if n % 100 == 0: print('turn', file=sys.stderr)\n"
    )
    cell = kernel.run(f"%%lyceum -t 60\n{code}")
    assert cell.error is None
    assert kernel.value("_run.text.count('turn')") == "200"
