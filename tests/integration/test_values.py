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
                "OptionError: A cell that is sent raw goes as it is: -i/--in cannot go with it; "
                "leave out one of them."
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
                "--pickle would send it as a pickle. Bound: new."
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
def test_what_does_not_come_home_is_one_error_and_the_rest_is_bound(
    kernel: Kernel, line: str, code: str, sentence: str
) -> None:
    kernel.run("new = None")
    assert said(kernel.run(f"%%lyceum {line}\n{code}")) == sentence
    assert kernel.value("('n' in globals(), new)") == f"(False, {1 if 'new' in line else None})"


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
    assert "holds half of a surrogate pair, which cannot travel as text" in error
    assert "OptionError" in error


def test_a_function_that_comes_home_is_one_of_the_notebook(kernel: Kernel) -> None:
    kernel.run("scale = 10\ndef mine(n): return n * scale")
    cell = "def own(n): return n + {n}\ndef both(n): return mine(own(n))"
    ran = good(kernel.run(f"%%lyceum --pickle -o both\n{cell.format(n=1)}"))
    assert ran.stdout == "[lyceum] --out also binds own, which functions read\n"
    assert kernel.value("(both(1), own(1))") == "(20, 2)"
    kernel.run("scale = 100")
    assert kernel.value("both(1)") == "200"
    # What came along is not the user's own, and is replaced by what comes along next.
    good(kernel.run(f"%%lyceum --pickle -o both\n{cell.format(n=2)}"))
    assert kernel.value("both(1)") == "300"
    kernel.run("def own(n): return 0")
    assert good(kernel.run(f"%%lyceum --pickle -o both\n{cell.format(n=3)}")).stdout == ""
    assert kernel.value("(both(1), __builtins__.__name__)") == "(0, 'builtins')"


def test_a_function_that_goes_there_is_one_of_the_cell(kernel: Kernel) -> None:
    kernel.run("rate = 2\ndef base(): return np.float64(rate)\ndef grow(n): return n * base()")
    kernel.run("class Model:\n    def at(self, n): return grow(n)\nmodel = Model()")
    cell = "print(grow(1), model.at(2))\nrate = 5\nprint(grow(1), model.at(2))"
    ran = good(kernel.run(f"%%lyceum --pickle -i auto\n{cell}"))
    sent, _, printed = ran.stdout.partition("\n")
    assert all(f"{name} " in sent for name in ("grow", "model", "base", "rate")), sent
    assert printed == "2.0 4.0\n5.0 10.0\n"
    ran = good(kernel.run(f"%%lyceum --pickle -i grow,model\n{cell}"))
    assert ran.stdout == "2.0 4.0\n5.0 10.0\n"


def test_an_object_of_the_notebooks_class_comes_home_as_one(kernel: Kernel) -> None:
    kernel.run("class Box:\n    def __init__(self, n): self.n = n")
    good(kernel.run("%%lyceum --pickle -i Box -o box\nbox = Box(3)"))
    assert kernel.value("(box.n, type(box) is Box)") == "(3, True)"


@pytest.mark.parametrize("name", ["open", "display"])
def test_a_name_that_the_shell_has_too_is_sent_if_it_is_the_users(
    kernel: Kernel, name: str
) -> None:
    kernel.run(f"kept = {name}\n{name} = [1, 2]")
    ran = good(kernel.run(f"%%lyceum -i auto\nprint({name})"))
    assert ran.stdout.startswith(f"[lyceum] --in auto: {name} ")
    assert ran.stdout.endswith("[1, 2]\n")
    kernel.run(f"{name} = kept")
    ran = good(kernel.run(f"%%lyceum -i auto\n{name};"))
    assert ran.stdout == "[lyceum] --in auto: nothing to send\n"


def test_what_touches_display_comes_home_and_shows_here(kernel: Kernel) -> None:
    good(
        kernel.run(
            "%%lyceum --pickle -o place,show,clear\n"
            "from IPython.display import clear_output as wipe, display, update_display\n"
            "place = display('there', display_id=True)\n"
            "def show(x):\n    display(x)\n    return display, update_display\n"
            "clear = [wipe]"
        )
    )
    kernel.run("place.update('here')")
    assert "'here'" in kernel.shown
    assert "'shown'" in kernel.run("show('shown');").summary
    modules = kernel.value("{f.__module__ for f in (*show.__globals__['clear'], *show('x'))}")
    assert modules == "{'IPython.core.display_functions'}"


def test_what_holds_the_shell_or_a_stream_holds_this_sides_own(kernel: Kernel) -> None:
    good(
        kernel.run(
            "%%lyceum --pickle -o asks,holds,shell,says\n"
            "import sys\n"
            "shell = get_ipython()\n"
            "def asks(): return get_ipython()\n"
            "class Holds: pass\n"
            "holds = Holds()\n"
            "holds.shells = [shell]\n"
            "def says(text, file=sys.stdout): print(text, file=file)"
        )
    )
    assert kernel.value("{asks(), shell, *holds.shells} == {get_ipython()}") == "True"
    assert kernel.run("says('here')").stdout == "here\n"
    ran = kernel.run(
        "%%lyceum --pickle -i asks,holds,says\nsays({asks(), *holds.shells} == {get_ipython()})"
    )
    assert good(ran).stdout == "True\n"
    kernel.run("del asks, holds, shell, says, Holds")


def test_classes_with_slots_and_their_instances_go_there_and_come_home(kernel: Kernel) -> None:
    good(
        kernel.run(
            "import dataclasses\n"
            "class Point:\n"
            "    __slots__ = ('x', '__secret')\n"
            "    def __init__(self): self.x, self.__secret = 1, [2]\n"
            "    def secret(self): return self.__secret\n"
            "class Open(Point): pass\n"
            "class One:\n    __slots__ = 'only'\n"
            "@dataclasses.dataclass(slots=True)\n"
            "class Row:\n    point: Point\n"
            "one, point, opened = One(), Point(), Open()\n"
            "one.only, opened.more, row = 3, 4, Row(point)"
        )
    )
    ran = kernel.run(
        "%%lyceum --pickle -i one,point,opened,row -o home,own\n"
        "print(one.only, point.x, point.secret(), opened.more, row.point.x, dir(one)[-1])\n"
        "home = [one, point, opened, row]\n"
        "class Own:\n    __slots__ = {'n': 'a number'}\n"
        "own = Own()\nown.n = 5"
    )
    assert good(ran).stdout == "3 1 [2] 4 1 only\n"
    assert (
        kernel.value(
            "([type(one) for one in home] == [One, Point, Open, Row], home[0].only, "
            "home[1].secret(), home[2].more, home[3].point.x, own.n, hasattr(own, '__dict__'))"
        )
        == "(True, 3, [2], 4, 1, 5, False)"
    )


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("", "out is a function, which cannot travel as data; --pickle would send it as a pickle."),
        ("--pickle", "out is a function and cannot travel: it holds something of the run itself."),
    ],
)
def test_no_message_names_a_package_of_ours(kernel: Kernel, option: str, sentence: str) -> None:
    cell = f"%%lyceum {option} -o out,n\nimport sys\nout, n = sys.unraisablehook, 1"
    error = said(kernel.run(cell))
    assert error.startswith(f"TransferError: --out: {sentence}")
    assert "lyceum_magic" not in error
    assert kernel.value("n") == "1"
    kernel.run("del n")


def test_a_data_array_keeps_its_type_with_a_pickle_and_says_so_without(kernel: Kernel) -> None:
    cell = (
        "import numpy as np, xarray as xr\n"
        "da = xr.DataArray(np.eye(2), dims=['x', 'y'], coords={'x': [10, 20]}, name='t')\n"
        "ds = [xr.Dataset({'t': da})]"
    )
    good(kernel.run(f"%%lyceum --pickle -o da,ds\n{cell}"))
    assert kernel.value("(type(da).__name__, da.x.values.tolist(), float(ds[0].t.sum()))") == (
        "('DataArray', [10, 20], 2.0)"
    )
    ran = good(kernel.run("%%lyceum --pickle -i da\nprint(type(da).__name__, float(da.sum()))"))
    assert ran.stdout == "DataArray 2.0\n"
    ran = good(kernel.run(f"%%lyceum -o da\n{cell}"))
    assert "da is a xarray.core.dataarray.DataArray, which arrives as a pyarrow table" in ran.stdout
    ran = good(kernel.run(f"%%lyceum -o m\n{cell}\nm = np.matrix([[1]])"))
    assert "arrives as a numpy array; --pickle keeps it as it is" in ran.stdout


def test_a_dataclass_of_the_cell_keeps_its_methods_with_a_pickle(kernel: Kernel) -> None:
    cell = (
        "from dataclasses import dataclass\n@dataclass\nclass Pair:\n    a: int\n    b: int\n"
        "    def sum(self): return self.a + self.b\npair = Pair(1, 2)"
    )
    good(kernel.run(f"%%lyceum --pickle -o pair\n{cell}"))
    assert kernel.value("pair.sum()") == "3"
    kernel.run(cell)
    good(kernel.run(f"%%lyceum --pickle -o pair\n{cell}"))
    assert kernel.value("type(pair) is Pair") == "True"


@pytest.fixture
def deleted_folder(kernel: Kernel) -> Iterator[None]:
    """The kernel's current folder is one that was deleted."""
    kernel.run("import os, tempfile\nkept, gone = os.getcwd(), tempfile.mkdtemp()")
    kernel.run("os.chdir(gone); os.rmdir(gone)")
    yield
    kernel.run("os.chdir(kept)")


@pytest.mark.usefixtures("deleted_folder")
def test_a_deleted_folder_stops_no_cell_that_needs_nothing_of_it(kernel: Kernel) -> None:
    cell = "%%lyceum -i a -o b\nimport json, numpy\nb = a + 1\nprint(json.dumps(b))"
    assert good(kernel.run(cell)).stdout == "21\n"
    kernel.run("import lyceum_magic")
    assert kernel.value("lyceum_magic.submit('print(2)').result().text") == "'2\\n'"
    assert "ZeroDivisionError" in said(kernel.run("%%lyceum\n1 / 0"))
    good(kernel.run("%lyceum list"))


@pytest.mark.usefixtures("deleted_folder")
def test_a_deleted_folder_is_named_where_it_is_needed(kernel: Kernel) -> None:
    assert said(kernel.run("%%lyceum --file x\n1")) == (
        "OptionError: --file x: the current folder was deleted; go to another one with %cd."
    )
    error = said(kernel.run("%%lyceum --save '*.txt'\nopen('a.txt', 'w').close()"))
    assert error == (
        "TransferError: a.txt was not written: the current folder was deleted; go to another one."
    )
    assert kernel.value("[p.name for p in _run.save_files(kept + '/rescued')]") == "['a.txt']"


def test_a_function_with_a_cache_goes_there_and_comes_home(kernel: Kernel) -> None:
    kernel.run(
        "import functools\noffset = 4\n@functools.lru_cache(7)\ndef add(n): return n + offset"
    )
    cell = "print(add(1), add(1), add.cache_info().hits, add.cache_info().maxsize)\nback = add"
    ran = good(kernel.run(f"%%lyceum --pickle -i auto -o back\n{cell}"))
    assert ran.stdout.endswith("5 5 1 7\n")
    kernel.run("offset = 10")
    assert kernel.value("(back(1), back.__name__)") == "(11, 'add')"


def test_a_value_that_cannot_be_made_there_names_no_package_of_ours(kernel: Kernel) -> None:
    kernel.run("def loads_only_here(): raise LookupError('not here')")
    kernel.run("class Here:\n    def __reduce__(self): return loads_only_here, ()\nhere = Here()")
    cell = kernel.run("%%lyceum --pickle -i here\nhere")
    assert "--in here: the value cannot be made (LookupError: not here)" in said(cell)
    assert kernel.value("'lyceum_magic_remote' in ''.join(_run.failure().traceback)") == "False"
