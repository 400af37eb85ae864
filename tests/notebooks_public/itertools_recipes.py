# %% [markdown]
# # itertools and functools
#
# Loops that others have written already.

# %%
import itertools as it
import operator
from collections import ChainMap, OrderedDict, deque
from functools import partial, reduce

# %%
list(it.accumulate([1, 2, 3, 4])), list(it.accumulate([1, 2, 3, 4], operator.mul))

# %%
["".join(pair) for pair in it.combinations("ABCD", 2)]

# %%
len(list(it.permutations(range(5)))), list(it.product("xy", repeat=2))[:3]

# %% [markdown]
# ## Grouping

# %%
animals = ["ant", "bee", "cat", "bear", "crow", "asp"]
for letter, group in it.groupby(sorted(animals), key=operator.itemgetter(0)):
    print(letter, list(group))


# %%
def batched(iterable, n):
    iterator = iter(iterable)
    while batch := tuple(it.islice(iterator, n)):
        yield batch


def pairwise_differences(values):
    return [b - a for a, b in it.pairwise(values)]


list(batched("ABCDEFG", 3)), pairwise_differences([1, 4, 9, 16])

# %% [markdown]
# ## Iterators remember where they are

# %%
queue = iter(["first", "second", "third"])
next(queue)

# %%
next(queue)

# %%
list(queue), next(queue, "empty")

# %%
double = partial(operator.mul, 2)
power = partial(pow, exp=3)
[double(x) for x in range(4)], power(2), double.args

# %%
reduce(lambda a, b: a * 10 + b, [1, 9, 8, 4])

# %%
window = deque(maxlen=3)
for n in range(6):
    window.append(n)
window

# %%
window.append(99)
window.rotate(1)
list(window), window.maxlen

# %%
defaults = {"colour": "red", "size": 1}
chosen = {"size": 5}
settings = ChainMap(chosen, defaults)
settings["size"], settings["colour"]

# %%
chosen["colour"] = "blue"  # the chain looks at the same dicts
del chosen["size"]
dict(settings)

# %%
recent = OrderedDict.fromkeys("abcd")
recent.move_to_end("b")
recent.popitem(last=False)
"".join(recent)

# %%
by_length = operator.methodcaller("count", "a")
max(animals, key=by_length), sorted(animals, key=len, reverse=True)[0]

# %%
table = [[1, 2, 3], [4, 5, 6]]
row = table[1]
transposed = [list(column) for column in zip(*table)]
transposed, list(it.chain.from_iterable(table))

# %%
row.append(7)
table, list(it.zip_longest(*table, fillvalue=0))
