"""`%pip install X` counts as `-r X`, however it is written; nothing else of the cell changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lyceum_magic.exceptions import OptionError
from lyceum_magic.submission.installs import take_installs
from lyceum_magic.submission.source import parse_cell


def taken(cell: str) -> tuple[str, list[str]]:
    parsed, named = take_installs(parse_cell(cell, first_line=2))
    return parsed.code, named


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("%pip install humanize", ["humanize"]),
        ("%pip install -q -U 'numpy>=2' rich[jupyter]==13", ["numpy>=2", "rich[jupyter]==13"]),
        ("!pip install humanize", ["humanize"]),
        ("!pip3 install --quiet humanize 2>&1 | tail -n 1", ["humanize"]),
        ("!python -m pip install humanize > /dev/null", ["humanize"]),
        ("!{sys.executable} -m pip install humanize  # small", ["humanize"]),
        ("!uv pip install --system humanize", ["humanize"]),
        ("%uv pip install humanize", ["humanize"]),
        ("%pip install --pre --index-url=https://host.example/simple a", [
            "--pre", "--index-url https://host.example/simple", "a",
        ]),
        ("%pip install 'x @ https://host.example/x.whl#a=b'", ["x @ https://host.example/x.whl#a=b"]),
        ("%pip install \"x; python_version < '4'\"", ["x; python_version < '4'"]),
        ("%pip install a \\\n    b", ["a", "b"]),
    ],
)  # fmt: skip
def test_a_line_that_installs_names_requirements(line: str, named: list[str]) -> None:
    code, found = taken(f"x = 1\n{line}\nprint(x)")
    assert found == named
    assert "get_ipython" not in code
    head, tail = code.split("\n")[0], code.rstrip().split("\n")[-1]
    assert (head, tail) == ("x = 1", "print(x)")
    assert code.count("\n") == f"x = 1\n{line}\nprint(x)".count("\n")


def test_it_counts_anywhere_in_the_cell_and_stays_readable() -> None:
    code, found = taken("if True:\n    %pip install ä\n    !echo 1\n%pip install b")
    assert found == ["ä", "b"]
    assert code.split("\n") == [
        "if True:",
        "    None  # %pip install ä",
        "    get_ipython().system('echo 1')",
        "None  # %pip install b",
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_as_python_counts_them(end: str) -> None:
    cell = end.join(["x = 'a\f\x0b\u2028b'", "get_ipython().system('pip install b')", "x"])
    code, found = taken(cell)
    assert found == ["b"]
    assert code.split("\n")[1:] == ["None  # !pip install b", "x"]


def test_a_file_of_requirements_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "needs.txt").write_text("rich")
    assert taken("%pip install -r needs.txt")[1] == ["needs.txt"]
    with pytest.raises(OptionError, match=r"there is no file other\.txt"):
        taken("!pip install -r other.txt")


@pytest.mark.parametrize(
    "cell",
    [
        "!pip list",
        "%pip freeze",
        "!conda install numpy",
        "!apt-get install tool",
        "!pip download x && pip install ./x",
        "!pip install x; ls",
        "print('%pip install x', 'get_ipython')",
    ],
)
def test_what_does_not_just_install_is_left_alone(cell: str) -> None:
    parsed = parse_cell(cell)
    assert take_installs(parsed) == (parsed, [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%pip install {name}", "known only when the cell runs"),
        ("!pip install $name", "known only when the cell runs"),
        ("%pip install --no-deps x", "the option --no-deps is not understood"),
        ("%pip install 'x", "cannot be split into words"),
        ("%pip install -r", "-r needs a value"),
    ],
)
def test_what_cannot_be_known_is_one_sentence(line: str, said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        taken(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["%conda install -y numpy", "%mamba install numpy", "x = 1\n%micromamba install a"]
)
def test_conda_says_what_to_do_before_a_run_starts(line: str) -> None:
    with pytest.raises(
        OptionError, match="write `%pip install NAME`, or -r NAME in the first line"
    ):
        taken(line)


def test_conda_that_installs_nothing_is_the_cells_own() -> None:
    parsed = parse_cell("%conda list\n!conda info")
    assert take_installs(parsed) == (parsed, [])
