# %% [markdown]
# # Decorators and context managers

# %%
import functools
from contextlib import ExitStack, contextmanager, suppress

log = []


# %%
def traced(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        result = function(*args, **kwargs)
        log.append(f"{function.__name__}{args} -> {result}")
        return result

    return wrapper


@traced
def add(a, b):
    """Add two numbers."""
    return a + b


add(2, 3), add.__name__, add.__doc__

# %%
log

# %%
add("x", "y")
print(*log, sep="\n")


# %% [markdown]
# ## With arguments, and with a state


# %%
def counted(function):
    @functools.wraps(function)
    def wrapper(*args):
        wrapper.calls += 1
        return function(*args)

    wrapper.calls = 0
    return wrapper


def repeat(times):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return [function(*args) for _ in range(times)]

        return wrapper

    return decorate


@repeat(3)
@counted
def hello(name):
    return f"hello {name}"


hello("Ada")

# %%
hello("Bob")
hello.__wrapped__.calls


# %%
def make_counter():
    count = 0

    def increase(by=1):
        nonlocal count
        count += by
        return count

    def value():
        return count

    return increase, value


increase, value = make_counter()
increase(), increase(5)

# %%
increase(10)
value()  # both closures see one variable


# %%
class memoize:
    def __init__(self, function):
        self.function, self.cache = function, {}
        functools.update_wrapper(self, function)

    def __call__(self, *args):
        if args not in self.cache:
            print("computing", args)
            self.cache[args] = self.function(*args)
        return self.cache[args]


@memoize
def square(x):
    return x * x


square(4), square(4)

# %%
square(4), square(5), len(square.cache)

# %% [markdown]
# ## Dispatch by type


# %%
@functools.singledispatch
def describe(thing):
    return f"some {type(thing).__name__}"


@describe.register
def _(thing: int):
    return f"the number {thing}"


describe(3), describe("a"), describe([1])


# %%
@describe.register
def _(thing: list):
    return f"a list of {len(thing)}: " + ", ".join(map(describe, thing))


describe([1, "b", [2]])

# %% [markdown]
# ## Context managers


# %%
@contextmanager
def tag(name):
    print(f"<{name}>")
    try:
        yield name.upper()
    finally:
        print(f"</{name}>")


with tag("ul"), tag("li") as inner:
    print("text in", inner)


# %%
class Quiet:
    def __init__(self, *kinds):
        self.kinds, self.caught = kinds, []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind and issubclass(kind, self.kinds):
            self.caught.append(repr(error))
            return True
        return False


quiet = Quiet(ZeroDivisionError, KeyError)
with quiet:
    1 / 0
with quiet:
    {}["key"]
quiet.caught

# %%
with suppress(FileNotFoundError):
    open("no such file")
with ExitStack() as stack:
    names = [stack.enter_context(tag(f"h{n}")) for n in (1, 2)]
names, len(quiet.caught)
