# %% [markdown]
# # Regular expressions

# %%
import re
from collections import namedtuple
from datetime import datetime

# %%
log = """\
2024-05-01 10:02:11 INFO  web-1 GET /index.html 200 12ms
2024-05-01 10:02:12 ERROR web-2 POST /login 500 340ms
2024-05-01 10:02:15 INFO  web-1 GET /style.css 304 3ms
2024-05-01 10:03:01 WARN  web-3 GET /old?id=7&x=y 404 8ms
not a line of the log
2024-05-01 10:03:09 ERROR web-2 POST /login 503 1205ms
"""
len(log.splitlines())

# %%
pattern = re.compile(
    r"""
    ^(?P<time>\d{4}-\d\d-\d\d\ \d\d:\d\d:\d\d)\s+
    (?P<level>[A-Z]+)\s+
    (?P<host>[\w-]+)\s+
    (?P<method>GET|POST)\s(?P<path>\S+)\s
    (?P<status>\d{3})\s(?P<ms>\d+)ms$
    """,
    re.VERBOSE | re.MULTILINE,
)
pattern.groups, list(pattern.groupindex)[:3]

# %%
match = pattern.search(log)
match.group("host"), match["status"], match.span()

# %%
match.groupdict()

# %%
Entry = namedtuple("Entry", pattern.groupindex)


def parse(text):
    for found in pattern.finditer(text):
        yield Entry(*found.groups())._replace(ms=int(found["ms"]))


entries = list(parse(log))
entries[1]

# %%
[entry for entry in entries if entry.level == "ERROR"][-1].ms, len(entries)

# %%
[datetime.fromisoformat(entry.time).second for entry in entries]

# %% [markdown]
# ## Replacing

# %%
print(re.sub(r"(\d+)ms", lambda found: f"{int(found[1]) / 1000:.3f} s", log.splitlines()[1]))

# %%
masked, number = re.subn(r"(?<=id=)\d+", "***", log)
number, masked.splitlines()[3][-20:]

# %%
re.split(r"[;,\s]\s*", "one; two,three  four")

# %%
camel = re.compile(r"(?<!^)(?=[A-Z])")
[camel.sub("_", name).lower() for name in ("HttpRequest", "parseURL", "plain")]

# %% [markdown]
# ## A tokenizer

# %%
TOKENS = {"NUMBER": r"\d+(?:\.\d+)?", "NAME": r"[a-z]\w*", "OP": r"[-+*/()=]", "SKIP": r"\s+"}
tokenizer = re.compile("|".join(f"(?P<{name}>{rule})" for name, rule in TOKENS.items()))


def tokens(text):
    return [(t.lastgroup, t[0]) for t in tokenizer.finditer(text) if t.lastgroup != "SKIP"]


tokens("rate = 2.5 * (x1 + 3)")


# %%
def evaluate(text, **names):
    """Compute an expression by recursive descent."""
    todo = tokens(text)

    def atom():
        kind, value = todo.pop(0)
        if value == "(":
            inner = total()
            todo.pop(0)
            return inner
        return names[value] if kind == "NAME" else float(value)

    def product():
        value = atom()
        while todo and todo[0][1] in "*/":
            value = value * atom() if todo.pop(0)[1] == "*" else value / atom()
        return value

    def total():
        value = product()
        while todo and todo[0][1] in "+-":
            value = value + product() if todo.pop(0)[1] == "+" else value - product()
        return value

    return total()


evaluate("2 * (x + 3) - 4 / 2", x=5)

# %%
TOKENS["OP"] = r"[-+*/()=^]"  # the compiled pattern knows nothing of it
tokens("2^3"), match["path"]

# %%
(
    bool(re.fullmatch(r"\w+@\w+\.\w{2,}", "ada@lovelace.org")),
    re.findall(r"\b(\w)\w*\b", "a few words"),
)
