# %% [markdown]
# # A gallery of figures

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colors, patches

plt.style.use("ggplot")
plt.rcParams.update({"font.size": 9, "figure.dpi": 80})

# %%
x = np.linspace(0, 2 * np.pi, 200)
plt.plot(x, np.sin(x), label="sine")
plt.plot(x, np.cos(x), "--", label="cosine")
plt.legend()
plt.show()

# %%
fig, ax = plt.subplots(figsize=(5, 3))
bars = ax.bar(["a", "b", "c"], [3, 7, 5])
ax.bar_label(bars)

# %%
bars[1].set_color("black")
ax.set_ylim(0, 9)
fig

# %% [markdown]
# ## Several axes

# %%
fig, axes = plt.subplots(2, 2, figsize=(6, 4), constrained_layout=True)
rng = np.random.default_rng(1)
axes[0, 0].hist(rng.normal(size=500), bins=25)
axes[0, 1].boxplot([rng.normal(m, 1, 50) for m in range(3)])
axes[1, 0].pie([4, 3, 2], labels=list("xyz"))
mesh = axes[1, 1].pcolormesh(rng.random((6, 8)), cmap="magma")
fig.colorbar(mesh, ax=axes[1, 1])
plt.show()

# %%
fig, ax = plt.subplots(figsize=(4, 3))
ax.errorbar(range(5), [1, 3, 2, 5, 4], yerr=0.5, fmt="o-", capsize=3)
ax.annotate("the top", xy=(3, 5), xytext=(0.5, 5), arrowprops={"arrowstyle": "->"})
ax.add_patch(patches.Circle((1, 2), 0.3, alpha=0.4))
ax.set_xlabel("$t$ in s")

# %%
ax.lines[0].get_ydata(), ax.get_xlabel(), len(ax.patches)

# %%
theta = np.linspace(0, 4 * np.pi, 300)
fig = plt.figure(figsize=(4, 4))
polar = fig.add_subplot(projection="polar")
polar.plot(theta, theta)
polar.set_rticks([5, 10])

# %%
fig = plt.figure(figsize=(4, 3))
space = fig.add_subplot(projection="3d")
X, Y = np.meshgrid(np.linspace(-2, 2, 25), np.linspace(-2, 2, 25))
space.plot_surface(X, Y, np.exp(-(X**2) - Y**2), cmap="viridis")

# %%
plt.gca().text(0.5, 0.5, "a new figure: the last one was shown")
plt.gcf().number, len(plt.get_fignums())

# %%
with plt.style.context("dark_background"):
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.fill_between(x, np.sin(x), alpha=0.5)

# %%
norm = colors.Normalize(0, 10)
plt.cm.viridis(norm(5))[:3], plt.rcParams["font.size"]

# %%
left, right = plt.subplots(figsize=(4, 2))
twin = right.twinx()
right.plot([1, 2, 3], color="tab:blue")
twin.plot([30, 10, 20], color="tab:red")
right.set_title("two scales")
