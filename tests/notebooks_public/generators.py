# %% [markdown]
# # Generators
#
# A generator is a function that pauses.


# %%
def countdown(n):
    print("starting")
    while n:
        yield n
        n -= 1
    print("lift-off")


list(countdown(3))


# %%
def fibonacci():
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b


from itertools import islice, takewhile

print(*islice(fibonacci(), 10))
sum(n for n in takewhile(lambda n: n < 1000, fibonacci()) if n % 2 == 0)

# %%
squares = (n * n for n in range(5))
sum(squares)

# %% [markdown]
# Pipelines of generators read a file of any size.

# %%
text = "3 apples\n5 pears\n\n2 plums\n"


def lines(text):
    yield from text.splitlines()


def parsed(lines):
    for line in lines:
        if line:
            number, name = line.split()
            yield int(number), name


for number, name in parsed(lines(text)):
    print(name, "*" * number)


# %%
def averager():
    total, n, mean = 0, 0, None
    while True:
        value = yield mean
        total, n = total + value, n + 1
        mean = total / n


average = averager()
next(average)
[average.send(value) for value in (10, 20, 60)]

# %% [markdown]
# The generator lives on: it waits for the next value.

# %%
average.send(30)

# %%
average.close()
