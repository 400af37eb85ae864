# %% [markdown]
# # Calculus with sympy

# %%
from sympy import *

x, y, t = symbols("x y t")
n = symbols("n", integer=True, positive=True)
f = Function("f")

# %%
expression = (x + 1) ** 3 - (x - 1) ** 3
expand(expression)

# %%
factor(x**4 - 1)

# %%
simplify(sin(x) ** 2 + cos(x) ** 2), trigsimp(2 * sin(x) * cos(x))

# %% [markdown]
# ## Derivatives and integrals

# %%
g = exp(-(x**2)) * sin(3 * x)
diff(g, x)

# %%
h = diff(g, x, 2)
h.subs(x, 0), h.subs(x, pi).evalf(6)

# %%
integrate(1 / (1 + x**2), (x, -oo, oo))

# %%
half = Integral(exp(-(x**2)), (x, 0, oo))
half

# %%
half.doit()

# %%
limit(sin(x) / x, x, 0), limit((1 + 1 / n) ** n, n, oo)

# %%
series(cos(x), x, 0, 8)

# %% [markdown]
# ## Equations

# %%
roots_ = solve(x**3 - 6 * x**2 + 11 * x - 6, x)
print(roots_)
solve([x + y - 5, x * y - 6], [x, y])

# %%
ode = Eq(f(t).diff(t, 2) + 4 * f(t), 0)
solution = dsolve(ode, f(t), ics={f(0): 1, f(t).diff(t).subs(t, 0): 0})
solution

# %%
checkodesol(ode, solution)

# %%
A = Matrix([[2, 1], [1, 2]])
A.eigenvals(), A.det()

# %%
P, D = A.diagonalize()
P * D * P.inv() == A, A**5

# %%
fast = lambdify(x, g, "math")
[round(fast(v / 2), 6) for v in range(4)]

# %%
z = symbols("x")  # the same symbol, made again
z == x, latex(expression), pretty(Rational(3, 4) * x)

# %%
summation(1 / n**2, (n, 1, oo))
