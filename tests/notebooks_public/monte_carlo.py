# %% [markdown]
# # Monte Carlo
#
# Chance as a tool: pi, birthdays, and a drunkard's walk.

# %%
import random

import matplotlib.pyplot as plt
import numpy as np

random.seed(2024)
np.random.seed(2024)
plt.rcParams["figure.figsize"] = (5, 3)
plt.rcParams["axes.grid"] = True

# %%
inside = 0
for _ in range(20_000):
    x, y = random.random(), random.random()
    inside += x * x + y * y < 1
4 * inside / 20_000

# %%
# Again with numpy, which has a generator of its own.
points = np.random.rand(100_000, 2)
hits = (points**2).sum(axis=1) < 1
print(4 * hits.mean())

# %%
running = 4 * hits.cumsum() / np.arange(1, len(hits) + 1)
plt.plot(running[:5000])
plt.axhline(np.pi, color="k", linewidth=1)
plt.title("slowly towards pi")

# %%
plt.scatter(*points[:800][hits[:800]].T, s=2)
plt.scatter(*points[:800][~hits[:800]].T, s=2)
plt.gca().set_aspect("equal")
plt.show()


# %% [markdown]
# ## Birthdays


# %%
def has_pair(people):
    days = [random.randrange(365) for _ in range(people)]
    return len(set(days)) < people


{people: sum(has_pair(people) for _ in range(1000)) / 1000 for people in (10, 23, 40)}

# %% [markdown]
# ## A walk

# %%
steps = np.random.choice([-1, 1], size=(200, 500))
walks = steps.cumsum(axis=1)
walks[:3, -1], walks.std(axis=0)[[99, 499]].round(2)

# %%
fig, ax = plt.subplots()
ax.plot(walks[:20].T, linewidth=0.6, alpha=0.7)

# %%
t = np.arange(500)
ax.plot(t, 2 * np.sqrt(t), "k--")
ax.plot(t, -2 * np.sqrt(t), "k--")
ax.set_title("Two standard deviations")
fig

# %%
last = walks[:, -1]
values, edges = np.histogram(last, bins=8)
for number, left, right in zip(values, edges, edges[1:]):
    print(f"{left:7.1f} to {right:6.1f} {'*' * (number // 2)}")

# %%
# A view into the walks: what it changes, they have.
tail = walks[:, -5:]
tail[:] = 0
int(walks[:, -1].sum()), int(np.abs(walks[:, -6]).sum() > 0)

# %%
deck = [f"{rank}{suit}" for suit in "SHDC" for rank in [*"23456789TJQKA"]]
random.shuffle(deck)
print(*deck[:5])

# %%
hand, deck = deck[:5], deck[5:]
print(len(deck), random.sample(deck, 3), plt.rcParams["axes.grid"])
