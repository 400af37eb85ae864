"""The syntax tree of a cell -> the global names that it reads and binds, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from ..exceptions import OptionError

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
#: A call of one of these may bind any name.
_BINDERS = {"exec", "eval", "globals", "locals", "vars", "setattr", "get_ipython", "__import__"}


def names_read(tree: ast.Module | None) -> list[str]:
    """Return the global names that a cell may read before it has bound them, in their order.

    Reading is taken literally: `del x` and `x += 1` read. What a function reads counts where the
    cell uses the function. Where it is not certain that a name was bound, it counts as read.

    Args:
        tree: None for a cell that this Python cannot parse.

    Raises:
        OptionError: the cell is not Python of this version, or nests too deep.
    """
    if tree is None:
        raise OptionError(
            "--in auto cannot read this cell, which is not Python of this version; name the "
            "variables to send."
        )
    reader = _Reader()
    try:
        reader.block(tree.body)
    except RecursionError:
        raise OptionError(
            "--in auto cannot follow this cell, whose expressions or calls nest too deep; name the "
            "variables to send."
        ) from None
    return list(reader.reads)


def names_bound(tree: ast.Module | None) -> set[str] | None:
    """Return the global names that a cell can bind; None where they cannot be known."""
    if tree is None:
        return None
    try:
        names = set(_bound_in(tree.body))
    except RecursionError:
        return None
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name in _BINDERS:
                return None
            case ast.Import(names=aliases) if any(a.name == "__main__" for a in aliases):
                return None
            case ast.ImportFrom(names=[ast.alias(name="*")]):
                return None
            case ast.Attribute(attr="modules"):  # of sys
                return None
            case ast.Global(names=declared):
                names.update(declared)
    return names


def _bound_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names that a scope binds, without those of the functions and classes in it."""
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
                yield from _bound_in([*node.decorator_list, *_defaults(node.args)])
                continue
            case ast.ClassDef(name=name):
                yield name
                yield from _bound_in([*node.decorator_list, *node.bases, *node.keywords])
                continue
            case ast.Lambda():
                yield from _bound_in(_defaults(node.args))
                continue
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                # Only what `:=` binds leaves it.
                for inner in ast.walk(node):
                    if isinstance(inner, ast.NamedExpr):
                        yield from _bound_in([inner.target])
                continue
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                for alias in aliases:
                    yield alias.asname or alias.name.partition(".")[0]
            case ast.ExceptHandler(name=str(name)):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.MatchMapping(rest=str(name)):
                yield name
            case _ if type(node).__name__ == "TypeAlias":
                yield node.name.id  # type: ignore[attr-defined]
                continue
        yield from _bound_in(ast.iter_child_nodes(node))


def _defaults(arguments: ast.arguments) -> list[ast.expr]:
    return [default for default in (*arguments.defaults, *arguments.kw_defaults) if default]


def _arguments(arguments: ast.arguments) -> Iterator[ast.arg]:
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    yield from (arg for arg in (arguments.vararg, arguments.kwarg) if arg)


@dataclass(frozen=True)
class _Effect:
    """The effect of running a function on the global names.

    Attributes:
        given: those that were bound when it was looked at; with more it reads no others.
        binds: those that it certainly leaves bound, and may not have found so.
        unbinds: those that it may delete.
    """

    given: frozenset[str]
    binds: frozenset[str]
    unbinds: frozenset[str]


def _in_order(first: str, *others: str) -> Any:
    """Return a visitor that takes the fields of a node in the order in which they run.

    Args:
        first: the fields that always run; each of `others` may not run.
    """

    def visit(reader: _Reader, node: ast.AST) -> None:
        reader.fields(node, first)
        for names in others:
            with reader.maybe():
                reader.fields(node, names)

    return visit


class _Reader(ast.NodeVisitor):
    """A walk through a cell in the order in which it runs.

    A function is followed at its use, but again only where less is bound than before: following
    each use would take time exponential in the number of functions that call each other.

    Attributes:
        reads: global names that were read before they were certainly bound, in their order.
    """

    def __init__(self) -> None:
        self.reads: dict[str, None] = {}
        self._bound: set[str] = set()
        self._unbound: set[str] = set()  # deleted by the function that is followed
        self._local: frozenset[str] = frozenset()  # names of the scopes around
        self._known: dict[str, list[ast.AST]] = {}  # what a name may call
        self._effects: dict[int, _Effect] = {}  # as long as `_known` is as it is
        self._running: set[int] = set()

    def block(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def fields(self, node: ast.AST, names: str) -> None:
        for name in names.split():
            part = getattr(node, name)
            self.block(part if isinstance(part, list) else [part])

    @contextmanager
    def maybe(self) -> Iterator[None]:
        """Enter code that may not run: its bindings are not certain afterwards."""
        before = set(self._bound)
        yield
        self._bound = before & self._bound

    @contextmanager
    def _inside(self, names: Iterable[str]) -> Iterator[None]:
        """Enter a scope with names of its own."""
        outer, self._local = self._local, self._local | set(names)
        yield
        self._local = outer

    def _read(self, name: str) -> None:
        if name in self._local:
            return
        if name not in self._bound:
            self.reads.setdefault(name)
        for node in self._known.get(name, ()):
            with self.maybe():
                self._run_known(node)

    def _bind(self, name: str) -> None:
        if name not in self._local:
            self._bound.add(name)
            # A function that binds a global one may not run each time.
            if not self._running and self._known.pop(name, []):
                self._effects = {}

    def _unbind(self, name: str) -> None:
        if name not in self._local:
            self._bound.discard(name)
            self._unbound.add(name)

    def _run_known(self, node: ast.AST) -> None:
        """Follow a function at one of its uses."""
        if id(node) in self._running:
            return
        effect = self._effects.get(id(node))
        if effect is None or not effect.given <= self._bound:
            # What was bound at every use so far: so each function is followed a few times at most.
            given = self._bound if effect is None else self._bound & effect.given
            effects = self._effects
            effect = self._follow(node, frozenset(given))
            effects[id(node)] = effect
        self._bound = self._bound - effect.unbinds | effect.binds
        self._unbound |= effect.unbinds

    def _follow(self, node: ast.AST, given: frozenset[str]) -> _Effect:
        outer = self._bound, self._unbound, self._local
        # It does not see its caller's names.
        self._bound, self._unbound, self._local = set(given), set(), frozenset()
        self._run(node)
        binds = frozenset(self._bound - given | self._bound & self._unbound)
        effect = _Effect(given, binds, frozenset(self._unbound))
        self._bound, self._unbound, self._local = outer
        return effect

    def _run(self, node: ast.AST) -> None:
        """Follow the body of a function, or of the methods of a class, at its use."""
        self._running.add(id(node))
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, _Scope):
                    with self.maybe():
                        self._run(part)
        elif isinstance(node, _Function):
            with self._inside(self._locals_of(node)):
                self.block(node.body)
        self._running.discard(id(node))

    def _locals_of(self, node: _Function | ast.Lambda) -> set[str]:
        names = {argument.arg for argument in _arguments(node.args)}
        if isinstance(node, ast.Lambda):
            return names | set(_bound_in([node.body]))
        names.update(_bound_in(node.body))
        names.update(parameter.name for parameter in getattr(node, "type_params", ()))
        for inner in ast.walk(node):
            if isinstance(inner, ast.Global):
                names.difference_update(inner.names)
        return names

    # Names.

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._read(node.id)
        elif isinstance(node.ctx, ast.Store):
            self._bind(node.id)
        else:
            self._read(node.id)
            self._unbind(node.id)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for name in _bound_in([node]):
            self._bind(name)

    visit_ImportFrom = visit_Import

    # Statements whose parts run in another order than they are written, or not always.

    visit_Assign = _in_order("value targets")
    visit_NamedExpr = _in_order("value target")
    visit_For = visit_AsyncFor = _in_order("iter", "target body", "orelse")
    visit_While = visit_IfExp = _in_order("test", "body", "orelse")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.block([node.value, node.annotation])
        if node.value is not None or not isinstance(node.target, ast.Name):
            self.visit(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._read(node.target.id)
        self.block([node.value, node.target])

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        before = set(self._bound)
        self.block(node.body)
        after, self._bound = self._bound, before
        self.block(node.orelse)
        self._bound &= after

    def visit_Try(self, node: Any) -> None:
        before = set(self._bound)
        self.block([*node.body, *node.orelse])
        after = set(self._bound)
        for handler in node.handlers:
            self._bound = set(before)
            self.visit(handler)
            after &= self._bound
        if node.finalbody:  # which may begin at any point of the body
            self._bound = set(before)
            self.block(node.finalbody)
        self._bound |= after

    visit_TryStar = visit_Try

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        if node.name is not None:
            self._bind(node.name)
        self.block(node.body)
        if node.name is not None:
            self._unbind(node.name)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        for case in node.cases:
            with self.maybe():
                self.visit(case)

    def visit_match_case(self, node: ast.match_case) -> None:
        for name in _bound_in([node.pattern]):
            self._bind(name)
        self.block([node.pattern, node.guard, *node.body])

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        with self.maybe():
            self.block(node.values[1:])

    # Scopes.

    def visit_FunctionDef(self, node: _Function) -> None:
        annotations = (argument.annotation for argument in _arguments(node.args))
        parameters = {parameter.name for parameter in getattr(node, "type_params", ())}
        self.block([*node.decorator_list, *_defaults(node.args)])
        with self._inside(parameters):
            self.block([*annotations, node.returns])
        self._define(node, is_used=bool(node.decorator_list))

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.block([*node.decorator_list, *node.bases, *node.keywords])
        parameters = {parameter.name for parameter in getattr(node, "type_params", ())}
        own: set[str] = set()
        with self._inside(parameters):
            for part in node.body:
                # A name that the class has not bound yet is looked for outside.
                with self._inside(own):
                    if isinstance(part, _Function):
                        self.block([*part.decorator_list, *_defaults(part.args)])
                        self.block(argument.annotation for argument in _arguments(part.args))
                        self.visit(part.returns) if part.returns else None
                    else:
                        targets = set(_bound_in([part]))
                        bound, known = set(self._bound), dict(self._known)
                        self.visit(part)
                        self._bound -= targets - bound - own
                        if self._known != known:  # the class's own names hide nothing
                            self._known, self._effects = known, {}
                own.update(_bound_in([part]))
        self._define(node, is_used=bool(node.decorator_list))

    def _define(self, node: ast.ClassDef | _Function, *, is_used: bool) -> None:
        if node.name in self._local or is_used:
            # The uses of an inner function are not followed; a decorator may use it at once.
            if id(node) not in self._running:
                with self.maybe():
                    self._bind(node.name)
                    self._run(node)
            self._bind(node.name)
            return
        self._bind(node.name)
        known = self._known.get(node.name, []) if self._running else []
        if node not in known:
            self._known[node.name] = [*known, node]
            self._effects = {}

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.block(_defaults(node.args))
        with self.maybe(), self._inside(self._locals_of(node)):
            self.visit(node.body)

    def visit_Call(self, node: ast.Call) -> None:
        callee = node.func
        if isinstance(callee, ast.Name) and callee.id not in self._local:
            # A call binds what the function declares global; a mere mention may not.
            bodies = self._known.pop(callee.id, [])
            self._read(callee.id)
            if bodies:
                self._known[callee.id] = bodies
            self.block([*node.args, *node.keywords])
            for body in bodies:
                with self.maybe() if len(bodies) > 1 else nullcontext():
                    self._run_known(body)
            return
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        self._comprehension(node.generators, [node.elt])

    visit_SetComp = visit_ListComp
    visit_GeneratorExp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node.generators, [node.key, node.value])

    def _comprehension(self, generators: list[ast.comprehension], results: list[ast.expr]) -> None:
        self.visit(generators[0].iter)
        names = set(_bound_in([generator.target for generator in generators]))
        with self.maybe(), self._inside(names):
            for number, generator in enumerate(generators):
                if number:
                    self.visit(generator.iter)
                self.block(generator.ifs)
            self.block(results)
