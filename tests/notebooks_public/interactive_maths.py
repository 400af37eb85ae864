# %% [markdown]
# # Numbers at play
#
# Primes, fractions, a picture of a set, and formulas typeset on the way.

# %%
from decimal import Decimal, getcontext
from fractions import Fraction
from math import comb, gcd, isqrt, pi

from IPython.display import HTML, Latex, Markdown, Math, display

# %%
display(Math(r"\sum_{k=1}^{n} k = \frac{n(n+1)}{2}"))
n = 100
sum(range(n + 1)) == n * (n + 1) // 2


# %%
def sieve(limit):
    is_prime = bytearray([1]) * (limit + 1)
    is_prime[:2] = b"\0\0"
    for i in range(2, isqrt(limit) + 1):
        if is_prime[i]:
            is_prime[i * i :: i] = bytes(len(is_prime[i * i :: i]))
    return [i for i, p in enumerate(is_prime) if p]


primes = sieve(100)
print(primes)

# %%
display(Markdown(f"There are **{len(primes)}** primes below 100; the last one is `{primes[-1]}`."))


# %%
def egcd(a, b):
    if b == 0:
        return a, 1, 0
    g, u, v = egcd(b, a % b)
    return g, v, u - a // b * v


g, u, v = egcd(240, 46)
display(Latex(f"$240 \\cdot {u} + 46 \\cdot {v} = {g}$"))
g == gcd(240, 46)

# %% [markdown]
# ## A continued fraction for pi

# %%
terms, rest = [], Fraction(pi).limit_denominator(10**9)
while rest and len(terms) < 6:
    whole = rest.numerator // rest.denominator
    terms.append(whole)
    rest = 1 / (rest - whole) if rest != whole else 0
terms


# %%
def value(terms):
    first, *others = terms
    return Fraction(first) + (1 / value(others) if others else 0)


convergents = [value(terms[: i + 1]) for i in range(4)]
convergents

# %%
rows = "".join(f"<tr><td>{c}</td><td>{float(c) - pi:+.2e}</td></tr>" for c in convergents)
HTML(f"<table><tr><th>fraction</th><th>error</th></tr>{rows}</table>")

# %%
getcontext().prec = 40
Decimal(2).sqrt()

# %%
Decimal(1) / 7  # with forty digits still?

# %% [markdown]
# ## The Mandelbrot set, as text


# %%
def escapes(c, limit=30):
    z = 0
    for step in range(limit):
        z = z * z + c
        if abs(z) > 2:
            return step
    return limit


shades = " .:-=+*#%@"
for row in range(15):
    line = (escapes(complex(-2.1 + col * 0.06, -1.1 + row * 0.155)) for col in range(50))
    print("".join(shades[min(n // 3, 9)] for n in line).rstrip())


# %%
def collatz(n):
    chain = [n]
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        chain.append(n)
    return chain


longest = max(range(1, 200), key=lambda n: len(collatz(n)))
longest, len(collatz(longest)), n  # the outer n is what it was

# %%
handle = display("counting", display_id=True)
for row in range(5):
    handle.update(" ".join(str(comb(row, k)) for k in range(row + 1)))
