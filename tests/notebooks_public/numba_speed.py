# %% [markdown]
# # Faster loops with numba

# %%
import math

import numpy as np
from numba import njit, vectorize


# %%
def count_primes(limit):
    found = 0
    for n in range(2, limit):
        for d in range(2, int(math.sqrt(n)) + 1):
            if n % d == 0:
                break
        else:
            found += 1
    return found


count_primes(1000)

# %%
fast_count = njit(count_primes)
fast_count(1000) == count_primes(1000)

# %%
fast_count(20_000)


# %%
@njit
def julia(c, size):
    image = np.zeros((size, size), dtype=np.uint8)
    for row in range(size):
        for col in range(size):
            z = complex(3 * col / size - 1.5, 3 * row / size - 1.5)
            n = 0
            while abs(z) < 2 and n < 60:
                z = z * z + c
                n += 1
            image[row, col] = n
    return image


picture = julia(-0.7 + 0.27j, 120)
picture.shape, int(picture.sum())

# %%
import matplotlib.pyplot as plt

plt.figure(figsize=(3, 3))
plt.imshow(picture, cmap="twilight")
plt.axis("off")


# %%
@vectorize(["float64(float64, float64)"])
def clipped(x, limit):
    return limit if x > limit else x


clipped(np.arange(6.0), 3.0)


# %%
@njit
def walk(steps, seed):
    np.random.seed(seed)
    position = 0
    for _ in range(steps):
        position += 1 if np.random.random() < 0.5 else -1
    return position


[walk(1000, seed) for seed in range(4)]

# %%
# %%time
julia(-0.4 + 0.6j, 60).sum()

# %%
np.array_equal(picture, julia(-0.7 + 0.27j, 120))
