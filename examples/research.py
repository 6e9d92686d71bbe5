"""An async subagent that answers questions from the documentation of installed packages, with sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial as bind
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from pydantic import JsonValue

from examples.corpus import Shelf, open_shelf
from examples.evidence import Finding, Question, find_evidence
from examples.ranking import search, weigh
from examples.sourcetree import is_installed
from hermes_async.sdk import TaskContext, subagent

P = ParamSpec("P")
R = TypeVar("R")
Progress = Callable[[float, str], None]
Partial = Callable[[JsonValue, str], None]

DEFAULT_PACKAGES = (
    "celery",
    "kombu",
    "redis",
    "pydantic",
    "anyio",
    "click",
    "socketio",
    "asyncio",
    "concurrent",
)
SOURCES_PER_PACKAGE = 2
MOST_QUOTES = 20

_one_reader: RunVar[CapacityLimiter] = RunVar("one_reader")


class ResearchReport(Finding):
    """The answer to a question, with its sources, and what was searched for it."""

    topic: str
    packages: list[str]
    documents_searched: int


async def investigate(
    topic: str, progress: Progress, partial: Partial, packages: Sequence[str] | None = None, depth: int = 5
) -> ResearchReport:
    """Answer a topic from the documentation of packages, telling of every package and the sources in it."""
    question = Question.of(topic)
    if not question.words:
        return _nothing_asked(topic, progress)
    depth = min(max(1, depth), MOST_QUOTES)
    names = list(dict.fromkeys(packages)) if packages else _installed_defaults()
    shelves, sources = list[Shelf](), list[JsonValue]()
    for number, name in enumerate(names):
        progress(90 * number / len(names), f"reading {name}")
        shelves.append(await _read(name))
        sources += await _in_thread(_glance, question, shelves[-1])
        partial(list(sources), "sources")
    progress(90, "weighing the evidence")
    report = await _in_thread(_report, topic, question, shelves, depth)
    progress(100, f"{len(report.sources)} sources, confidence {report.confidence:.0%}")
    return report


async def _read(package: str) -> Shelf:
    """Return the complete shelf of a package; the first task of a process reads it, step by step."""
    shelf = await _in_thread(open_shelf, package)
    while not shelf.complete:
        await _in_thread(shelf.read_some)
    return shelf


async def _in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a short piece of computing beside the event loop, one at a time in each loop.

    More threads would only fight for the interpreter lock; one queue is fair to hundreds of tasks.
    """
    try:
        limiter = _one_reader.get()
    except LookupError:
        limiter = CapacityLimiter(1)
        _one_reader.set(limiter)
    return await to_thread.run_sync(bind(function, *args, **kwargs), limiter=limiter)


def _glance(question: Question, shelf: Shelf) -> list[JsonValue]:
    """Return the first impression of one package: its best passages, before all are weighed together."""
    weights = weigh(question.words, [shelf.index])
    hits = search(weights, [shelf.index], SOURCES_PER_PACKAGE)
    return [{"object": hit.document.object, "location": hit.document.location} for hit in hits]


def _report(topic: str, question: Question, shelves: Sequence[Shelf], depth: int) -> ResearchReport:
    finding = find_evidence(question, [shelf.index for shelf in shelves], depth)
    return ResearchReport(
        **finding.model_dump(),
        topic=topic,
        packages=[shelf.package for shelf in shelves],
        documents_searched=sum(len(shelf.index.documents) for shelf in shelves),
    )


def _nothing_asked(topic: str, progress: Progress) -> ResearchReport:
    progress(100, "nothing to search for")
    return ResearchReport(
        topic=topic,
        answer="There is nothing to search for: the topic holds no word that says something.",
        confidence=0.0,
        confidence_reason="no question was asked",
        sources=[],
        packages=[],
        documents_searched=0,
    )


def _installed_defaults() -> list[str]:
    return [name for name in DEFAULT_PACKAGES if is_installed(name)]


@subagent(timeout=120)
async def research(
    ctx: TaskContext, topic: str, *, packages: list[str] | None = None, depth: int = 5
) -> ResearchReport:
    """Answer a question about Celery, Redis, asyncio and other installed Python packages from their own
    documentation, quoting numbered sources and saying how far the answer can be trusted."""
    return await investigate(topic, ctx.progress, ctx.partial, packages, depth)
