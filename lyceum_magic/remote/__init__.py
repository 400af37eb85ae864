"""Code that travels with a cell and runs on its machine: text in front of every cell.

These modules need Python 3.9 and the standard library, and import only each other. On the cell's
machine they are the package `lyceum_magic_remote`, of which `loader` makes only the modules that
the cell comes to need; a module that most cells do not need is imported late.
"""
