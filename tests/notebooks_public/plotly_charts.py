# %% [markdown]
# # Charts with plotly

# %%
import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

# %%
rng = np.random.default_rng(8)
people = pd.DataFrame(
    {
        "height": rng.normal(172, 9, 40).round(1),
        "shoe": rng.normal(41, 2, 40).round(),
        "team": rng.choice(["red", "blue"], 40),
    }
)
people.sample(3, random_state=0)

# %%
fig = px.scatter(people, x="height", y="shoe", color="team", title="Feet")
fig

# %%
fig.update_traces(marker_size=10)
fig.update_layout(width=500, height=300)
len(fig.data), fig.layout.title.text

# %%
fig.add_hline(y=people["shoe"].mean(), line_dash="dot")
fig.show()

# %% [markdown]
# ## By hand

# %%
t = np.linspace(0, 2 * np.pi, 9).round(3)
waves = go.Figure()
for k in (1, 2):
    waves.add_trace(go.Scatter(x=t, y=np.sin(k * t).round(4), name=f"sin {k}t"))
waves

# %%
waves.data[1].visible = "legendonly"
[trace.name for trace in waves.data], waves.data[1].visible

# %%
counts = people.groupby("team", as_index=False).size()
px.bar(counts, x="team", y="size", text_auto=True)

# %%
surface = go.Figure(go.Heatmap(z=np.outer(np.arange(4), np.arange(4))))
surface.update_layout(template="plotly_white", title={"text": "A table of products"})

# %%
frame = surface.to_dict()
sorted(frame), frame["layout"]["title"]

# %%
px.defaults.template = "simple_white"
box = px.box(people, x="team", y="height")
box.layout.template.layout.plot_bgcolor or "white"
