# %% [markdown]
# # A year of temperatures
#
# Time series in pandas: resampling, rolling means, gaps, and a simple forecast.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")
np.random.seed(365)

# %%
days = pd.date_range("2023-01-01", periods=730, freq="D")
season = 10 - 12 * np.cos(2 * np.pi * (days.dayofyear - 15) / 365.25)
series = pd.Series(season + np.random.normal(0, 2.5, len(days)), index=days, name="celsius")
series.head()

# %%
series.describe().round(2)

# %%
series["2023-07"].mean(), series.idxmin(), series.idxmax()

# %%
monthly = series.resample("MS").agg(["mean", "min", "max"]).round(2)
monthly.head(6)

# %%
ax = series.plot(figsize=(7, 3), linewidth=0.5, color="grey")
series.rolling(30, center=True).mean().plot(ax=ax, color="crimson")
ax.set_ylabel("°C")

# %% [markdown]
# ## Gaps

# %%
broken = series.copy()
broken.iloc[np.random.choice(len(broken), 60, replace=False)] = np.nan
filled = broken.interpolate("time")
print(int(broken.isna().sum()), "gaps; mean error", (filled - series).abs().sum().round(2))

# %%
anomaly = series - series.groupby(series.index.dayofyear).transform("mean")
anomaly.abs().nlargest(3).round(3)

# %%
table = series.to_frame().assign(year=series.index.year, month=series.index.month_name().str[:3])
table.pivot_table(index="month", columns="year", values="celsius", sort=False).round(1)

# %% [markdown]
# ## A forecast by the day a year ago and the last week

# %%
train, test = series[:-60], series[-60:]


def forecast(day):
    return train.loc[day - pd.Timedelta(days=365)] * 0.5 + train[-7:].mean() * 0.5


predicted = pd.Series([forecast(day) for day in test.index], index=test.index)
errors = (predicted - test).abs()
f"MAE {errors.mean():.3f}"

# %%
lags = pd.concat({lag: series.shift(lag) for lag in (1, 7, 30, 182)}, axis=1)
lags.corrwith(series).round(3)

# %%
zoned = series.tz_localize("UTC").tz_convert("Europe/Berlin")
zoned.index[[0, 200]]

# %%
warm = series > 20
spells = (warm != warm.shift()).cumsum()[warm]
longest = spells.value_counts().max()
print("longest warm spell:", longest, "days")
warnings.warn("not shown: the filter still holds")

# %%
table.groupby("year")["celsius"].agg(["mean", "std", lambda v: v.quantile(0.9)]).round(2)
