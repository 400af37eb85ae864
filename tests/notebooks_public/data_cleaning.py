# %% [markdown]
# # Cleaning a messy table
#
# A survey came as CSV, with every fault such files have: blanks, mixed units, doubled rows and
# dates in two formats.

# %%
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

pd.set_option("display.width", 100)
pd.set_option("display.max_columns", 12)

# %%
raw = """\
id,name,city,height,weight,joined,income
1, Ada ,London,1.70m,65,2021-03-01,"52,000"
2,Bob,london,182cm,81kg,01/04/2021,48000
3,Cleo,,1.64m,,2021-05-12,"61,500"
4,Dai,Cardiff,175 cm,77,12/06/2021,n/a
4,Dai,Cardiff,175 cm,77,12/06/2021,n/a
5,Eve,CARDIFF,1.58m,54 kg,2021-07-30,39000
6,Finn,Leeds,,90,2021-08-15,"45,250"
7,Gwen,Leeds ,169cm,68,15/09/2021,"1,450,000"
8,Hugo,London,1.91m,95kg,2021-10-02,57000
"""
df = pd.read_csv(io.StringIO(raw))
df

# %%
df.info()

# %%
df.isna().sum()

# %% [markdown]
# ## Duplicates and text

# %%
before = len(df)
df = df.drop_duplicates()
print(f"{before - len(df)} row dropped, {len(df)} left")

df["name"] = df["name"].str.strip()
df["city"] = df["city"].str.strip().str.title()
df["city"].value_counts(dropna=False)


# %%
def to_cm(text):
    """Turn '1.70m' and '182cm' into centimetres."""
    if pd.isna(text):
        return np.nan
    text = text.replace(" ", "")
    if text.endswith("cm"):
        return float(text[:-2])
    return float(text[:-1]) * 100


def to_number(text):
    if pd.isna(text):
        return np.nan
    return float(str(text).replace(",", "").replace("kg", "").strip())


df["height"] = df["height"].map(to_cm)
df["weight"] = df["weight"].map(to_number)
df["income"] = df["income"].map(to_number)
df.dtypes

# %%
is_iso = df["joined"].str.contains("-")
joined = pd.Series(pd.NaT, index=df.index, dtype="datetime64[ns]")
joined[is_iso] = pd.to_datetime(df.loc[is_iso, "joined"], format="%Y-%m-%d")
joined[~is_iso] = pd.to_datetime(df.loc[~is_iso, "joined"], format="%d/%m/%Y")
df["joined"] = joined
df[["name", "joined"]]

# %% [markdown]
# ## Outliers and gaps

# %%
q1, q3 = df["income"].quantile([0.25, 0.75])
fence = q3 + 1.5 * (q3 - q1)
outliers = df[df["income"] > fence]
print(f"fence: {fence:.0f}")
outliers

# %%
df.loc[outliers.index, "income"] = np.nan
df = df.fillna({"city": "Unknown"})
for column in ("height", "weight", "income"):
    df[column] = df[column].fillna(df[column].median())
df["bmi"] = (df["weight"] / (df["height"] / 100) ** 2).round(1)
df.set_index("id")

# %%
summary = df.groupby("city").agg(
    people=("name", "count"), income=("income", "mean"), tallest=("height", "max")
)
summary.sort_values("income", ascending=False)

# %%
df.query("bmi > 22 and income > @q1")[["name", "city", "bmi"]]

# %%
fig, ax = plt.subplots(figsize=(5, 3))
for city, group in df.groupby("city"):
    ax.scatter(group["height"], group["weight"], label=city)
ax.set(xlabel="height in cm", ylabel="weight in kg", title="After the cleaning")
ax.legend()
