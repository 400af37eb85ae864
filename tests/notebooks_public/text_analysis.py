# %% [markdown]
# # Words, counted
#
# A poem, its words, their pairs, and a machine that writes something like it.

# %%
import math
import random
import re
from collections import Counter, defaultdict

random.seed(11)

# %%
poem = """
The sea is calm to-night,
The tide is full, the moon lies fair
Upon the straits; on the French coast the light
Gleams and is gone; the cliffs of England stand,
Glimmering and vast, out in the tranquil bay.
Come to the window, sweet is the night-air!
Only, from the long line of spray
Where the sea meets the moon-blanched land,
Listen! you hear the grating roar
Of pebbles which the waves draw back, and fling,
At their return, up the high strand,
Begin, and cease, and then again begin,
With tremulous cadence slow, and bring
The eternal note of sadness in.
"""
lines = poem.strip().splitlines()
len(lines), len(poem)

# %%
word = re.compile(r"[a-z]+(?:-[a-z]+)*", re.IGNORECASE)
words = [found.group().lower() for found in word.finditer(poem)]
words[:8]

# %%
counts = Counter(words)
counts.most_common(6)

# %%
for name, number in counts.most_common(5):
    print(f"{name:<6}{'#' * number} {number}")

# %%
stopwords = {"the", "and", "is", "of", "to", "in", "on", "at", "up"}
content = Counter({name: number for name, number in counts.items() if name not in stopwords})
sorted(content.items(), key=lambda item: (-item[1], item[0]))[:5]

# %%
by_length = defaultdict(list)
for name in sorted(counts):
    by_length[len(name)].append(name)
by_length[9], by_length[10], by_length[15]

# %%
# Looking up 15 has made an entry.
sorted(by_length)

# %% [markdown]
# ## TF-IDF: each line is a document

# %%
documents = [Counter(w.lower() for w in word.findall(line)) for line in lines]
frequency = Counter(w for document in documents for w in document)


def tf_idf(term, document):
    return document[term] / sum(document.values()) * math.log(len(documents) / frequency[term])


for line, document in list(zip(lines, documents, strict=True))[:4]:
    best = max(sorted(document), key=lambda term: tf_idf(term, document))
    print(f"{best:<10}| {line}")

# %% [markdown]
# ## A Markov chain

# %%
follows = defaultdict(Counter)
for first, second in zip(words, words[1:]):
    follows[first][second] += 1
follows["the"].most_common(3)


# %%
def babble(start, length):
    said = [start]
    while len(said) < length and follows[said[-1]]:
        options = follows[said[-1]]
        said += random.choices(list(options), weights=options.values())
    return " ".join(said)


babble("the", 10)

# %%
babble("the", 10)


# %%
def caesar(text, key):
    def turn(found):
        base = ord("A") if found[0].isupper() else ord("a")
        return chr((ord(found[0]) - base + key) % 26 + base)

    return re.sub("[A-Za-z]", turn, text)


secret = caesar(lines[0], 3)
print(secret)
print(caesar(secret, -3))

# %%
letters = Counter(filter(str.isalpha, poem.lower()))
guess = next(
    key for key in range(26)
    if Counter(filter(str.isalpha, caesar(secret, -key).lower())).most_common(1)[0][0] == "t"
)  # fmt: skip
letters.most_common(3), guess
