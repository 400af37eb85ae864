# %% [markdown]
# # Graphs without a library

# %%
import heapq
from collections import deque


# %%
class Graph:
    def __init__(self):
        self.edges = {}

    def add(self, a, b, weight=1):
        self.edges.setdefault(a, {})[b] = weight
        self.edges.setdefault(b, {})[a] = weight

    def neighbours(self, node):
        return self.edges[node]

    def __len__(self):
        return len(self.edges)


# %%
g = Graph()
for a, b, weight in [
    ("A", "B", 4), ("A", "C", 2), ("B", "C", 1), ("B", "D", 5),
    ("C", "D", 8), ("C", "E", 10), ("D", "E", 2), ("D", "F", 6), ("E", "F", 3),
]:  # fmt: skip
    g.add(a, b, weight)
len(g), g.neighbours("C")


# %% [markdown]
# ## Breadth and depth


# %%
def bfs(graph, start):
    seen, queue, order = {start}, deque([start]), []
    while queue:
        node = queue.popleft()
        order.append(node)
        for other in sorted(graph.neighbours(node)):
            if other not in seen:
                seen.add(other)
                queue.append(other)
    return order


bfs(g, "A")


# %%
def dfs(graph, node, seen=None):
    seen = [] if seen is None else seen
    seen.append(node)
    for other in sorted(graph.neighbours(node)):
        if other not in seen:
            dfs(graph, other, seen)
    return seen


dfs(g, "A")


# %% [markdown]
# ## Dijkstra


# %%
def dijkstra(graph, start):
    distance, parent = {start: 0}, {}
    heap = [(0, start)]
    while heap:
        d, node = heapq.heappop(heap)
        if d > distance[node]:
            continue
        for other, weight in graph.neighbours(node).items():
            if d + weight < distance.get(other, float("inf")):
                distance[other], parent[other] = d + weight, node
                heapq.heappush(heap, (d + weight, other))
    return distance, parent


distance, parent = dijkstra(g, "A")
distance

# %%
path = ["F"]
while path[-1] != "A":
    path.append(parent[path[-1]])
" -> ".join(reversed(path))

# %%
# A road is closed.
del g.edges["B"]["C"], g.edges["C"]["B"]
dijkstra(g, "A")[0]["F"]


# %% [markdown]
# ## Minimum spanning tree


# %%
class DisjointSets:
    def __init__(self):
        self.parent = {}

    def find(self, x):
        self.parent.setdefault(x, x)
        if self.parent[x] != x:
            self.parent[x] = self.find(self.parent[x])
        return self.parent[x]

    def union(self, a, b):
        a, b = self.find(a), self.find(b)
        if a == b:
            return False
        self.parent[a] = b
        return True


sets, tree = DisjointSets(), []
for weight, a, b in sorted((w, a, b) for a in g.edges for b, w in g.edges[a].items() if a < b):
    if sets.union(a, b):
        tree.append((a, b, weight))
sum(weight for _, _, weight in tree), tree

# %%
len({sets.find(node) for node in g.edges})


# %% [markdown]
# ## A linked structure with cycles


# %%
class Node:
    def __init__(self, name):
        self.name, self.links = name, []

    def __repr__(self):
        return f"Node({self.name!r}, to {[n.name for n in self.links]})"


ring = [Node(name) for name in "xyz"]
for node, following in zip(ring, [*ring[1:], ring[0]], strict=True):
    node.links.append(following)
    following.links.append(node)
first = ring[0]
ring

# %%
first.links[0].links.append(first)
first is ring[0], ring[1]


# %%
def topological(tasks):
    waiting = {task: set(needs) for task, needs in tasks.items()}
    done = []
    while waiting:
        ready = sorted(task for task, needs in waiting.items() if not needs)
        if not ready:
            raise ValueError(f"a circle among {sorted(waiting)}")
        for task in ready:
            del waiting[task]
            done.append(task)
        for needs in waiting.values():
            needs.difference_update(ready)
    return done


plan = {"shoes": {"socks", "trousers"}, "socks": set(), "trousers": {"pants"}, "pants": set()}
topological(plan)

# %%
plan["pants"].add("shoes")
try:
    topological(plan)
except ValueError as problem:
    print(problem)
