"""Cells that must look the same in the kernel and under `%%lyceum`; a cell more is an entry more.

Each one runs once here and once there, in the order of this file, and all local ones in the same
kernel: a cell leaves matplotlib, pandas and the like as it finds them.
"""

from __future__ import annotations

from textwrap import dedent

#: Subject of the cell -> its source.
CELLS: dict[str, str] = {
    # Text.
    "print": "print('hello')",
    "print several": "print(1, 2.5, None, sep=', ', end='!')",
    "print without a line end": "print('a', end='')\nprint('b', end='')",
    "empty lines": "print()\nprint('a\\n\\n\\nb')\nprint()",
    "unicode": "print('ä ß 漢字 \\U0001f600 e\\u0301 \\u2028 x')",
    "colours": r"print('\x1b[31mred\x1b[0m \x1b[1;38;5;200mbold\x1b[0m')",
    "half a character": "print('a' + chr(0xdcc3))\nprint('b', chr(0xdce4) + chr(0xdcb8), 'c')",
    "half a character on stderr": "import sys\nprint('a' + chr(0xdcc3), file=sys.stderr)",
    "half a character as a value": "'a' + chr(0xdcc3)",
    "half a character in a bundle": "display({'text/html': 'a' + chr(0xdcc3)}, raw=True)",
    "a file name that is no UTF-8": """
        import os, tempfile
        with tempfile.TemporaryDirectory() as folder:
            open(os.path.join(os.fsencode(folder), b"caf\\xe9"), "w").close()
            for name in os.listdir(folder): print(name)
            os.listdir(folder)
        """,
    "carriage returns": r"for n in range(5): print(n, end='\r')",
    "carriage return and text": r"print('wrong\rright')",
    "stderr": "import sys\nprint('aside', file=sys.stderr)",
    "both streams": "import sys\nprint('out')\nprint('err', file=sys.stderr)\nprint('out again')",
    "many lines": "for n in range(2000): print('line', n)",
    "a long line": "print('x' * 20_000)",
    "the stream": "import sys\nprint(sys.stdout.encoding.lower(), sys.stdout.isatty())",
    "redirected stdout": """
        import contextlib, io
        with contextlib.redirect_stdout(io.StringIO()) as caught:
            print("inside")
        print(caught.getvalue().upper())
        """,
    "pprint": "from pprint import pprint\npprint({n: 'x' * n for n in range(30)})",
    # Values of the last expression.
    "a number": "6 * 7",
    "a float": "0.1 + 0.2",
    "a complex number": "(1 + 2j) ** 2",
    "a string": "'text with \\n and \\'quotes\\''",
    "a long string": "'x' * 3000",
    "bytes": "b'\\x00\\xff text'",
    "none": "None",
    "a semicolon": "6 * 7;",
    "a semicolon in a remark": "6 * 7  # ;",
    "a semicolon in front of a remark": "(6 * 7);  # quiet",
    "an assignment": "value = 3",
    "an assignment expression": "(value := 3)",
    "an expression that is not last": "1 + 1\nvalue = 2",
    "several statements in a line": "1; 2; 3",
    "an expression in a block": "if True:\n    5",
    "a docstring alone": '"""Words."""',
    "underscore": "_x = 5\n_x",
    "a short list": "[1, 'two', 3.0, None, True]",
    "a long list": "list(range(200))",
    "a very long list": "list(range(1500))",
    "a list of long strings": "['x' * n for n in range(5, 60, 5)]",
    "a nested list": "[[n * m for n in range(12)] for m in range(12)]",
    "tuples": "(), (1,), (1, 2), tuple(range(100))",
    "a dict": "{'b': 1, 'a': [1, 2, 3], 'c': {'d': None}}",
    "a long dict": "{f'key {n}': list(range(n)) for n in range(30)}",
    "sets": "{3, 1, 2}, frozenset('hello'), set(), {1, 'a', None}",
    "a long set": "{n * 7 % 1009 for n in range(300)}",
    "a recursive list": "x = [1]\nx.append(x)\nx",
    "a recursive dict": "x = {}\nx['self'] = x\nx",
    "collections": """
        from collections import ChainMap, Counter, OrderedDict, UserList, defaultdict, deque
        [Counter('abracadabra'), OrderedDict(a=1, b=2), defaultdict(list, a=[1]), UserList([1]),
         deque([1, 2], maxlen=3), deque(range(40)), ChainMap({'a': 1}), Counter(), OrderedDict()]
        """,
    "a default dict of default dicts": """
        from collections import defaultdict
        tree = defaultdict(lambda: defaultdict(int))
        for n in range(20): tree[n % 4][n] += 1
        {key: dict(value) for key, value in tree.items()}
        """,
    "named tuples": """
        from collections import namedtuple
        Point = namedtuple("Point", "x y")
        [Point(1, 2), Point(x="a" * 50, y="b" * 50)]
        """,
    "classes": "import collections\n[int, ValueError, collections.Counter, type(None)]",
    "a class of the cell": "class Thing: pass\nThing",
    "an object": "class Thing: pass\nThing()",
    "objects in a list": "class Thing: pass\n[Thing() for _ in range(5)]",
    "a repr of several lines": """
        class Table:
            def __repr__(self): return "a | b\\n--+--\\n1 | 2"
        [Table(), {"key": Table()}]
        """,
    "functions": "def f(a, *b, c: int = 3, **d) -> str: ...\n[f, len, print, lambda x: x, ''.join]",
    "bound methods": "import math\nclass A:\n    def m(self): ...\n[math.sin, [].append, A.m]",
    "exceptions as values": "[ValueError('x'), KeyError(1, 'a' * 80), OSError(2, 'no')]",
    "namespaces": "from types import SimpleNamespace as N\nN(a=1, b='x' * 80, c=N(d=[1, 2]))",
    "patterns": "import re\n[re.compile(r'\\d+'), re.compile('a', re.I | re.M), re.compile(b'x')]",
    "ranges and slices": "[range(3), slice(1, None), Ellipsis, NotImplemented]",
    "dates": """
        import datetime as d
        [d.date(2024, 2, 29), d.datetime(2024, 2, 29, 12), d.timedelta(1.5), d.timezone.utc]
        """,
    "enums": "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 'b'\n[E, E.A, list(E)]",
    "a mapping proxy": "import types\ntypes.MappingProxyType({'a': 1})",
    "paths and decimals": """
        from decimal import Decimal
        from fractions import Fraction
        from pathlib import PurePosixPath
        [PurePosixPath("/a/b"), Decimal("1.10"), Fraction(1, 3)]
        """,
    "a generator": "(n for n in range(3))",
    "iterators": "[iter([]), map(str, []), zip(), enumerate([]), reversed([1])]",
    "subclasses of containers": """
        class Names(list): pass
        class Config(dict): pass
        class Loud(list):
            def __repr__(self): return "LOUD"
        [Names("ab"), Config(a=1), Loud([1])]
        """,
    "a dataclass": """
        from dataclasses import dataclass, field
        @dataclass
        class Point:
            x: int
            y: list = field(default_factory=list)
        [Point(1), Point(2, ["a" * 60, "b" * 60])]
        """,
    "_repr_pretty_": """
        class Pretty:
            def __init__(self, *items): self.items = items
            def _repr_pretty_(self, p, cycle):
                if cycle:
                    p.text("Pretty(...)")
                    return
                with p.group(7, "Pretty(", ")"):
                    for number, item in enumerate(self.items):
                        if number:
                            p.text(",")
                            p.breakable()
                        p.pretty(item)
        Pretty(1, "a" * 40, Pretty(2, "b" * 40, [Pretty()] * 12))
        """,
    "a proxy that has every attribute": """
        class Anything:
            def __getattr__(self, name): return lambda *a, **k: "<b>no</b>"
            def __repr__(self): return "anything"
        Anything()
        """,
    "a name from a notebook": "__name__, __name__ == '__main__', __spec__ is None",
    # Rich display.
    "display": "display(1, 'two', [3])",
    "display of nothing": "display()\ndisplay(None)",
    "display and result": "print('before')\ndisplay({'a': 1})\nprint('after')\n'result'",
    "display from IPython": """
        from IPython.display import HTML, Markdown, display
        display(HTML("<b>bold</b>"), Markdown("*text*"))
        """,
    "display in a loop": "for n in range(5):\n    print('n', n)\n    display(n * n)",
    "HTML": "from IPython.display import HTML\nHTML('<table><tr><td>ä</td></tr></table>')",
    "LaTeX": "from IPython.display import Latex, Math, display\ndisplay(Math('x^2'))\nLatex('$y$')",
    "SVG": """
        from IPython.display import SVG
        SVG('<svg xmlns="http://www.w3.org/2000/svg"><circle r="5"/></svg>')
        """,
    "JSON and Javascript": """
        from IPython.display import JSON, GeoJSON, Javascript, display
        display(JSON({"a": [1, None]}, expanded=True), Javascript("console.log(1)"))
        GeoJSON({"type": "Point", "coordinates": [1, 2]})
        """,
    "an image": """
        import base64
        from IPython.display import Image
        pixel = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q"
                 "DwADhgGAWjR9awAAAABJRU5ErkJggg==")
        Image(base64.b64decode(pixel), width=20, height=30)
        """,
    "audio and video": """
        from IPython.display import Audio, Video, YouTubeVideo, display
        display(Audio([0.0, 0.5, -0.5] * 100, rate=8000), Video("https://localhost/x.mp4"))
        YouTubeVideo("abc")
        """,
    "_repr_html_": """
        class Page:
            def _repr_html_(self): return "<p>page</p>"
            def __repr__(self): return "Page()"
        Page()
        """,
    "every _repr_": """
        class Rich:
            def _repr_html_(self): return "<p>1</p>", {"isolated": True}
            def _repr_markdown_(self): return "**1**"
            def _repr_svg_(self): return "<svg/>"
            def _repr_png_(self): return b"\\x89PNG not really"
            def _repr_jpeg_(self): return b"\\xff\\xd8 nor this", {"width": 7}
            def _repr_pdf_(self): return b"%PDF"
            def _repr_latex_(self): return "$1$"
            def _repr_json_(self): return {"one": [1, 1.5, None, True]}
            def _repr_javascript_(self): return "1"
        Rich()
        """,
    "_repr_mimebundle_": """
        class Bundle:
            def _repr_mimebundle_(self, include=None, exclude=None):
                data = {"text/html": "<i>b</i>", "application/x-own+json": [1, {"a": 2}]}
                return data, {"text/html": {"m": 1}}
            def _repr_html_(self): return "not this one"
            def _repr_latex_(self): return "$this$"
        Bundle()
        """,
    "a formatter of the shell": """
        formatter = get_ipython().display_formatter.formatters["text/html"]
        formatter.for_type(complex, lambda z: f"<b>{z.real:g}, {z.imag:g}</b>")
        display(1 + 2j)
        formatter.pop(complex);
        """,
    "_ipython_display_": """
        class Own:
            def _ipython_display_(self):
                print("shown")
                display({"text/plain": "by itself"}, raw=True)
        display(Own())
        Own()
        """,
    "a class with _repr_html_": "class Page:\n    def _repr_html_(self): return 'x'\nPage",
    "a representation that is not there": """
        class Shy:
            def _repr_html_(self): return None
            def _repr_png_(self): raise NotImplementedError
            def __repr__(self): return "shy"
        Shy()
        """,
    "include and exclude": """
        class Rich:
            def _repr_html_(self): return "<p>1</p>"
            def _repr_latex_(self): return "$1$"
        display(Rich(), include=["text/html"])
        display(Rich(), exclude=["text/html"])
        """,
    "raw bundles and metadata": """
        display({"text/html": "<b>x</b>", "text/plain": "x"}, raw=True, metadata={"a": {"b": 1}})
        """,
    "publish_display_data": """
        from IPython.display import publish_display_data
        publish_display_data({"text/markdown": "*x*"}, {"text/markdown": {"k": 1}})
        """,
    "a display that is updated": """
        handle = display("first", display_id=True)
        print("between")
        handle.update("second")
        print(type(handle).__name__)
        """,
    "updates by name": """
        from IPython.display import HTML, update_display
        display(HTML("<b>0</b>"), display_id="place of this cell")
        for n in range(1, 4):
            update_display(HTML(f"<b>{n}</b>"), display_id="place of this cell")
        """,
    "two displays of one id": """
        handle = display(1, display_id=True)
        handle.display(2)
        handle.update(3)
        """,
    "an empty place that is filled": "h = display(display_id=True)\nh.update([1, 2, 3])",
    "an update of what is not there": """
        from IPython.display import update_display
        update_display("nobody", display_id="nowhere at all")
        print("done")
        """,
    "functions for one kind of display": """
        from IPython.display import Code, IFrame, Pretty, display_html, display_markdown
        display_html("<b>x</b>", raw=True)
        display_markdown("*x*", raw=True)
        display(Pretty("plain"), IFrame("https://localhost", 10, 10))
        Code("x = 1", language="python")
        """,
    "clear_output": """
        from IPython.display import clear_output
        print("gone")
        clear_output()
        print("stays")
        """,
    "clear_output that waits": """
        from IPython.display import clear_output
        for n in range(4):
            clear_output(wait=True)
            print("step", n)
            display(n)
        """,
    "clear_output at the end": """
        from IPython.display import clear_output
        print("gone")
        display("gone too")
        clear_output()
        """,
    "display that clears": "print('gone')\ndisplay('stays', clear=True)",
    "progress of IPython": """
        from IPython.display import ProgressBar
        for _ in ProgressBar(3): pass
        """,
    "display in a thread": """
        import threading
        thread = threading.Thread(target=lambda: display("from a thread"))
        thread.start()
        thread.join()
        """,
    # Figures.
    "a figure and its value": """
        import matplotlib.pyplot as plt
        plt.figure()
        plt.close()
        plt.title("ä")
        plt.plot([1, 3, 2])
        """,
    "two figures": """
        import matplotlib.pyplot as plt
        for n in (1, 2):
            plt.figure(figsize=(2, n))
            plt.bar([1, 2], [n, 2 * n])
        """,
    "plt.show": """
        import matplotlib.pyplot as plt
        for n in range(2):
            plt.figure(figsize=(2, 2))
            plt.plot([n, 1])
            print("before", n)
            plt.show()
            print("after", n)
        """,
    "a figure as the value": """
        import matplotlib.pyplot as plt
        fig, ax = plt.subplots(figsize=(3, 2), dpi=80, facecolor="lightyellow")
        ax.scatter([1, 2, 3], [3, 1, 2])
        plt.close(fig)
        fig
        """,
    "a figure that is displayed and stays open": """
        import matplotlib.pyplot as plt
        fig, axes = plt.subplots(1, 2, figsize=(4, 2))
        axes[0].hist([1, 2, 2, 3])
        display(fig)
        axes[1].plot([1, 2])
        """,
    "a transparent figure": """
        import matplotlib.pyplot as plt
        fig, ax = plt.subplots(figsize=(2, 2))
        fig.patch.set_alpha(0)
        """,
    "a figure without axes": "import matplotlib.pyplot as plt\nplt.figure()",
    "interactive mode off": """
        import matplotlib.pyplot as plt
        with plt.ioff():
            fig, ax = plt.subplots(figsize=(2, 2))
        ax.plot([1, 2])
        plt.close(fig)
        print(plt.isinteractive())
        """,
    # Libraries.
    "numpy": """
        import numpy as np
        display(np.arange(24).reshape(2, 3, 4) / 7, np.zeros((2000, 3)))
        [np.float32(1.5), np.int64(3), np.array("a"), np.nan]
        """,
    "data frames": """
        import pandas as pd
        wide = pd.DataFrame([[n * 1000 for n in range(40)]] * 3)
        print(wide)
        print(pd.DataFrame([["x" * 20] * 8] * 2))
        display(wide, pd.DataFrame({"n": range(1000)}), pd.Series([1.5, None], name="s"))
        display(pd.MultiIndex.from_product([[1, 2], ["a", "b"]], names=["n", "c"]))
        pd.DataFrame({"a": [1, 2], "b": ["x", None], "t": pd.to_datetime(["2024-01-01", None])})
        """,
    "a styled data frame and a plot of pandas": """
        import pandas as pd
        frame = pd.DataFrame({"a": [1.234, 2.345]})
        display(frame.style.format("{:.1f}").highlight_max(color="yellow").set_caption("styled"))
        frame.plot.bar(figsize=(3, 2))
        """,
    "pictures": """
        from PIL import Image
        display(Image.new("1", (8, 8)))
        Image.new("RGB", (32, 24), "teal")
        """,
    "a data frame of polars": "import polars as pl\npl.DataFrame({'a': [1, None], 'b': [2, 3]})",
    "plotly": """
        import plotly.graph_objects as go
        go.Figure(go.Scatter(y=[1, 3])).show()
        print("shown")
        go.Figure(go.Bar(x=["a", "b"], y=[1, 3]), layout={"title": {"text": "bars"}})
        """,
    "altair": """
        import altair as alt
        import pandas as pd
        data = pd.DataFrame({"a": ["x", "y"], "b": [1, 2]})
        alt.Chart(data).mark_bar().encode(x="a", y="b")
        """,
    "sympy": """
        from sympy import Integral, Matrix, symbols
        x, y = symbols("x y")
        display(Matrix([[x, 1], [y, 2]]))
        Integral(x**2 / y, x)
        """,
    "a progress bar": """
        from tqdm import tqdm
        for _ in tqdm(range(20), desc="work", ncols=60): pass
        """,
    "bars inside of a bar": """
        import time
        from tqdm import tqdm
        for n in tqdm(range(2), ncols=60):
            for m in tqdm(range(3), ncols=60): time.sleep(0.05)
        """,
    "a bar of dask": """
        import dask
        from dask.diagnostics import ProgressBar
        with ProgressBar(width=10, minimum=60):
            print(dask.delayed(lambda: 1)().compute())
        """,
    "a progress bar that says more": """
        from tqdm import trange
        with trange(3, ncols=60) as bar:
            for n in bar:
                bar.set_postfix(n=n)
                bar.write(f"line {n}")
        """,
    "the shell of a kernel": """
        import builtins, sys
        print("IPython" in sys.modules, "ipykernel.zmqshell" in sys.modules, sys.ps1)
        print(builtins.__IPYTHON__, "get_ipython" in globals())
        from IPython import get_ipython as ask
        from IPython.core.interactiveshell import InteractiveShell
        shell = ask()
        print(type(shell), InteractiveShell.initialized(), InteractiveShell.instance() is shell)
        print("IPKernelApp" in shell.config, hasattr(shell, "kernel"), get_ipython() is shell)
        """,
    "whether this is a notebook, as libraries ask": """
        import sys
        print(sys.modules["IPython"].get_ipython().__class__.__name__)
        import importlib.util
        print(importlib.util.find_spec("IPython").name)
        import IPython.display, IPython
        print(IPython.get_ipython() is not None, IPython.display is sys.modules["IPython.display"])
        from ipykernel.zmqshell import ZMQInteractiveShell
        isinstance(IPython.get_ipython(), ZMQInteractiveShell)
        """,
    "a cell run by the shell": "result = get_ipython().run_cell('1 + 1')",
    "a cell run by the shell that shows and prints": """
        result = get_ipython().run_cell("print('a')\\ndisplay('b')\\n[3]")
        print(result.result, result.success)
        """,
    "a callback for the end of the cell": """
        def ran(result):
            get_ipython().events.unregister("post_run_cell", ran)
            print("ran", result.success)
        get_ipython().events.register("post_run_cell", ran)
        print("first")
        """,
    "the publisher of the shell": """
        get_ipython().display_pub.publish({"text/plain": "a", "text/html": "<b>a</b>"})
        get_ipython().display_formatter.format([1])
        """,
    "captured output": """
        from IPython.utils.capture import capture_output
        with capture_output() as caught:
            print("hidden")
            display(7)
            display({"text/html": "<b>x</b>"}, raw=True, metadata={"a": 1})
        print(repr(caught.stdout), [output.data for output in caught.outputs])
        caught.show()
        """,
    "captured output without displays": """
        from IPython.utils.capture import capture_output
        with capture_output(display=False) as caught:
            print("hidden")
            display(7)
        caught.outputs, caught.stdout
        """,
    "captured output that is cleared": """
        from IPython.display import clear_output
        from IPython.utils.capture import capture_output
        with capture_output() as caught:
            display(1)
            clear_output()
            display(2)
        [output.data for output in caught.outputs]
        """,
    "captured figures": """
        import matplotlib.pyplot as plt
        from IPython.utils.capture import capture_output
        with capture_output() as caught:
            plt.figure(figsize=(2, 2))
            plt.plot([1, 2])
            plt.show()
        print([sorted(output.data) for output in caught.outputs])
        """,
    "a capturing magic": """
        get_ipython().run_cell_magic("capture", "caught", "print('x')\\ndisplay(9)\\n10")
        print(repr(caught.stdout), [output.data for output in caught.outputs])
        """,
    "an Output that is not shown": """
        import ipywidgets
        out = ipywidgets.Output()
        with out:
            print("inside")
            display(8)
            1 / 0
        print("after")
        """,
    "a traceback by IPython's mode": """
        %xmode Plain
        def f(): return {}["k"]
        f()
        """,
    "back to the usual mode": "%xmode Context",
    "a traceback of one line": "%xmode Minimal\n1 / 0",
    "back to the usual mode again": "%xmode Context",
    "a hook for exceptions": """
        import sys
        sys.excepthook = lambda *what: print("mine", what)
        1 / 0
        """,
    "figures as SVG": """
        %config InlineBackend.figure_format = "svg"
        import matplotlib
        matplotlib.rcParams["svg.hashsalt"] = "same"
        import matplotlib.pyplot as plt
        plt.figure(figsize=(2, 2))
        from IPython.utils.capture import capture_output
        with capture_output() as caught:
            plt.show()
        print([sorted(output.data) for output in caught.outputs])
        """,
    "figures with more pixels": """
        %config InlineBackend.figure_formats = ["retina"]
        import matplotlib.pyplot as plt
        fig, ax = plt.subplots(figsize=(2, 2))
        """,
    "figures in two formats": """
        %config InlineBackend.figure_formats = ["png", "jpeg"]
        %config InlineBackend.print_figure_kwargs = dict(bbox_inches=None)
        import matplotlib.pyplot as plt
        plt.figure(figsize=(2, 2))
        plt.plot([1, 2]);
        """,
    "figures by a function": """
        from matplotlib_inline.backend_inline import set_matplotlib_formats
        set_matplotlib_formats("png", bbox_inches=None, dpi=30)
        import matplotlib.pyplot as plt
        fig, ax = plt.subplots(figsize=(2, 2))
        """,
    "figures that stay open": """
        %config InlineBackend.figure_formats = ["png"]
        %config InlineBackend.print_figure_kwargs = dict(bbox_inches="tight")
        %config InlineBackend.close_figures = False
        import matplotlib.pyplot as plt
        plt.figure(figsize=(2, 2))
        plt.plot([1, 2])
        plt.show()
        print(len(plt.get_fignums()))
        """,
    "figures that close again": """
        %config InlineBackend.close_figures = True
        %config InlineBackend.print_figure_kwargs = dict(bbox_inches="tight")
        import matplotlib.pyplot as plt
        plt.close("all")
        """,
    "rich text": """
        from rich import print as rich_print
        rich_print("[bold]x[/bold]", {"a": 1})
        from rich.table import Table
        table = Table("a", "b")
        table.add_row("1", "2")
        table
        """,
    "a table of itables": """
        import itables, pandas as pd
        from IPython.display import HTML
        shown = itables.to_html_datatable(pd.DataFrame({"a": [1, 2]}), connected=True)
        print("<table" in shown, itables.__name__)
        """,
    "which bar tqdm takes": """
        import tqdm.auto, tqdm.notebook
        tqdm.auto.tqdm.__mro__[1] is tqdm.notebook.tqdm
        """,
    # What programs do.
    "a warning": "import warnings\nwarnings.warn('careful')",
    "warnings of classes": """
        import warnings
        def old():
            warnings.warn("old is old", DeprecationWarning, stacklevel=2)
        old()
        warnings.warn("soon", FutureWarning)
        """,
    "logging": """
        import logging
        logger = logging.getLogger("cell")
        logger.warning("beware of %s", "this")
        logger.info("not shown")
        logger.error("ä")
        """,
    "logging of an exception": """
        import logging
        log = logging.Logger("own")
        log.addHandler(logging.StreamHandler())
        try: {}["k"]
        except KeyError as exc: log.error("failed: %r", exc)
        """,
    "threads": """
        import threading
        def work(n): results.append(n * n)
        results = []
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        print(sorted(results))
        """,
    "a thread that prints": """
        import threading
        thread = threading.Thread(target=lambda: [print("thread", n) for n in range(3)])
        thread.start()
        thread.join()
        print("main")
        """,
    "an executor": """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool:
            print(list(pool.map(lambda n: n * n, range(10))))
        """,
    "subprocesses": """
        import subprocess, sys
        program = [sys.executable, "-c", "print(6 * 7)"]
        done = subprocess.run(program, capture_output=True, text=True)
        print(done.stdout, done.returncode)
        subprocess.check_output(["echo", "ä"]).decode()
        """,
    "a subprocess that fails": """
        import subprocess
        subprocess.run("exit 3", shell=True)
        """,
    "a subprocess that draws": """
        import subprocess, sys
        code = "from matplotlib import pyplot; pyplot.figure(); print(pyplot.get_fignums())"
        subprocess.check_output([sys.executable, "-c", code])
        """,
    "multiprocessing": """
        import multiprocessing
        def square(n): return n * n
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(square, range(5)))
        """,
    "workers that spawn": """
        import math, multiprocessing
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            print(pool.map(math.sqrt, [4, 9]))
        """,
    "workers of a fork server": """
        import multiprocessing, operator
        with multiprocessing.get_context("forkserver").Pool(1) as pool:
            print(pool.starmap(operator.mul, [(2, 3), (4, 5)]))
        """,
    "an executor that spawns": """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            print(list(pool.map(str.upper, "ab")))
        """,
    "a process that spawns after await": """
        import asyncio, math, multiprocessing
        await asyncio.sleep(0)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(math.factorial, [5]))
        """,
    "tasks of dask in processes": """
        import dask
        def square(n): return n * n
        dask.compute([dask.delayed(square)(n) for n in range(4)], scheduler="processes")
        """,
    "pickled classes": """
        import pickle
        class Thing:
            def __init__(self, n): self.n = n
            def __eq__(self, other): return self.n == other.n
        copy = pickle.loads(pickle.dumps(Thing(3)))
        copy == Thing(3), type(copy) is Thing, Thing.__module__
        """,
    "await": "import asyncio\nprint(await asyncio.sleep(0, 'slept'))\nawait asyncio.sleep(0, 7)",
    "a magic and a figure": """
        %matplotlib inline
        import matplotlib.pyplot as plt
        plt.plot([1, 2])
        """,
    "tasks": """
        import asyncio
        async def work(n):
            await asyncio.sleep(0)
            return n * n
        await asyncio.gather(*(work(n) for n in range(5)))
        """,
    "async for and with": """
        import contextlib
        async def count(to):
            for n in range(to): yield n
        @contextlib.asynccontextmanager
        async def room():
            print("in")
            yield "room"
            print("out")
        async with room() as where:
            async for n in count(3): print(where, n)
        [n async for n in count(4)]
        """,
    "generators": """
        def fibonacci():
            a, b = 0, 1
            while True:
                yield a
                a, b = b, a + b
        import itertools
        list(itertools.islice(fibonacci(), 20))
        """,
    "f-strings": "x = 3.14159\nprint(f'{x:.2f} {x!r:>10} {x=} {{}} {\"q\"}')",
    "dollars and braces": "x = 1\nprint('$x {x} {{x}} $$ %x')",
    "closures and globals": """
        counter = 0
        def bump():
            global counter
            counter += 1
            return counter
        [bump() for _ in range(3)], counter
        """,
    "match": "match {'a': [1, 2]}:\n    case {'a': [x, *rest]}: print(x, rest)",
    "if main": "def main(): print('main')\nif __name__ == '__main__':\n    main()",
    "source of a function": """
        import inspect
        def f(x):
            return x + 1
        print(inspect.getsource(f))
        """,
    "source by dill": """
        from dill.source import getsource
        def f(x):
            return x + 1
        print(getsource(f))
        """,
    "a compiled function that is cached": """
        from numba import njit
        @njit(cache=True)
        def f(x): return x + 1
        print(f(3), sum(f.stats.cache_misses.values()) + sum(f.stats.cache_hits.values()))
        """,
    "a function whose results are kept": """
        import joblib, tempfile
        kept = joblib.Memory(tempfile.mkdtemp(), verbose=0)
        @kept.cache
        def f(x):
            print("computed")
            return x
        f(1), f(1)
        """,
    "a module that the cell writes": """
        import pathlib, sys
        folder = pathlib.Path("written")
        folder.mkdir(exist_ok=True)
        (folder / "helpers.py").write_text("def twice(x): return 2 * x")
        sys.path.insert(0, str(folder))
        from helpers import twice
        sys.path.pop(0)
        twice(21)
        """,
    "a package that the cell writes": """
        import os, sys
        os.makedirs("pack/inner", exist_ok=True)
        for name in ("pack/__init__.py", "pack/inner/__init__.py"): open(name, "w").close()
        with open("pack/inner/leaf.py", "w") as file: print("VALUE = 7", file=file)
        sys.path.insert(0, os.getcwd())
        import pack.inner.leaf as leaf
        sys.path.pop(0)
        leaf.VALUE
        """,
    "a module that is nowhere": """
        try: import nowhere_at_all
        except ImportError as error: print(type(error).__name__, error)
        """,
    "a function named as the shell's": """
        def display(x): print("mine", x)
        display(3)
        del display
        """,
    "a global of a function that changes": """
        factor = 2
        def scaled(n): return n * factor
        factor = 10
        scaled(3)
        """,
    "a pickled function": """
        import cloudpickle
        step = 3
        def up(n): return n + step
        again = cloudpickle.loads(cloudpickle.dumps(up))
        again(1), again.__name__
        """,
    "a data array": """
        import numpy as np
        import xarray as xr
        xr.DataArray(np.eye(2), dims=["x", "y"], coords={"x": [10, 20]}, name="t").to_series()
        """,
    "a surrogate in a path": """
        import os, pathlib
        path = pathlib.Path(os.fsdecode(b"caf\\xe9"))
        print(path, path.exists())
        path
        """,
    "a warning with half a character": "import warnings\nwarnings.warn('bad ' + chr(0xdcc3))",
    "logging of half a character": """
        import logging
        logging.getLogger("half").error("bad %s", chr(0xdcc3))
        """,
    "doctest": '''
        import doctest
        def double(x):
            """
            >>> double(2)
            4
            """
            return 2 * x
        doctest.run_docstring_examples(double, {"double": double})
        print("tested")
        ''',
    "a caught exception": "import sys\ntry: 1 / 0\nexcept ZeroDivisionError as e: print(repr(e))",
    "exec and eval": "exec('y = 5')\nprint(eval('y + 1'))",
    "many outputs": "for n in range(30):\n    display(n)\n    print(n)",
    # Errors.
    "an exception": "print('before')\n1 / 0",
    "an exception in a function": """
        def inner(values):
            return values["missing"]
        def outer():
            return inner({})
        outer()
        """,
    "an exception without a message": "raise ValueError",
    "an exception with half a character": "raise ValueError('bad ' + chr(0xdcc3))",
    "a cause with half a character": "raise KeyError('k') from OSError('bad ' + chr(0xdcc3))",
    "a note with half a character": "e = OSError()\ne.add_note('bad ' + chr(0xdcc3))\nraise e",
    "an assertion about half a character": "assert not chr(0xdcc3), 'bad ' + chr(0xdcc3)",
    "an exception of several lines": "raise RuntimeError('first\\nsecond\\nthird')",
    "an exception of the cell": "class Own(Exception): ...\nraise Own('mine', 2)",
    "an assertion": "assert 1 == 2, 'not equal'",
    "a name that is missing": "print(undefined_name)",
    "a name that a module has not got": "from json import no_such_name",
    "a file that is missing": "open('/no/such/file')",
    # Not of one that was caught: of its frame IPython shows the line that it has come to since.
    "a cause": "raise RuntimeError('while looking') from KeyError('k')",
    "a note": "e = ValueError('x')\ne.add_note('a hint')\nraise e",
    "a syntax error of eval": "eval('1 +')",
    "an exception in a library": "import json\njson.loads('{bad')",
    "an exception in code that was made": "exec(compile('\\n\\n1/0', 'config', 'exec'))",
    "an exception in code of a file that is gone": """
        exec(compile("def f():\\n    return {}['k']", "/tmp/gone.py", "exec"))
        f()
        """,
    "an exception in code of a relative file": "exec(compile('\\n1/0', 'cell.py', 'exec'))",
    "an exception in a namedtuple": """
        from collections import namedtuple
        namedtuple("P", "x y")(1)
        """,
    "an exception in a dataclass": """
        from dataclasses import dataclass
        @dataclass
        class P:
            x: int
            def __post_init__(self): self.y = 1 // self.x
        P(0)
        """,
    "an exception in a method that attrs makes": """
        import attr
        def check(instance, attribute, value): raise ValueError("bad")
        @attr.s
        class P:
            x = attr.ib(validator=check)
        P(1)
        """,
    "an exception in a template": """
        from jinja2 import Template
        Template("a\\n{{ 1 // n }}").render(n=0)
        """,
    "a backend that shows nothing": """
        %matplotlib agg
        import matplotlib.pyplot as plt
        plt.plot([1, 2])
        plt.close("all")
        print(plt.get_backend().lower())
        %matplotlib SVG
        plt.plot([1, 2])
        plt.close("all")
        print(plt.get_backend().lower())
        %matplotlib inline
        plt.figure(figsize=(1, 1)).text(0, 0, "shown again")
        plt.show()
        """,
    "an open figure of a backend that shows nothing": """
        %matplotlib agg
        import matplotlib.pyplot as plt
        plt.plot([1, 2]);
        """,
    "figures in the cell again": """
        %matplotlib inline
        import matplotlib.pyplot as plt
        plt.close("all")
        """,
    "an exception after await": "import asyncio\nawait asyncio.sleep(0)\n[][1]",
    "an exception behind a figure": """
        import matplotlib.pyplot as plt
        plt.plot([1, 2])
        raise ValueError("after the plot")
        """,
    # Last, because the local kernel goes on with it.
    "a future feature": """
        from __future__ import annotations
        def f(x: undefined) -> nothing: ...
        f.__annotations__
        """,
}
CELLS = {name: dedent(source).strip("\n") for name, source in CELLS.items()}
