"""Where the Python source of an installed package lies, found without importing the package."""

from __future__ import annotations

import ast
import sys
from difflib import get_close_matches
from functools import cache
from importlib.machinery import BuiltinImporter, ModuleSpec, PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple


class SourceFile(NamedTuple):
    """One .py file: the module it makes, where it is, and a short name for people."""

    module: str
    path: Path
    label: str

    @property
    def is_package(self) -> bool:
        """Whether the file is the `__init__` of a package, which changes what its relative imports mean."""
        return self.path.name == "__init__.py"


def source_files(package: str) -> list[SourceFile]:
    """Return every source file of a top-level package, sorted by path."""
    spec = _spec(package)
    if spec is None:
        raise ValueError(f"no package named {package!r} is installed here{_suggestion(package)}")
    files = [file for root in _roots(spec) for file in _walk(root, package)]
    if not files:
        raise ValueError(f"package {package!r} has no Python source to read: it is compiled or built in")
    return files


def is_installed(package: str) -> bool:
    """Whether a top-level package can be found."""
    return _spec(package) is not None


def distributions_of(package: str) -> list[str]:
    """Return the distributions that a package was installed from; the standard library has none."""
    return sorted(set(_installed().get(package, ())))


def parse(source: bytes) -> ast.Module | None:
    """Return the syntax tree of a file, or None when this Python cannot parse it."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _spec(package: str) -> ModuleSpec | None:
    # Not importlib.util.find_spec: for what is imported already it trusts `__spec__`, which lazy packages
    # such as kombu do not have; and a dotted name would make it import the parent.
    if not package.isidentifier():
        return None
    return PathFinder.find_spec(package) or BuiltinImporter.find_spec(package)


def _roots(spec: ModuleSpec) -> list[Path]:
    if spec.submodule_search_locations is not None:
        return [Path(location) for location in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []


def _walk(root: Path, package: str) -> list[SourceFile]:
    if root.is_file():
        return [SourceFile(package, root, root.name)]
    return [_source_file(root, path, package) for path in sorted(root.rglob("*.py"))]


def _source_file(root: Path, path: Path, package: str) -> SourceFile:
    relative = path.relative_to(root)
    parts = [package, *relative.with_suffix("").parts]
    if parts[-1] == "__init__":
        parts.pop()
    return SourceFile(".".join(parts), path, f"{package}/{relative.as_posix()}")


def _suggestion(name: str) -> str:
    spellings = _spellings()
    nearest = get_close_matches(name.lower(), [name.split(".")[0].lower(), *spellings], n=3, cutoff=0.6)
    found = [spellings[spelling] for spelling in nearest if spelling in spellings]
    return f"; did you mean {found[0]!r}?" if found else ""


_installed = cache(packages_distributions)  # reads the metadata of everything installed: 30 ms


@cache
def _spellings() -> dict[str, str]:
    """Map every name that people may use, also that of a distribution, to the name of the package."""
    spellings = {name: name for name in sys.stdlib_module_names if not name.startswith("_")}
    for package, distributions in _installed().items():
        spellings |= {distribution.lower(): package for distribution in distributions}
    return spellings | {package.lower(): package for package in _installed()}
