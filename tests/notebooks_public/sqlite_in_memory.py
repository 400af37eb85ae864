# %% [markdown]
# # SQL in a notebook
#
# A database in memory, which lives as long as the connection.

# %%
import sqlite3
from pathlib import Path

import pandas as pd

books = [
    ("Middlemarch", "Eliot", 1871, 880),
    ("Emma", "Austen", 1815, 474),
    ("Persuasion", "Austen", 1817, 249),
    ("Dracula", "Stoker", 1897, 418),
]


# %%
def filled(place):
    connection = sqlite3.connect(place)
    connection.execute("CREATE TABLE books (title TEXT, author TEXT, year INT, pages INT)")
    with connection:
        connection.executemany("INSERT INTO books VALUES (?, ?, ?, ?)", books)
    return connection


# %% [markdown]
# First with a file: each cell opens it.

# %%
file = Path("books.db")
file.unlink(missing_ok=True)
filled(file).close()
file.exists()

# %%
with sqlite3.connect(file) as on_disk:
    rows = on_disk.execute("SELECT title FROM books WHERE year < 1850 ORDER BY year").fetchall()
on_disk.close()
rows

# %%
on_disk = sqlite3.connect(file)
frame = pd.read_sql("SELECT author, SUM(pages) AS pages FROM books GROUP BY author", on_disk)
on_disk.close()
frame

# %% [markdown]
# Now in memory.

# %%
conn = filled(":memory:")
conn.execute("SELECT COUNT(*) FROM books").fetchone()

# %%
conn.execute("SELECT author, title FROM books ORDER BY pages DESC").fetchall()

# %%
conn.close()
