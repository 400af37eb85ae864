# %% [markdown]
# # A neural network by hand
#
# Two layers, back-propagation, and no library but numpy.

# %%
import matplotlib.pyplot as plt
import numpy as np

np.random.seed(1)

# %%
m = 300
angle = np.random.rand(m) * 3 * np.pi
which = np.random.randint(0, 2, m)
radius = angle / 6
X = np.c_[radius * np.cos(angle + np.pi * which), radius * np.sin(angle + np.pi * which)]
X += np.random.randn(m, 2) * 0.03
y = which.reshape(-1, 1)
plt.figure(figsize=(3.5, 3.5))
plt.scatter(*X.T, c=which, s=8, cmap="bwr")


# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def relu(z):
    return np.maximum(0, z)


sigmoid(np.array([-1, 0, 1])), relu(np.array([-1, 0, 1]))


# %%
class Layer:
    def __init__(self, n_in, n_out, activation):
        self.W = np.random.randn(n_in, n_out) * np.sqrt(2 / n_in)
        self.b = np.zeros((1, n_out))
        self.activation = activation

    def forward(self, x):
        self.x, self.z = x, x @ self.W + self.b
        return self.activation(self.z)

    def backward(self, grad, rate):
        if self.activation is relu:
            grad = grad * (self.z > 0)
        back = grad @ self.W.T
        self.W -= rate * self.x.T @ grad / len(grad)
        self.b -= rate * grad.mean(axis=0, keepdims=True)
        return back


class Network:
    def __init__(self, *layers):
        self.layers = layers

    def __call__(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def train(self, X, y, epochs, rate=0.5):
        for _ in range(epochs):
            p = self(X)
            losses.append(float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))))
            grad = p - y  # of the loss and the sigmoid together
            for layer in reversed(self.layers):
                grad = layer.backward(grad, rate)


# %%
losses = []
net = Network(Layer(2, 24, relu), Layer(24, 24, relu), Layer(24, 1, sigmoid))
print(sum(layer.W.size + layer.b.size for layer in net.layers), "parameters")
net(X[:2]).round(4)

# %%
net.train(X, y, 400)
losses[-1]

# %%
# It still learns: go on from there.
net.train(X, y, 1200)
print(len(losses), round(losses[-1], 4))
accuracy = ((net(X) > 0.5) == y).mean()
f"{accuracy:.1%}"

# %%
plt.plot(losses)
plt.yscale("log")
plt.title("loss")
plt.show()

# %%
xx, yy = np.meshgrid(np.linspace(-1.8, 1.8, 90), np.linspace(-1.8, 1.8, 90))
area = net(np.c_[xx.ravel(), yy.ravel()]).reshape(xx.shape)
fig, ax = plt.subplots(figsize=(3.5, 3.5))
ax.contourf(xx, yy, area, levels=[0, 0.5, 1], cmap="bwr", alpha=0.3)
ax.scatter(*X.T, c=which, s=6, cmap="bwr")

# %%
first = net.layers[0]
dead = int((first.forward(X) <= 0).all(axis=0).sum())
saved = [layer.W.copy() for layer in net.layers]
print(dead, "dead units")

# %%
# Prune the small weights in place: the network sees it.
for layer in net.layers:
    layer.W[np.abs(layer.W) < 0.05] = 0
pruned = ((net(X) > 0.5) == y).mean()
changed = sum(int((a != layer.W).sum()) for a, layer in zip(saved, net.layers, strict=True))
changed, round(float(pruned), 3)

# %%
first is net.layers[0], first.activation is relu
