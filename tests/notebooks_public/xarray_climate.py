# %% [markdown]
# # Labelled arrays with xarray

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr

xr.set_options(display_expand_data=False)
np.random.seed(0)

# %%
time = pd.date_range("2020-01-01", periods=24, freq="MS")
lat, lon = np.arange(-60, 61, 30), np.arange(0, 360, 60)
base = 25 - np.abs(lat)[None, :, None] * 0.4
season = 8 * np.cos(2 * np.pi * (time.month.to_numpy() - 7) / 12)[:, None, None]
values = base + season * np.sign(lat)[None, :, None] + np.random.normal(0, 1, (24, 5, 6))
air = xr.DataArray(
    values.round(2), coords={"time": time, "lat": lat, "lon": lon}, dims=("time", "lat", "lon"),
    name="air", attrs={"units": "degC"},
)  # fmt: skip
air.dims, air.shape, air.attrs

# %%
float(air.sel(lat=30, lon=120).mean()), float(air.sel(lat=28, lon=100, method="nearest").max())

# %%
print(air.mean("time").round(1))

# %%
seasonal = air.groupby("time.season").mean()
seasonal.sel(lat=60).mean("lon").round(2).to_series()

# %%
anomaly = air.groupby("time.month") - air.groupby("time.month").mean()
float(abs(anomaly.mean()).round(6)), anomaly.std().round(3).item()

# %%
ds = air.to_dataset().assign(fahrenheit=air * 9 / 5 + 32)
list(ds.data_vars), dict(ds.sizes)

# %%
weights = np.cos(np.deg2rad(ds["lat"]))
mean = ds["air"].weighted(weights).mean(("lat", "lon"))
mean[:4].round(3).values

# %%
fig, ax = plt.subplots(figsize=(5, 2.5))
mean.plot(ax=ax)
ax.set_title("weighted mean")

# %%
north = ds["air"].isel(lat=-1)
north[:] = 0  # a view of the same data
float(ds["air"].sel(lat=60).sum()), float(air.sel(lat=60).sum())

# %%
stacked = air.stack(place=("lat", "lon"))
hottest = stacked.mean("time").idxmax().item()
tuple(int(part) for part in hottest)

# %%
air.sel(time="2021-06").to_dataframe()["air"].unstack("lon").round(1)

# %%
air.resample(time="YS").mean().mean(("lat", "lon")).round(3).to_pandas()
