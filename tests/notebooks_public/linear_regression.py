# %% [markdown]
# # Linear regression from scratch
#
# First by the normal equations, then by gradient descent, then by scikit-learn: three ways to one
# line.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np

np.random.seed(42)

# %%
n = 60
x = np.random.uniform(0, 10, n)
y = 3.5 * x + 7 + np.random.normal(0, 3, n)
x[:5], y[:5]

# %%
plt.figure(figsize=(5, 3))
plt.scatter(x, y, s=12)
plt.xlabel("x")
plt.ylabel("y")
plt.show()

# %% [markdown]
# ## Normal equations

# %%
X = np.column_stack([np.ones(n), x])
beta = np.linalg.solve(X.T @ X, X.T @ y)
print("intercept %.4f, slope %.4f" % tuple(beta))


# %%
def mse(beta):
    return np.mean((X @ beta - y) ** 2)


mse(beta)

# %% [markdown]
# ## Gradient descent

# %%
theta = np.zeros(2)
history = []


def step(rate=0.01):
    global theta
    gradient = 2 / n * X.T @ (X @ theta - y)
    theta = theta - rate * gradient
    history.append(mse(theta))


for _ in range(200):
    step()
theta

# %%
# Not there yet: some more.
for _ in range(2000):
    step()
print(len(history), "steps")
np.abs(theta - beta).max()

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3))
axes[0].semilogy(history)
axes[0].set_title("loss")

# %%
# The second half of the same figure.
grid = np.linspace(0, 10, 50)
axes[1].scatter(x, y, s=10, color="grey")
axes[1].plot(grid, beta[0] + beta[1] * grid, color="crimson")
axes[1].set_title(f"y = {beta[1]:.2f} x + {beta[0]:.2f}")
fig.tight_layout()
fig

# %% [markdown]
# ## With scikit-learn

# %%
from sklearn.linear_model import LinearRegression, Ridge

model = LinearRegression().fit(x.reshape(-1, 1), y)
model.coef_, model.intercept_

# %%
model

# %%
noise = np.random.normal(size=3)  # goes on where the first cell left the generator
print(noise.round(4))
assert np.allclose([model.intercept_, *model.coef_], beta)
round(Ridge(alpha=10).fit(x.reshape(-1, 1), y).score(x.reshape(-1, 1), y), 4)
