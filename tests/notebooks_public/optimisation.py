# %% [markdown]
# # Finding the lowest point

# %%
import math
import random

import matplotlib.pyplot as plt
import numpy as np
from scipy import optimize

np.set_printoptions(precision=4, suppress=True)


# %%
def rosenbrock(p):
    x, y = p
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def gradient(p):
    x, y = p
    return np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])


start = np.array([-1.2, 1.0])
rosenbrock(start), gradient(start)

# %%
np.abs(optimize.approx_fprime(start, rosenbrock) - gradient(start)).max() < 1e-3

# %% [markdown]
# ## By hand, with momentum

# %%
path = [start]
velocity = np.zeros(2)


def descend(steps, rate=5e-4, momentum=0.9):
    global velocity
    for _ in range(steps):
        velocity = momentum * velocity - rate * gradient(path[-1])
        path.append(path[-1] + velocity)
    return path[-1]


descend(300)

# %%
descend(3000)

# %%
print(len(path), "points")
track = np.array(path)
X, Y = np.meshgrid(np.linspace(-1.5, 1.5, 80), np.linspace(-0.5, 1.5, 80))
plt.contour(X, Y, rosenbrock((X, Y)), levels=np.logspace(-1, 3, 12), cmap="viridis")
plt.plot(*track.T, color="red", linewidth=1)
plt.plot(1, 1, "k*")

# %% [markdown]
# ## By scipy

# %%
results = {}
for method in ("Nelder-Mead", "BFGS", "Newton-CG"):
    found = optimize.minimize(
        rosenbrock, start, method=method, jac=None if method == "Nelder-Mead" else gradient
    )
    results[method] = found
    print(f"{method:<12}{found.nit:>4} rounds, {found.nfev:>4} calls, x = {found.x}")

# %%
results["BFGS"].success, results["BFGS"].message

# %%
optimize.linprog(c=[-3, -5], A_ub=[[1, 0], [0, 2], [3, 2]], b_ub=[4, 12, 18]).x

# %%
root = optimize.brentq(lambda x: math.cos(x) - x, 0, 1)
root, math.cos(root)

# %% [markdown]
# ## Simulated annealing: a round trip

# %%
rng = random.Random(5)
cities = [(rng.random(), rng.random()) for _ in range(15)]


def length(tour):
    return sum(math.dist(cities[a], cities[b]) for a, b in zip(tour, tour[1:] + tour[:1]))


tour = list(range(15))
length(tour)

# %%
temperature = 1.0
current = length(tour)
while temperature > 1e-3:
    i, j = sorted(rng.sample(range(15), 2))
    other = tour[:i] + tour[i : j + 1][::-1] + tour[j + 1 :]
    change = length(other) - current
    if change < 0 or rng.random() < math.exp(-change / temperature):
        tour, current = other, current + change
    temperature *= 0.999
print(f"{current:.4f}", tour)

# %%
fig, ax = plt.subplots(figsize=(3, 3))
ax.plot(*zip(*[cities[c] for c in [*tour, tour[0]]]), marker="o")
ax.set_axis_off()

# %%
rng.random(), np.array([1 / 3])  # the printing options still hold
