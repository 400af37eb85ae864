"""What runs where the cell arrives. These modules travel as text, in front of every cell.

They need Python 3.9 and the standard library, no package of ours, and see each other alone. There
they are the package `lyceum_magic_remote`, of which `loader` makes only those modules that the cell
comes to need; what most cells do not need is imported late.
"""
