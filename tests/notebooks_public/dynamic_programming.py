# %% [markdown]
# # Dynamic programming

# %%
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd


# %%
class Item(NamedTuple):
    name: str
    weight: int
    value: int


items = [Item("tent", 5, 60), Item("stove", 3, 50), Item("rope", 4, 70), Item("book", 2, 30)]
capacity = 8

# %%
best = np.zeros((len(items) + 1, capacity + 1), dtype=int)
for i, item in enumerate(items, 1):
    for room in range(capacity + 1):
        best[i, room] = best[i - 1, room]
        if item.weight <= room:
            best[i, room] = max(best[i, room], best[i - 1, room - item.weight] + item.value)
pd.DataFrame(best, index=["-", *(item.name for item in items)])

# %%
chosen, room = [], capacity
for i in range(len(items), 0, -1):
    if best[i, room] != best[i - 1, room]:
        chosen.append(items[i - 1].name)
        room -= items[i - 1].weight
chosen, best[-1, -1], room


# %% [markdown]
# ## Edit distance


# %%
@cache
def distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return distance(a[1:], b[1:])
    return 1 + min(distance(a[1:], b), distance(a, b[1:]), distance(a[1:], b[1:]))


distance("kitten", "sitting"), distance("sunday", "saturday")

# %%
[word for word in ("apple", "ample", "maple", "angle") if distance(word, "apple") <= 1]


# %%
def lcs(a, b):
    table = [[""] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + x if x == y else max(table[i][j + 1], table[i + 1][j], key=len)
            )
    return table[-1][-1]


lcs("AGGTAB", "GXTXAYB")

# %%
maze = np.array([[1, 3, 1, 2], [1, 5, 1, 1], [4, 2, 1, 3], [1, 1, 6, 1]])
cost = maze.copy()
cost[0] = cost[0].cumsum()
cost[:, 0] = cost[:, 0].cumsum()
first_row = cost[0]
first_row

# %%
for i in range(1, 4):
    for j in range(1, 4):
        cost[i, j] += min(cost[i - 1, j], cost[i, j - 1])
print(cost)
cost[-1, -1]

# %%
first_row[0] = -1
cost[0, 0], maze[0, 0]


# %%
class Partition:
    """The number of ways to write n as a sum, remembered between objects."""

    known = {(0, 0): 1}

    @classmethod
    def count(cls, n, largest=None):
        largest = n if largest is None else min(largest, n)
        if (n, largest) not in cls.known:
            cls.known[n, largest] = (
                sum(cls.count(n - k, k) for k in range(1, largest + 1)) if n else 1
            )
        return cls.known[n, largest]


[Partition.count(n) for n in range(1, 11)]

# %%
len(Partition.known), Partition.count(30)

# %%
len(Partition.known) > 100, Partition.known[10, 10]
