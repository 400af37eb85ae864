# %% [markdown]
# # Networks with networkx

# %%
import matplotlib.pyplot as plt
import networkx as nx

# %%
G = nx.karate_club_graph()
G.number_of_nodes(), G.number_of_edges()

# %%
print(G)
nx.density(G), nx.diameter(G)

# %%
degrees = dict(G.degree())
sorted(degrees.items(), key=lambda item: -item[1])[:5]

# %%
ranks = nx.pagerank(G)
between = nx.betweenness_centrality(G)
for node in sorted(ranks, key=ranks.get, reverse=True)[:4]:
    print(f"{node:>3} {ranks[node]:.4f} {between[node]:.4f} {G.nodes[node]['club']}")

# %%
nx.set_node_attributes(G, ranks, "rank")
G.nodes[33]

# %%
communities = nx.community.greedy_modularity_communities(G)
[len(community) for community in communities]

# %%
colour = {node: i for i, community in enumerate(communities) for node in community}
pos = nx.spring_layout(G, seed=4)
pos[0].round(4)

# %%
plt.figure(figsize=(5, 4))
nx.draw(
    G, pos, node_size=[2000 * ranks[node] for node in G], width=0.3,
    node_color=[colour[node] for node in G], cmap="Set2",
)  # fmt: skip

# %% [markdown]
# ## Directed and weighted

# %%
flights = nx.DiGraph()
flights.add_weighted_edges_from(
    [("BER", "MUC", 1.1), ("MUC", "FCO", 1.5), ("BER", "FCO", 2.9), ("FCO", "ATH", 1.9)]
)
view = flights.edges(data="weight")
nx.shortest_path(flights, "BER", "ATH", weight="weight")

# %%
flights.add_edge("BER", "ATH", weight=2.8)
print(len(view), list(nx.topological_sort(flights)))  # the view sees the new edge
nx.dijkstra_path_length(flights, "BER", "ATH")

# %%
trimmed = G.subgraph(node for node, degree in degrees.items() if degree > 4)
trimmed.number_of_nodes(), nx.is_connected(trimmed)

# %%
nx.to_pandas_adjacency(flights, dtype=float)
