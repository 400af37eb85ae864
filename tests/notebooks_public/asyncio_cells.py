# %% [markdown]
# # asyncio in a notebook
#
# Cells may `await`.

# %%
import asyncio
from collections import deque

order = []


# %%
async def brew(name, seconds):
    order.append(f"{name} starts")
    await asyncio.sleep(seconds)
    order.append(f"{name} is done")
    return name.upper()


await brew("tea", 0)

# %%
await asyncio.gather(brew("coffee", 0.02), brew("soup", 0.01))

# %%
order

# %%
queue = asyncio.Queue()


async def producer(n):
    for i in range(n):
        await queue.put(i)
    await queue.put(None)


async def consumer():
    got = []
    while (item := await queue.get()) is not None:
        got.append(item * item)
    return got


_, squares = await asyncio.gather(producer(5), consumer())
squares


# %%
class Ticker:
    def __init__(self, n):
        self.n = n

    async def __aenter__(self):
        print("open")
        return self

    async def __aexit__(self, *_):
        print("closed")

    def __aiter__(self):
        return self._ticks()

    async def _ticks(self):
        for i in range(self.n):
            await asyncio.sleep(0)
            yield i


async with Ticker(3) as ticker:
    async for tick in ticker:
        print("tick", tick)

# %%
[n async for n in ticker if n]

# %%
limit = asyncio.Semaphore(2)
running, most = 0, 0


async def job(n):
    global running, most
    async with limit:
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
    return n


print(await asyncio.gather(*(job(n) for n in range(6))))
most

# %%
try:
    await asyncio.wait_for(asyncio.sleep(10), timeout=0.01)
except asyncio.TimeoutError as late:
    print("too late:", type(late).__name__)

# %%
tasks = deque(["a", "b", "c", "d"])


async def worker(name):
    done = []
    while tasks:
        done.append(tasks.popleft())
        await asyncio.sleep(0)
    return name, done


dict(await asyncio.gather(worker("one"), worker("two")))

# %%
len(tasks), running, order[-1]
