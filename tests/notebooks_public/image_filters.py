# %% [markdown]
# # Image filters with numpy and Pillow

# %%
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# %%
picture = Image.new("L", (96, 96), 30)
draw = ImageDraw.Draw(picture)
draw.ellipse((16, 20, 64, 68), fill=200)
draw.rectangle((50, 50, 84, 84), fill=120)
draw.line((0, 95, 95, 0), fill=255, width=2)
picture

# %%
pixels = np.asarray(picture, dtype=float)
pixels.shape, pixels.min(), pixels.max(), pixels.mean().round(3)


# %%
def convolve(image, kernel):
    """Return the image under a kernel of odd size, edges repeated."""
    half = kernel.shape[0] // 2
    padded = np.pad(image, half, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    return np.einsum("xyij,ij->xy", windows, kernel)


# %%
kernels = {
    "blur": np.full((5, 5), 1 / 25),
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "edges": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
}
filtered = {name: convolve(pixels, kernel) for name, kernel in kernels.items()}
{name: (round(image.min(), 1), round(image.max(), 1)) for name, image in filtered.items()}

# %%
fig, axes = plt.subplots(1, 4, figsize=(9, 2.6))
axes[0].imshow(pixels, cmap="gray")
for ax, (name, image) in zip(axes[1:], filtered.items(), strict=True):
    ax.imshow(np.clip(image, 0, 255), cmap="gray")
    ax.set_title(name)
for ax in axes:
    ax.axis("off")

# %%
sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
gx, gy = convolve(pixels, sobel), convolve(pixels, sobel.T)
strength = np.hypot(gx, gy)
edges = strength > 200
print(f"{edges.mean():.2%} of the pixels are edges")
plt.imshow(edges)

# %%
# The corner of the array is a view: to paint it is to paint the whole.
canvas = pixels.copy()
corner = canvas[:24, :24]

# %%
corner[:] = 255
canvas[0, 0], canvas[30, 30], np.shares_memory(corner, canvas)

# %%
rng = np.random.default_rng(0)
noisy = pixels + rng.normal(0, 25, pixels.shape)
median = np.median(
    np.lib.stride_tricks.sliding_window_view(np.pad(noisy, 1, mode="edge"), (3, 3)), axis=(2, 3)
)
[round(float(np.sqrt(((image - pixels) ** 2).mean())), 3) for image in (noisy, median)]

# %%
by_pillow = picture.filter(ImageFilter.GaussianBlur(2)).rotate(30).resize((48, 48))
by_pillow.size, int(np.asarray(by_pillow).sum())

# %%
by_pillow

# %%
histogram, _ = np.histogram(pixels, bins=8, range=(0, 256))
levels = histogram.cumsum() / histogram.sum() * 255
equal = levels[(pixels // 32).astype(int)]
print(histogram, levels.round(1))
Image.fromarray(equal.astype("uint8"))
