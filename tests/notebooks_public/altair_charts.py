# %% [markdown]
# # Charts with Altair

# %%
import altair as alt
import pandas as pd

# %%
weather = pd.DataFrame(
    {
        "month": [*range(1, 13)] * 2,
        "city": ["Oslo"] * 12 + ["Rome"] * 12,
        "rain": [54, 41, 52, 48, 59, 71, 80, 94, 90, 98, 83, 59]
        + [69, 75, 59, 61, 45, 28, 15, 29, 68, 112, 127, 94],
    }
)
weather.head(3)

# %%
chart = alt.Chart(weather).mark_line(point=True).encode(x="month:O", y="rain", color="city")
chart

# %%
chart.properties(width=300, height=150, title="Rain")

# %%
bars = alt.Chart(weather).mark_bar().encode(x="sum(rain)", y=alt.Y("city", sort="-x"))
rule = alt.Chart(weather).mark_rule(color="red").encode(x="mean(rain)")
bars + rule

# %%
wettest = weather.loc[weather.groupby("city")["rain"].idxmax()]
wettest

# %%
layered = chart | bars
layered.to_dict()["hconcat"][0]["mark"]

# %%
brush = alt.selection_interval(name="brush", encodings=["x"])
alt.Chart(weather).mark_point().encode(
    x="month", y="rain", color=alt.condition(brush, "city", alt.value("lightgray"))
).add_params(brush)

# %%
spec = chart.to_dict()
sorted(spec["encoding"]), spec["encoding"]["x"]

# %%
heat = alt.Chart(weather).mark_rect().encode(x="month:O", y="city", color="rain")
text = heat.mark_text().encode(text="rain", color=alt.value("black"))
(heat + text).configure_axis(grid=False)
