"""`--in`, `--out`, `--file` and `--save` in a real kernel: what comes home, and what is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.embedded import end_server
from tests.tools.kernel import Cell, Kernel, running_kernel

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("values") / "lyceum"
    yield state
    end_server(state)


@pytest.fixture(scope="module")
def kernel(state: Path) -> Iterator[Kernel]:
    with running_kernel(env={"LYCEUM_MAGIC_HOME": str(state), "HOME": str(state.parent)}) as kernel:
        kernel.run(
            "import threading, pathlib, numpy as np, pandas as pd\n"
            "a = 20\nlock = threading.Lock()\nbig = np.zeros(200_000)\nhuge = np.zeros(2_000_000)\n"
            "df = pd.DataFrame({'n': [1, 2, 3], 's': ['x', None, 'z']}, index=list('abc'))\n"
            "def helper(): return 1"
        )
        yield kernel


def good(cell: Cell) -> Cell:
    assert cell.error is None, cell
    return cell


def said(cell: Cell) -> str:
    """The error as the reader sees it."""
    assert cell.error is not None, cell
    return "\n".join(cell.error["traceback"])


def test_values_go_in_and_come_out(kernel: Kernel) -> None:
    good(kernel.run("%%lyceum -i a,df -o b,half\nb = a + 1\nhalf = df[df.n > 1]"))
    assert kernel.value("(b, half.equals(df[df.n > 1]), half.dtypes.equals(df.dtypes))") == (
        "(21, True, True)"
    )


def test_auto_says_what_it_sends(kernel: Kernel) -> None:
    cell = good(kernel.run("%%lyceum -i auto -o c\nc = a + int(df.n.sum())"))
    assert cell.stdout.startswith("[lyceum] --in auto: a 15 bytes, df ")
    assert cell.stdout.count("\n") == 1
    cell = kernel.run("%%lyceum -i auto\nhelper()")
    assert cell.stdout.startswith(
        "[lyceum] --in auto: nothing to send\n"
        "[lyceum] --in auto leaves out: helper is a function, which only --pickle would send\n"
    )
    assert cell.error is not None
    good(kernel.run("%%lyceum -i auto --pickle -o c\nc = helper()"))
    assert kernel.value("c") == "1"


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        (
            "-i aa",
            "1",
            "OptionError: --in: the notebook has no variable aa. Did you mean a?",
        ),
        ("-o never", "1", "OptionError: --out: the cell never sets never."),
        (
            "-i lock",
            "1",
            (
                "OptionError: --in: lock is a _thread.lock, which cannot travel as data; --pickle "
                "would send it as a pickle."
            ),
        ),
        (
            "-i big",
            "1",
            (
                "OptionError: Values and files take 1.5 MiB (big 1.5 MiB); add --yes to send more "
                "than 1 MiB."
            ),
        ),
        (
            "-i huge --yes",
            "1",
            (
                "OptionError: --in: huge takes more than the 10 MiB left for it: 10 MiB in all may "
                "travel with a cell; put it in the account's storage, and read it there."
            ),
        ),
        (
            "--raw -i a",
            "1",
            (
                "OptionError: A cell that is sent raw goes as it is: --in cannot go with it; leave "
                "out one of them."
            ),
        ),
        (
            "--save /etc/x",
            "1",
            (
                "OptionError: --save takes a pattern below the cell's own folder, such as "
                "out/*.png, not '/etc/x'."
            ),
        ),
    ],
)
def test_wrong_input_is_one_sentence_and_starts_nothing(
    kernel: Kernel, line: str, code: str, sentence: str
) -> None:
    before = kernel.value("len(__import__('lyceum_magic').runs())")
    assert said(kernel.run(f"%%lyceum {line}\n{code}")) == sentence
    assert kernel.value("len(__import__('lyceum_magic').runs())") == before


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        ("-o n", "if 0: n = 1", "TransferError: --out: the cell did not set n."),
        (
            "-o new,n",
            "n = open('x', 'w')\nnew = 1",
            (
                "TransferError: --out: n is a _io.TextIOWrapper, which cannot travel as data; "
                "--pickle would send it as a pickle. Nothing was bound; _run.values has new."
            ),
        ),
        (
            "-o n",
            "n = bytes(11 * 2**20)",
            (
                "TransferError: --out: n takes more than is left of the 10 MiB that --out brings "
                "back; put it in the account's storage."
            ),
        ),
        ("--save *.nix", "1;", "TransferError: --save *.nix: the cell wrote no such file."),
    ],
)
def test_what_does_not_come_home_is_one_error_and_binds_nothing(
    kernel: Kernel, line: str, code: str, sentence: str
) -> None:
    assert said(kernel.run(f"%%lyceum {line}\n{code}")) == sentence
    assert kernel.value("'n' in globals() or 'new' in globals()") == "False"


def test_a_cell_that_raises_binds_nothing_and_its_values_are_there(kernel: Kernel) -> None:
    cell = kernel.run("%%lyceum -o early,late\nearly = 1\n1 / 0\nlate = 2")
    assert cell.error is not None
    assert cell.error["ename"] == "RunFailed"
    assert kernel.value("('early' in globals(), dict(_run.values))") == "(False, {'early': 1})"


def test_files_go_there_and_come_back_beside_the_notebook(kernel: Kernel) -> None:
    kernel.run("pathlib.Path('data').mkdir(); pathlib.Path('data/in.bin').write_bytes(bytes(256))")
    cell = (
        "%%lyceum --file data --save 'out/**' --save '*.txt'\n"
        "import os\nos.mkdir('out')\n"
        "open('out/x.bin', 'wb').write(open('data/in.bin', 'rb').read() * 2)\n"
        "open('note.txt', 'w').write('n');"
    )
    ran = good(kernel.run(cell))
    assert ran.stdout == "[lyceum] wrote out/x.bin 512 bytes, note.txt 1 byte\n"
    assert kernel.value("pathlib.Path('out/x.bin').read_bytes() == bytes(512)") == "True"
    assert good(kernel.run(cell)).stdout == ""  # the same is there already
    changed = "%%lyceum --save '*.txt'{}\nfor n in 'note', 'more': open(n + '.txt', 'w').write('y')"
    ran = kernel.run(changed.format(""))
    assert said(ran) == (
        "TransferError: note.txt: already here, and not written over; --yes would do it, and "
        '_run.save_files("folder") writes elsewhere.'
    )
    assert ran.stdout == "[lyceum] wrote more.txt 1 byte\n"
    assert kernel.value("(open('note.txt').read(), open('more.txt').read())") == "('n', 'y')"
    assert kernel.value("[str(p) for p in _run.save_files('else')]") == (
        "['else/more.txt', 'else/note.txt']"
    )
    good(kernel.run(changed.format(" --yes")))
    assert kernel.value("open('note.txt').read()") == "'y'"


def test_another_kernel_has_them_too_and_no_pickle_unasked(kernel: Kernel, state: Path) -> None:
    good(
        kernel.run(
            "%%lyceum --pickle -o v,f --save kept\nv = {1: (2,)}\nf = lambda: 7\n"
            "open('kept', 'wb').write(b'\\xff');"
        )
    )
    assert kernel.value("(f(), v)") == "(7, {1: (2,)})"
    with running_kernel(env={"LYCEUM_MAGIC_HOME": str(state), "HOME": str(state.parent)}) as other:
        other.run("import lyceum_magic; run = lyceum_magic.attach(); run.wait(60)")
        assert other.value("(run.values['v'], run.files)") == "({1: (2,)}, {'kept': b'\\xff'})"
        assert "it came as a pickle" in said(other.run("run.values['f']"))
        other.run("run.allow_pickle = True")
        assert other.value("run.values['f']()") == "7"


def test_a_script_does_the_same_with_submit(kernel: Kernel) -> None:
    good(
        kernel.run(
            "import lyceum_magic\n"
            'run = lyceum_magic.submit(\'c = a * 2; open("s.txt", "w").write("s")\',\n'
            "    inputs={'a': 21}, outputs='c', save=['*.txt']).result()"
        )
    )
    assert kernel.value("(run.values['c'], run.files, 'd' in run.values)") == (
        "(42, {'s.txt': b's'}, False)"
    )
    assert "--out: the cell never sets d." in said(
        kernel.run("lyceum_magic.submit('1', outputs='d')")
    )


def test_a_file_whose_name_is_no_utf_8_keeps_it(kernel: Kernel) -> None:
    kernel.run("open(b'caf\\xe9', 'w').close()")
    ran = good(
        kernel.run(
            "%%lyceum --file . --save '*.out' -o found\nimport os\n"
            "found = [os.fsencode(name) for name in os.listdir() if name.startswith('caf')]\n"
            "open(b'gr\\xfcn.out', 'w').write('1');"
        )
    )
    assert ran.stdout == "[lyceum] wrote gr\ufffdn.out 1 byte\n"
    assert kernel.value("found") == "[b'caf\\xe9']"
    assert kernel.value("__import__('os').path.exists(b'gr\\xfcn.out')") == "True"


@pytest.mark.parametrize(
    "argument", ["name='\\udcc3'", "labels=['\\udcc3']", "metadata={'\\udcc3': ''}"]
)
def test_half_a_character_around_a_run_starts_nothing(kernel: Kernel, argument: str) -> None:
    error = said(kernel.run(f"import lyceum_magic\nlyceum_magic.submit('1', {argument})"))
    assert "it holds half of a surrogate pair, which is no text that can travel" in error
    assert "OptionError" in error
