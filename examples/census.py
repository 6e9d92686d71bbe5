"""What one module holds: its functions, classes, docstrings and annotations, counted from the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from examples.sourcetree import SourceFile

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
ScopeNode = FunctionNode | ast.ClassDef

# Repetitions of one function: their docstring belongs to the definition which they accompany.
_ACCOMPANYING = {"overload", "setter", "deleter"}


class Function(NamedTuple):
    """One function or method and how many lines it takes."""

    name: str
    location: str
    lines: int
    annotated: bool


class _Scope(NamedTuple):
    label: str
    name: str
    public: bool
    in_class: bool


@dataclass(slots=True)
class Census:
    """The counts of one module."""

    functions: list[Function] = field(default_factory=list)
    classes: int = 0
    public: int = 0
    documented: int = 0


def take_census(file: SourceFile, tree: ast.Module) -> Census:
    """Count what a module defines, however deeply it is nested."""
    census = Census()
    public = not any(_is_private(part) for part in file.module.split("."))
    _count_documentation(census, tree, public)
    scope = _Scope(file.label, file.module, public, in_class=False)
    stack: list[tuple[ast.AST, _Scope]] = [(tree, scope)]
    while stack:
        node, scope = stack.pop()
        for child in statements(node):
            stack.append((child, _enter(census, child, scope)))
    return census


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements directly below a node, leaving out expressions, which are the bulk of a tree."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child


def _enter(census: Census, node: ast.AST, scope: _Scope) -> _Scope:
    """Count a node and return the scope that its own statements are in."""
    if not isinstance(node, ScopeNode):
        return scope
    name = f"{scope.name}.{node.name}"
    public = scope.public and not _is_private(node.name) and not _is_accompanying(node)
    _count_documentation(census, node, public)
    if isinstance(node, ast.ClassDef):
        census.classes += 1
        return _Scope(scope.label, name, public, in_class=True)
    census.functions.append(_function(name, node, scope))
    # What is defined inside a function is nobody's interface.
    return _Scope(scope.label, name, public=False, in_class=False)


def _count_documentation(census: Census, node: ast.Module | ScopeNode, public: bool) -> None:
    census.public += public
    census.documented += public and ast.get_docstring(node, clean=False) is not None


def _function(name: str, node: FunctionNode, scope: _Scope) -> Function:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return Function(name, f"{scope.label}:{node.lineno}", lines, _is_annotated(node, scope.in_class))


def _is_annotated(node: FunctionNode, is_method: bool) -> bool:
    arguments = [*node.args.posonlyargs, *node.args.args]
    if is_method and "staticmethod" not in _decorators(node):
        arguments = arguments[1:]  # self or cls needs none
    extra = [argument for argument in (node.args.vararg, node.args.kwarg) if argument]
    complete = all(argument.annotation for argument in [*arguments, *node.args.kwonlyargs, *extra])
    return complete and (node.returns is not None or node.name == "__init__")


def _is_private(name: str) -> bool:
    return name.startswith("_")


def _is_accompanying(node: ScopeNode) -> bool:
    return bool(_ACCOMPANYING.intersection(_decorators(node)))


def _decorators(node: ScopeNode) -> set[str]:
    """Return the last name of every decorator: `setter` for `@size.setter`."""
    names = set()
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Name):
            names.add(decorator.id)
        elif isinstance(decorator, ast.Attribute):
            names.add(decorator.attr)
    return names
