"""A CPU-bound subagent that walks the source of an installed package and reports what it finds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version

from pydantic import BaseModel, JsonValue

from examples.census import Census, take_census
from examples.cycles import cycles, module_imports, shortest_cycle
from examples.sourcetree import SourceFile, distributions_of, parse, source_files
from hermes_async.sdk import TaskContext, subagent

Progress = Callable[[float, str], None]
Partial = Callable[[JsonValue, str], None]

LARGEST = 10
MOST_NAMED = 5
FILES_PER_PARTIAL = 25


class LargestFunction(BaseModel):
    """A function that asks to be split."""

    name: str
    location: str
    lines: int


class ImportCycle(BaseModel):
    """Modules that all need each other to be imported, and the shortest way round."""

    modules: list[str]
    shortest: list[str]


class Rate(BaseModel):
    """How many of how many, and the share from 0 to 1 (1 when there is nothing to count)."""

    count: int
    total: int
    share: float


class SurveyReport(BaseModel):
    """What the source of a package looks like."""

    package: str
    version: str | None
    files: int
    lines: int
    functions: int
    classes: int
    largest: list[LargestFunction]
    cycles: list[ImportCycle]
    documentation: Rate
    annotations: Rate
    unparsed: list[str]
    seconds: float
    summary: str = ""


@dataclass(slots=True)
class Tally:
    """The counts so far, while files are being read."""

    modules: frozenset[str]
    lines: int = 0
    census: Census = field(default_factory=Census)
    imports: dict[str, set[str]] = field(default_factory=dict)
    unparsed: list[str] = field(default_factory=list)

    def add(self, file: SourceFile) -> None:
        """Read one file and add what it holds."""
        source = file.path.read_bytes()
        self.lines += len(source.splitlines())
        tree = parse(source)
        if tree is None:
            self.unparsed.append(file.label)
            return
        self._merge(take_census(file, tree))
        self.imports[file.module] = module_imports(file, tree, self.modules)

    def _merge(self, found: Census) -> None:
        self.census.functions += found.functions
        self.census.classes += found.classes
        self.census.public += found.public
        self.census.documented += found.documented

    def largest(self, count: int) -> list[LargestFunction]:
        """Return the functions with the most lines, largest first."""
        ranked = sorted(self.census.functions, key=lambda function: (-function.lines, function.name))
        return [
            LargestFunction(name=function.name, location=function.location, lines=function.lines)
            for function in ranked[:count]
        ]

    def cycles(self) -> list[ImportCycle]:
        """Return the import cycles, largest first."""
        groups = cycles(self.imports)
        return [ImportCycle(modules=group, shortest=shortest_cycle(self.imports, group)) for group in groups]


def survey_package(package: str, progress: Progress, partial: Partial, top: int = LARGEST) -> SurveyReport:
    """Survey a package, telling of every file, and now and then of the largest functions so far."""
    started = time.monotonic()
    files = source_files(package)
    tally = Tally(frozenset(file.module for file in files))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parser complains of sloppy escapes in other people's code
        for number, file in enumerate(files):
            progress(95 * number / len(files), file.label)
            tally.add(file)
            if number % FILES_PER_PARTIAL == FILES_PER_PARTIAL - 1:
                partial([function.model_dump() for function in tally.largest(top)], "largest")
    progress(95, "looking for import cycles")
    report = _report(package, tally, len(files), top, started)
    partial(report.summary, "summary")
    progress(100, f"{report.files} files surveyed")
    return report


def _report(package: str, tally: Tally, files: int, top: int, started: float) -> SurveyReport:
    census = tally.census
    report = SurveyReport(
        package=package,
        version=_version(package),
        files=files,
        lines=tally.lines,
        functions=len(census.functions),
        classes=census.classes,
        largest=tally.largest(top),
        cycles=tally.cycles(),
        documentation=_rate(census.documented, census.public),
        annotations=_rate(sum(function.annotated for function in census.functions), len(census.functions)),
        unparsed=tally.unparsed,
        seconds=round(time.monotonic() - started, 3),
    )
    return report.model_copy(update={"summary": summarize(report)})


def summarize(report: SurveyReport) -> str:
    """Say in a few lines what a person would want to know first."""
    name = f"{report.package} {report.version}" if report.version else report.package
    lines = [
        f"{name}: {report.lines:,} lines in {_many(report.files, 'file')}, "
        f"{_many(report.functions, 'function')}, {_many(report.classes, 'class', 'classes')}.",
        f"{report.documentation.share:.0%} of its public names have a docstring; "
        f"{report.annotations.share:.0%} of its functions are fully annotated.",
        _say_largest(report.largest) + _say_cycles(report.cycles),
    ]
    if report.unparsed:
        lines.append(f"Could not be parsed: {', '.join(report.unparsed[:MOST_NAMED])}.")
    return "\n".join(lines)


def _say_largest(largest: list[LargestFunction]) -> str:
    if not largest:
        return "It defines no function. "
    first = largest[0]
    return f"Its largest function is {first.name} ({_many(first.lines, 'line')}, {first.location}). "


def _say_cycles(found: list[ImportCycle]) -> str:
    if not found:
        return "No import cycles."
    which = "Its one import cycle" if len(found) == 1 else f"The largest of {len(found)} import cycles"
    first = found[0]
    return (
        f"{which} joins {len(first.modules)} modules, the shortest way round: {' -> '.join(first.shortest)}."
    )


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def _rate(count: int, total: int) -> Rate:
    return Rate(count=count, total=total, share=round(count / total, 4) if total else 1.0)


def _version(package: str) -> str | None:
    distributions = distributions_of(package)
    return version(distributions[0]) if distributions else None


@subagent(timeout=120)
def survey(ctx: TaskContext, package: str) -> SurveyReport:
    """Walk the source tree of an installed package and report its size, largest functions, import cycles and
    how well it is documented and annotated."""
    return survey_package(package, ctx.progress, ctx.partial)
