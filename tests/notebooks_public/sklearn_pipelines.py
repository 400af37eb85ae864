# %% [markdown]
# # Pipelines in scikit-learn

# %%
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report, confusion_matrix
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

# %%
wine = load_wine(as_frame=True)
X, y = wine.data[["alcohol", "malic_acid", "color_intensity", "hue", "proline"]].copy(), wine.target
X["strong"] = np.where(X["alcohol"] > 13, "yes", "no")
X.head(3)

# %%
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
X_train.shape, X_test.shape


# %%
def logarithm(values):
    return np.log1p(values)


numeric = make_pipeline(FunctionTransformer(logarithm), StandardScaler())
prepare = ColumnTransformer(
    [
        ("numbers", numeric, ["alcohol", "malic_acid", "color_intensity", "hue", "proline"]),
        ("words", OneHotEncoder(), ["strong"]),
    ]
)
pipe = Pipeline([("prepare", prepare), ("model", LogisticRegression(max_iter=500))])
pipe

# %%
pipe.fit(X_train, y_train)
pipe.score(X_test, y_test)

# %%
pipe.named_steps["model"].coef_.shape, pipe[:-1].transform(X_test[:1]).round(3)

# %%
print(classification_report(y_test, pipe.predict(X_test)))

# %%
pd.DataFrame(confusion_matrix(y_test, pipe.predict(X_test)))

# %% [markdown]
# ## Search

# %%
search = GridSearchCV(pipe, {"model__C": [0.01, 0.1, 1, 10]}, cv=3)
search.fit(X_train, y_train)
search.best_params_, round(search.best_score_, 4)

# %%
pd.DataFrame(search.cv_results_)[["param_model__C", "mean_test_score"]].round(4)

# %%
forest = make_pipeline(prepare, RandomForestClassifier(30, random_state=0))
cross_val_score(forest, X, y, cv=3).round(3)

# %%
forest.fit(X_train, y_train)
print(len(forest[0].transformers_), "transformers")
weights = forest[-1].feature_importances_
weights.round(3), round(float(weights.sum()), 6)

# %%
# `prepare` is part of both pipelines, so the second one has fitted it again.
forest[0] is prepare, pipe.named_steps["prepare"] is prepare

# %%
best = search.best_estimator_
proba = best.predict_proba(X_test[:3])
proba.round(3), best.classes_
