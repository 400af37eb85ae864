# %% [markdown]
# # Logging, warnings, and what goes to stderr

# %%
import logging
import sys
import warnings

# %%
logging.warning("the root logger writes this")

# %%
logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)
logger.propagate = False
handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
logger.addHandler(handler)
logger.info("set up")

# %%
logger.debug("too quiet to be seen")
logger.level, logger.getEffectiveLevel(), logger.isEnabledFor(logging.INFO)


# %%
def old_function():
    warnings.warn("use new_function", DeprecationWarning, stacklevel=2)
    return 42


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    old_function()
[str(warning.message) for warning in caught]

# %%
warnings.simplefilter("error", RuntimeWarning)
try:
    warnings.warn("overflow", RuntimeWarning)
except RuntimeWarning as error:
    print("raised:", error)

# %%
try:
    warnings.warn("still an error in this cell", RuntimeWarning)
except RuntimeWarning as error:
    print("raised:", error)
len(caught)

# %%
print("to stderr", file=sys.stderr)


# %%
class Shop:
    logger = logging.getLogger("shop.till")

    def sell(self, item):
        if item not in self.stock:
            raise KeyError(item)
        self.stock.remove(item)

    def __init__(self, *stock):
        self.stock = list(stock)


shop = Shop("pen", "ink")
shop.sell("pen")
shop.stock, shop.logger.name

# %%
try:
    shop.sell("car")
except KeyError as error:
    problem = error
repr(problem), problem.args

# %%
import traceback

print("".join(traceback.format_exception_only(problem)), end="")
shop.logger is logging.getLogger("shop.till"), shop.logger.parent is logger
