# %% [markdown]
# # A tour of polars

# %%
from datetime import date

import polars as pl

pl.Config.set_tbl_rows(8)
pl.Config.set_fmt_str_lengths(20)

# %%
sales = pl.DataFrame(
    {
        "day": pl.date_range(date(2024, 1, 1), date(2024, 1, 12), eager=True),
        "shop": ["north", "south", "east"] * 4,
        "items": [3, 7, None, 4, 9, 2, 8, 1, 5, 6, None, 7],
        "price": [2.5, 3.0, 2.0, 2.5, 3.5, 2.0, 2.6, 3.1, 2.2, 2.4, 3.3, 2.1],
    }
)
sales

# %%
sales.schema

# %%
sales.null_count()

# %%
clean = sales.with_columns(pl.col("items").fill_null(strategy="forward"))
clean.select(pl.col("items").sum(), pl.col("price").mean().round(3).alias("mean price"))

# %%
turnover = (pl.col("items") * pl.col("price")).alias("turnover")
by_shop = clean.group_by("shop").agg(turnover.sum().round(2), pl.len().alias("days")).sort("shop")
by_shop

# %% [markdown]
# ## Lazily

# %%
query = (
    clean.lazy()
    .filter(pl.col("items") > 3)
    .with_columns(turnover)
    .sort("turnover", descending=True)
    .limit(3)
)
type(query).__name__

# %%
query.collect()

# %%
shops = pl.DataFrame({"shop": ["north", "south", "west"], "open": [True, False, True]})
clean.join(shops, on="shop", how="left").group_by("open").len().sort("open", nulls_last=True)

# %%
clean.with_columns(
    pl.col("items").rolling_mean(3).round(2).alias("rolling"),
    pl.col("items").rank("dense").over("shop").alias("rank"),
    pl.when(pl.col("price") > 2.9).then(pl.lit("dear")).otherwise(pl.lit("cheap")).alias("kind"),
).tail(5)

# %%
wide = clean.pivot(on="shop", index="price", values="items", aggregate_function="sum").sort("price")
wide.shape, wide.columns

# %%
names = pl.Series("names", ["Ada Lovelace", "Alan Turing", "Grace Hopper"])
names.str.split(" ").list.last().str.to_uppercase().to_list()

# %%
expensive = clean.filter(pl.col("price") == pl.col("price").max()).row(0, named=True)
expensive

# %%
print(clean.describe())
