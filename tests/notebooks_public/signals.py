# %% [markdown]
# # Signals: sampling, filtering, spectra

# %%
import matplotlib.pyplot as plt
import numpy as np
from scipy import integrate, interpolate, signal

rng = np.random.default_rng(21)

# %%
rate = 500
t = np.arange(0, 2, 1 / rate)
clean = np.sin(2 * np.pi * 5 * t) + 0.5 * np.sin(2 * np.pi * 40 * t)
noisy = clean + rng.normal(0, 0.4, len(t))
len(t), noisy[:4].round(3)

# %%
spectrum = np.abs(np.fft.rfft(noisy)) / len(t) * 2
frequency = np.fft.rfftfreq(len(t), 1 / rate)
peaks, _ = signal.find_peaks(spectrum, height=0.3)
frequency[peaks], spectrum[peaks].round(2)

# %%
fig, axes = plt.subplots(2, 1, figsize=(6, 4))
axes[0].plot(t[:250], noisy[:250], linewidth=0.7)
axes[1].plot(frequency[:200], spectrum[:200])

# %%
sos = signal.butter(4, 15, fs=rate, output="sos")
smooth = signal.sosfiltfilt(sos, noisy)
axes[0].plot(t[:250], smooth[:250], linewidth=2)
axes[0].set_title("low pass")
fig

# %%
error = np.sqrt(np.mean((smooth - np.sin(2 * np.pi * 5 * t)) ** 2))
f"{error:.4f}"

# %% [markdown]
# ## Between the samples

# %%
spline = interpolate.CubicSpline(t[::20], clean[::20])
np.abs(spline(0.113) - np.sin(2 * np.pi * 5 * 0.113)).round(2), spline(0.5, 1).round(3)

# %%
area, _ = integrate.quad(lambda x: np.exp(-(x**2)), -np.inf, np.inf)
area**2, np.pi


# %%
def pendulum(t, state, damping=0.1):
    angle, speed = state
    return speed, -damping * speed - 9.81 * np.sin(angle)


swing = integrate.solve_ivp(pendulum, (0, 10), (1.0, 0.0), dense_output=True, rtol=1e-8)
swing.success, swing.sol(5.0).round(4)

# %%
angles = swing.sol(np.linspace(0, 10, 6))[0]
angles.round(4)

# %%
window = signal.windows.hann(64)
freqs, times, power = signal.spectrogram(noisy, rate, window=window)
power.shape, freqs[power.mean(axis=1).argmax()]

# %%
plt.figure(figsize=(5, 2.5))
plt.pcolormesh(times, freqs[:12], np.log10(power[:12]))
plt.ylabel("Hz")

# %%
kernel = np.hanning(25) / np.hanning(25).sum()
np.convolve(noisy, kernel, "same")[100:103].round(4), rng.random(2).round(4)
