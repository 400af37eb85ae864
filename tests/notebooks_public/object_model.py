# %% [markdown]
# # Under the bonnet of Python's classes
#
# Descriptors, abstract classes, metaclasses, protocols and slots.

# %%
import abc
import copy
import functools
import operator
import weakref
from typing import Generic, Protocol, TypeVar, runtime_checkable


# %%
class Positive:
    """A descriptor that refuses numbers below zero."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner=None):
        return self if instance is None else instance.__dict__[self.name]

    def __set__(self, instance, value):
        if value < 0:
            raise ValueError(f"{self.name} cannot be {value}")
        instance.__dict__[self.name] = value


class Box:
    width, height = Positive(), Positive()

    def __init__(self, width, height):
        self.width, self.height = width, height

    @functools.cached_property
    def area(self):
        print("computing")
        return self.width * self.height


box = Box(3, 4)
box.area

# %%
box.area  # from the cache

# %%
try:
    box.width = -1
except ValueError as error:
    print(error)
Box.width.name


# %%
class Shape(abc.ABC):
    registry = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Shape.registry[cls.__name__.lower()] = cls

    @abc.abstractmethod
    def area(self): ...


class Square(Shape):
    def __init__(self, side):
        self.side = side

    def area(self):
        return self.side**2


try:
    Shape()
except TypeError:
    print("abstract")
Shape.registry["square"](5).area()


# %%
class Cube(Square):
    def area(self):
        return 6 * super().area()


sorted(Shape.registry), Shape.registry["cube"] is Cube, Cube(2).area()


# %%
class Singleton(type):
    made = {}

    def __call__(cls, *args):
        if cls not in Singleton.made:
            Singleton.made[cls] = super().__call__(*args)
        return Singleton.made[cls]


class Config(metaclass=Singleton):
    def __init__(self):
        self.values = {}


a, b = Config(), Config()
a.values["x"] = 1
a is b

# %%
Config() is a, Config().values


# %%
@functools.total_ordering
class Version:
    __slots__ = ("parts",)

    def __init__(self, text):
        self.parts = tuple(map(int, text.split(".")))

    def __eq__(self, other):
        return self.parts == other.parts

    def __lt__(self, other):
        return self.parts < other.parts

    def __hash__(self):
        return hash(self.parts)

    def __repr__(self):
        return f"v{'.'.join(map(str, self.parts))}"


versions = [Version(text) for text in ("1.10", "1.9", "2.0")]
sorted(versions), max(versions), Version("2.0") in set(versions)

# %% [markdown]
# ## Operators


# %%
class Vector:
    def __init__(self, *values):
        self.values = values

    def __repr__(self):
        return f"Vector{self.values}"

    def __add__(self, other):
        return Vector(*map(operator.add, self.values, other.values))

    def __rmul__(self, factor):
        return Vector(*(factor * value for value in self.values))

    __matmul__ = lambda self, other: sum(map(operator.mul, self.values, other.values))

    def __bool__(self):
        return any(self.values)

    def __format__(self, spec):
        return "(" + ", ".join(format(value, spec) for value in self.values) + ")"


v, w = Vector(1, 2), Vector(3, 4)
v + w, 2 * v, v @ w, bool(Vector(0, 0)), f"{w:.2f}"

# %%
T = TypeVar("T")


class Stack(Generic[T]):
    def __init__(self) -> None:
        self.items: list[T] = []

    def push(self, item: T) -> "Stack[T]":
        self.items.append(item)
        return self


@runtime_checkable
class Pushable(Protocol):
    def push(self, item): ...


stack = Stack[int]().push(1).push(2)
isinstance(stack, Pushable), isinstance(v, Pushable), stack.items

# %%
shallow, deep = copy.copy(stack), copy.deepcopy(stack)
shallow.push(3)
stack.items, deep.items

# %%
stack.push(4)
shallow.items is stack.items, len(deep.items)


# %%
class Parent:
    def __init__(self):
        self.children = []

    def add(self):
        child = Child(self)
        self.children.append(child)
        return child


class Child:
    def __init__(self, parent):
        self._parent = weakref.ref(parent)

    @property
    def parent(self):
        return self._parent()


family = Parent()
kid = family.add()
kid.parent is family

# %%
method = family.add
method()
len(family.children), kid.parent is family, kid is family.children[0]
