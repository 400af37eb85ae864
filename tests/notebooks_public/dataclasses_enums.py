# %% [markdown]
# # Dataclasses, enums, named tuples

# %%
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from enum import Enum, Flag, IntEnum, auto
from typing import NamedTuple


# %%
class Suit(Enum):
    CLUBS = "♣"
    DIAMONDS = "♦"
    HEARTS = "♥"
    SPADES = "♠"

    @property
    def is_red(self):
        return self in (Suit.DIAMONDS, Suit.HEARTS)


[suit.value for suit in Suit], Suit("♥"), Suit["SPADES"].is_red


# %%
@dataclass(frozen=True, order=True)
class Card:
    rank: int
    suit: Suit = field(compare=False)

    def __str__(self):
        return f"{'23456789TJQKA'[self.rank - 2]}{self.suit.value}"


ace = Card(14, Suit.SPADES)
print(ace)
ace, ace > Card(3, Suit.HEARTS)

# %%
hash(Card(14, Suit.SPADES)) == hash(ace), ace in {Card(14, Suit.CLUBS)}, ace.suit is Suit.SPADES


# %%
@dataclass
class Hand:
    owner: str
    cards: list[Card] = field(default_factory=list)
    strength: int = field(init=False, default=0)

    def __post_init__(self):
        self.strength = sum(card.rank for card in self.cards)

    def take(self, *cards: Card) -> Hand:
        return replace(self, cards=[*self.cards, *cards])


hand = Hand("Ada").take(ace, Card(7, Suit.HEARTS))
hand

# %%
hand.cards.sort()
print(*hand.cards, hand.strength)
other = Hand("Bob", hand.cards)
other.cards is hand.cards, Hand.__annotations__["cards"]

# %%
other.cards.append(Card(2, Suit.CLUBS))
len(hand.cards)


# %%
class Level(IntEnum):
    LOW = 1
    HIGH = 10


class Rights(Flag):
    READ = auto()
    WRITE = auto()
    ALL = READ | WRITE


Level.HIGH > Level.LOW, Rights.READ | Rights.WRITE, Rights.READ in Rights.ALL, Level(10) + 1


# %%
class Point(NamedTuple):
    x: float
    y: float = 0.0

    def norm(self):
        return (self.x**2 + self.y**2) ** 0.5


p = Point(3, 4)
x, y = p
p, p.norm(), p._replace(x=0), x + y

# %%
json.dumps(asdict(hand), default=lambda thing: thing.name)


# %%
def describe(shape):
    match shape:
        case Point(x=0, y=0):
            return "the origin"
        case Point(x, y) if x == y:
            return f"on the diagonal at {x}"
        case Card(rank=14):
            return "an ace"
        case Suit.HEARTS | Suit.DIAMONDS:
            return "red"
        case [Point(), *rest]:
            return f"a point and {len(rest)} more"
    return "something else"


[describe(it) for it in (Point(0), Point(2, 2), ace, Suit.HEARTS, [p, 1, 2], 5)]


# %%
@dataclass(slots=True, kw_only=True)
class Config:
    name: str
    tags: dict[str, int] = field(default_factory=dict)


config = Config(name="run", tags={"a": 1})
try:
    config.extra = 1
except AttributeError as error:
    print(type(error).__name__)
config

# %%
type(config) is Config, isinstance(hand.cards[0], Card), Suit.HEARTS is Suit("♥"), Level.LOW.name
