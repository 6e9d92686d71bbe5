"""Which modules import each other in a circle, told from their module-level import statements."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator, Mapping, Set

from examples.census import statements
from examples.sourcetree import SourceFile

Graph = Mapping[str, Set[str]]


def module_imports(file: SourceFile, tree: ast.Module, modules: Set[str]) -> set[str]:
    """Return which of `modules` a file imports while it is being imported itself."""
    found: set[str] = set()
    for node in _import_statements(tree):
        found.update(_targets(node, file, modules))
    return (found & modules) - {file.module}


def cycles(graph: Graph) -> list[list[str]]:
    """Return the groups of modules that need each other, largest first: components of two or more."""
    groups = [sorted(group) for group in strongly_connected(graph) if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), group))


def shortest_cycle(graph: Graph, group: list[str]) -> list[str]:
    """Return the shortest way round inside a group, its first module repeated at the end."""
    members = set(group)
    ways = (_way_back(graph, start, members) for start in group)
    return min(ways, key=len)


def strongly_connected(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components (Tarjan 1972), without recursion."""
    search = _Tarjan(graph)
    for node in graph:
        if node not in search.index:
            search.explore(node)
    return search.components


class _Tarjan:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.index: dict[str, int] = {}
        self.low: dict[str, int] = {}
        self.open: dict[str, None] = {}  # Tarjan's stack, and at the same time what is on it
        self.components: list[list[str]] = []

    def explore(self, root: str) -> None:
        path = [self._enter(root)]
        while path:
            node, children = path[-1]
            child = next(children, None)
            if child is None:
                path.pop()
                self._leave(node, path[-1][0] if path else node)
            elif child not in self.index:
                path.append(self._enter(child))
            elif child in self.open:
                self.low[node] = min(self.low[node], self.index[child])

    def _enter(self, node: str) -> tuple[str, Iterator[str]]:
        self.index[node] = self.low[node] = len(self.index)
        self.open[node] = None
        return node, iter(sorted(self.graph.get(node, ())))

    def _leave(self, node: str, parent: str) -> None:
        self.low[parent] = min(self.low[parent], self.low[node])
        if self.low[node] == self.index[node]:
            self.components.append(self._close(node))

    def _close(self, root: str) -> list[str]:
        component: list[str] = []
        while root in self.open:
            component.append(self.open.popitem()[0])
        return component


def _way_back(graph: Graph, start: str, members: Set[str]) -> list[str]:
    """Search breadth first for the shortest path from `start` to itself."""
    paths = deque([[start]])
    seen: set[str] = set()
    while paths:
        path = paths.popleft()
        for module in sorted(graph[path[-1]] & members):
            if module == start:
                return [*path, start]
            if module not in seen:
                seen.add(module)
                paths.append([*path, module])
    raise ValueError(f"{start} is in no cycle")


def _import_statements(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    stack: list[ast.AST] = [tree]
    while stack:
        for child in _run_at_import(stack.pop()):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child
            elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                stack.append(child)


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    # What stands under TYPE_CHECKING is read by tools only: it is how cycles are avoided.
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return iter(node.orelse)
    return statements(node)


def _targets(node: ast.Import | ast.ImportFrom, file: SourceFile, modules: Set[str]) -> Iterator[str]:
    """Yield the module behind every imported name: a submodule, or else the module that defines the name."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = _base(node, file)
    for alias in node.names:
        name = f"{base}.{alias.name}"
        yield name if name in modules else base


def _base(node: ast.ImportFrom, file: SourceFile) -> str:
    if not node.level:
        return node.module or ""
    parts = file.module.split(".")
    climb = node.level - file.is_package
    parts = parts[: len(parts) - climb]
    return ".".join([*parts, node.module] if node.module else parts)
