# %% [markdown]
# # Files: text, CSV, JSON, and a module of our own

# %%
import csv
import json
import os
from pathlib import Path

folder = Path("shop")
folder.mkdir(exist_ok=True)

# %%
items = [{"name": "pen", "price": 1.5, "stock": 40}, {"name": "ink", "price": 7.25, "stock": 3}]
with open(folder / "items.json", "w") as file:
    json.dump(items, file, indent=2)
print((folder / "items.json").read_text())

# %%
with (folder / "items.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, fieldnames=items[0])
    writer.writeheader()
    writer.writerows(items)
sorted(path.name for path in folder.iterdir())

# %%
file.closed, file.name

# %%
with open("shop/items.csv", newline="") as file:
    rows = list(csv.DictReader(file))
rows[1]

# %%
again = json.loads(Path("shop/items.json").read_text())
again == items, again is items

# %%
with open(folder / "log.txt", "a") as log:
    log.write("opened\n")

# %%
with open(folder / "log.txt", "a") as log:
    log.write("sold a pen\n")
print(open(folder / "log.txt").read())

# %% [markdown]
# ## A module

# %%
# %%writefile pricing.py
# """Prices."""
#
# TAX = 0.19
#
#
# def gross(net):
#     return round(net * (1 + TAX), 2)

# %%
import pricing

[pricing.gross(item["price"]) for item in items]

# %%
pricing.TAX, pricing.__doc__

# %%
from pricing import gross

gross(100)

# %%
total = 0
for path in sorted(folder.glob("items.*")):
    total += path.stat().st_size
    print(f"{path.name:<12}{path.stat().st_size:>4} bytes")
total

# %%
os.environ["SHOP"] = "open"

# %%
os.environ.get("SHOP"), Path("shop/items.csv").exists(), os.path.basename(os.path.realpath("shop"))

# %%
import shutil

shutil.rmtree(folder)
os.remove("pricing.py")
folder.exists()
