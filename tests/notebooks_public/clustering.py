# %% [markdown]
# # k-means, by hand and by scikit-learn

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import DBSCAN, KMeans
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score, silhouette_score

rng = np.random.default_rng(7)

# %%
points, truth = make_blobs(n_samples=150, centers=3, cluster_std=0.9, random_state=3)
points.shape, np.bincount(truth)


# %%
class KMeansByHand:
    """Lloyd's algorithm."""

    def __init__(self, k, rng):
        self.k, self.rng = k, rng
        self.history = []

    def fit(self, points, rounds=20):
        self.centers = points[self.rng.choice(len(points), self.k, replace=False)]
        for _ in range(rounds):
            self.labels = self.assign(points)
            moved = np.array([points[self.labels == i].mean(axis=0) for i in range(self.k)])
            self.history.append(float(np.abs(moved - self.centers).max()))
            self.centers = moved
            if self.history[-1] < 1e-9:
                break
        return self

    def assign(self, points):
        distances = np.linalg.norm(points[:, None] - self.centers[None], axis=2)
        return distances.argmin(axis=1)


# %%
mine = KMeansByHand(3, rng).fit(points)
mine.history

# %%
theirs = KMeans(n_clusters=3, n_init=5, random_state=0).fit(points)
print("agreement:", adjusted_rand_score(mine.labels, theirs.labels_))
np.sort(mine.centers[:, 0]).round(3), np.sort(theirs.cluster_centers_[:, 0]).round(3)

# %% [markdown]
# A method that we forgot, added to the class afterwards. The object that is there has it too.


# %%
def inertia(self, points):
    return float(((points - self.centers[self.assign(points)]) ** 2).sum())


KMeansByHand.inertia = inertia
round(mine.inertia(points), 3), round(float(theirs.inertia_), 3)

# %%
scores = {}
for k in range(2, 7):
    labels = KMeans(n_clusters=k, n_init=5, random_state=0).fit_predict(points)
    scores[k] = round(float(silhouette_score(points, labels)), 4)
scores

# %%
best = max(scores, key=scores.get)
print("best k:", best)
plt.figure(figsize=(4, 2.5))
plt.plot(list(scores), list(scores.values()), marker="o")
plt.axvline(best, linestyle="--", color="grey")
plt.xlabel("k")

# %% [markdown]
# ## A shape that k-means cannot see

# %%
moons, moon_truth = make_moons(200, noise=0.06, random_state=1)
by_means = KMeans(2, n_init=5, random_state=0).fit_predict(moons)
by_density = DBSCAN(eps=0.2).fit_predict(moons)
[round(adjusted_rand_score(moon_truth, found), 3) for found in (by_means, by_density)]

# %%
fig, axes = plt.subplots(1, 2, figsize=(7, 2.5), sharey=True)
for ax, labels, title in zip(axes, (by_means, by_density), ("k-means", "DBSCAN"), strict=True):
    ax.scatter(*moons.T, c=labels, s=8, cmap="coolwarm")
    ax.set_title(title)

# %%
rng.integers(0, 100, 5)
