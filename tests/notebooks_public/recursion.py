# %% [markdown]
# # Recursion
#
# A function that calls itself, a few times over: from factorials to eight queens.


# %%
def factorial(n):
    return 1 if n <= 1 else n * factorial(n - 1)


[factorial(n) for n in range(8)]

# %%
calls = 0


def fib(n):
    global calls
    calls += 1
    return n if n < 2 else fib(n - 1) + fib(n - 2)


print(fib(18), "in", calls, "calls")

# %% [markdown]
# The same with a memory.

# %%
memo = {}


def fib_memo(n):
    if n < 2:
        return n
    if n not in memo:
        memo[n] = fib_memo(n - 1) + fib_memo(n - 2)
    return memo[n]


fib_memo(60)

# %%
len(memo), memo[30]

# %%
from functools import lru_cache


@lru_cache(maxsize=None)
def ways(amount, coins=(1, 2, 5, 10, 20, 50)):
    """Return in how many ways the coins make the amount."""
    if amount == 0:
        return 1
    if amount < 0 or not coins:
        return 0
    return ways(amount - coins[-1], coins) + ways(amount, coins[:-1])


ways(100)

# %%
ways(200)


# %%
def is_even(n):
    return True if n == 0 else is_odd(n - 1)


# %%
# The other half of the pair comes only now.
def is_odd(n):
    return False if n == 0 else is_even(n - 1)


is_even(10), is_odd(7), is_even(3)

# %% [markdown]
# ## The towers of Hanoi

# %%
towers = {"A": [3, 2, 1], "B": [], "C": []}
moves = []


def hanoi(n, source, target, spare):
    if n == 0:
        return
    hanoi(n - 1, source, spare, target)
    towers[target].append(towers[source].pop())
    moves.append(f"{source}{target}")
    hanoi(n - 1, spare, target, source)


hanoi(3, "A", "C", "B")
print(" ".join(moves))
towers

# %%
hanoi(3, "C", "B", "A")  # goes on from where they stand
print(len(moves), towers)


# %%
def permutations(items):
    if len(items) <= 1:
        yield items
        return
    for i, item in enumerate(items):
        for rest in permutations(items[:i] + items[i + 1 :]):
            yield item + rest


print(*permutations("abc"))


# %%
def queens(n, row=0, columns=()):
    if row == n:
        yield columns
        return
    for column in range(n):
        if all(
            column != c and abs(column - c) != row - r for r, c in enumerate(columns)
        ):  # fmt: skip
            yield from queens(n, row + 1, (*columns, column))


solutions = list(queens(6))
for column in solutions[0]:
    print("." * column + "Q" + "." * (5 - column))
len(solutions)


# %%
def flatten(tree):
    return (
        [leaf for branch in tree for leaf in flatten(branch)] if isinstance(tree, list) else [tree]
    )


nested = [1, [2, [3, [4]], 5], [[6]]]
nested.append(nested[1][1])
nested[1][1].append(99)  # seen twice: it is one list
flatten(nested)


# %%
def pascal(n):
    if n == 0:
        return [1]
    above = pascal(n - 1)
    return [1, *(a + b for a, b in zip(above, above[1:])), 1]


for n in range(6):
    print(" ".join(map(str, pascal(n))).center(20).rstrip())
