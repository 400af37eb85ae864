# %% [markdown]
# # Ordinary least squares with statsmodels

# %%
import numpy as np
import pandas as pd
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

rng = np.random.default_rng(12)

# %%
n = 120
data = pd.DataFrame(
    {
        "area": rng.normal(80, 20, n).round(1),
        "age": rng.integers(0, 60, n),
        "city": rng.choice(["Bonn", "Kiel", "Ulm"], n),
    }
)
data["rent"] = (
    200 + 9.5 * data["area"] - 2 * data["age"]
    + data["city"].map({"Bonn": 100, "Kiel": 0, "Ulm": 50}) + rng.normal(0, 60, n)
).round()  # fmt: skip
data.head()

# %%
data.groupby("city")["rent"].describe().round(1)

# %%
model = smf.ols("rent ~ area + age + C(city)", data=data)
fit = model.fit()
fit.params.round(3)

# %%
print(fit.summary().tables[1])

# %%
f"R2 {fit.rsquared:.4f}, AIC {fit.aic:.1f}", fit.f_pvalue < 1e-20

# %%
fit.conf_int().rename(columns={0: "low", 1: "high"}).round(2)

# %%
new = pd.DataFrame({"area": [50, 100], "age": [10, 10], "city": ["Ulm", "Kiel"]})
fit.get_prediction(new).summary_frame(alpha=0.1).round(1)

# %% [markdown]
# ## Is it a good model?

# %%
residuals = fit.resid
stats.shapiro(residuals).pvalue > 0.01, round(sm.stats.durbin_watson(residuals), 3)

# %%
smaller = smf.ols("rent ~ area", data=data).fit()
sm.stats.anova_lm(smaller, fit).round(3)

# %%
X = sm.add_constant(data[["area", "age"]])
robust = sm.RLM(data["rent"], X).fit()
robust.params.round(2).to_dict()

# %%
bonn, kiel = (data.loc[data["city"] == city, "rent"] for city in ("Bonn", "Kiel"))
test = stats.ttest_ind(bonn, kiel, equal_var=False)
print(f"t = {test.statistic:.3f}, p = {test.pvalue:.4f}")

# %%
dear = (data["rent"] > data["rent"].median()).astype(int)
logit = sm.Logit(dear, sm.add_constant(data["area"])).fit(disp=False)
logit.params.round(4)

# %%
boot = [
    smf.ols("rent ~ area", data.sample(n, replace=True, random_state=int(seed)))
    .fit()
    .params["area"]
    for seed in rng.integers(0, 10_000, 20)
]
np.percentile(boot, [5, 95]).round(2)
