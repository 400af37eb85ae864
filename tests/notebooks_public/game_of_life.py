# %% [markdown]
# # Simulations: life, queues and rabbits

# %%
import heapq
import random
from collections import namedtuple

import matplotlib.pyplot as plt
import numpy as np

random.seed(99)

# %%
world = np.zeros((12, 24), dtype=int)
glider = np.array([[0, 1, 0], [0, 0, 1], [1, 1, 1]])
world[1:4, 1:4] = glider
window = world[0:6, 0:8]


def show(world):
    for row in world:
        print("".join(" #"[cell] for cell in row).rstrip() or ".")


show(window)


# %%
def neighbours(world):
    return sum(
        np.roll(world, (dy, dx), axis=(0, 1))
        for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)
    )  # fmt: skip


def step(world):
    around = neighbours(world)
    world[:] = (around == 3) | ((world == 1) & (around == 2))


for _ in range(4):
    step(world)
show(window)  # a window onto the living world

# %%
generations = [int(world.sum())]
while len(generations) < 60:
    step(world)
    generations.append(int(world.sum()))
set(generations), np.shares_memory(window, world)

# %%
soup = np.random.default_rng(3).integers(0, 2, (40, 60))
alive = []
for _ in range(80):
    alive.append(int(soup.sum()))
    step(soup)
alive[::16]

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(7, 2.5))
left.imshow(soup, cmap="binary")
right.plot(alive)

# %% [markdown]
# ## A queue at a counter, event by event

# %%
Event = namedtuple("Event", "time kind customer")
events = []
heapq.heappush(events, Event(0.0, "arrive", 1))
waiting, served, busy, log = [], [], False, []


def handle(event):
    global busy
    log.append(event)
    if event.kind == "arrive":
        waiting.append(event)
        if event.customer < 40:
            gap = random.expovariate(1 / 3)
            heapq.heappush(events, Event(event.time + gap, "arrive", event.customer + 1))
    else:
        busy = False
    if not busy and waiting:
        first = waiting.pop(0)
        served.append(event.time - first.time)
        busy = True
        heapq.heappush(
            events, Event(event.time + random.expovariate(1 / 2.5), "leave", first.customer)
        )


for _ in range(10):
    handle(heapq.heappop(events))
len(events), busy, log[-1].kind

# %%
while events:
    handle(heapq.heappop(events))
print(f"{len(served)} served, mean wait {np.mean(served):.3f}, longest {max(served):.3f}")

# %% [markdown]
# ## Foxes and rabbits

# %%
rabbits, foxes = [40.0], [9.0]


def season(a=0.1, b=0.02, c=0.3, d=0.01, dt=0.1):
    r, f = rabbits[-1], foxes[-1]
    rabbits.append(r + dt * (a * r - b * r * f))
    foxes.append(f + dt * (d * r * f - c * f))


for _ in range(1000):
    season()
round(max(rabbits), 2), round(min(foxes), 4)

# %%
plt.plot(rabbits, label="rabbits")
plt.plot(foxes, label="foxes")
plt.legend()


# %%
class Dice:
    def __init__(self, sides=6):
        self.sides = sides
        self.rolls = []

    def __call__(self):
        self.rolls.append(random.randint(1, self.sides))
        return self.rolls[-1]


dice = Dice()
[dice() for _ in range(6)]

# %%
while dice() != 6:
    pass
len(dice.rolls), dice.rolls[-1]
