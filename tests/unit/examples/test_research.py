"""Research finds what is written, quotes it with its line, doubts itself, and lets others run meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from examples.corpus import open_shelf
from examples.ranking import Index, choose_diverse, search, weigh
from examples.research import ResearchReport, investigate, research
from examples.text import sentences, stem, terms

from .conftest import MakePackage
from .recorder import Recorder

pytestmark = pytest.mark.anyio

ZOO = {
    "__init__.py": '"""A zoo of animals. It is only a sample."""\n',
    "birds.py": '''
        """Birds that live in the zoo."""

        class Pelican:
            #: Seconds that a pelican waits before it swallows a fish whole.
            patience = 3

            wingspan: float = 2.5
            """The distance between the tips of both wings, in metres."""

            def swallow(self, fish):
                """Swallow a fish.

                The pelican closes its beak and swallows the fish at once.

                Example:
                    >>> Pelican().swallow("herring fish pelican")
                """
        ''',
    "fish.py": '"""Fish of the zoo swim in water all day long."""\n',
}


async def ask(topic: str, *packages: str, depth: int = 5) -> ResearchReport:
    return await research.function(Recorder(), topic, packages=list(packages) or None, depth=depth)


async def test_the_answer_quotes_the_best_passage_with_its_line(make_package: MakePackage) -> None:
    zoo = make_package(ZOO)
    report = await ask("How does a pelican swallow fish?", zoo)
    best = report.sources[0]
    assert (best.object, best.module, best.number) == ("Pelican.swallow", f"{zoo}.birds", 1)
    assert best.location == f"{zoo}/birds.py:12"
    assert "closes its beak and swallows the fish at once." in best.quote
    assert "herring" not in report.answer
    assert report.answer.startswith(f"[1] {zoo}.birds.Pelican.swallow: ")
    assert report.documents_searched == 6


async def test_comments_and_strings_of_attributes_are_documentation(make_package: MakePackage) -> None:
    zoo = make_package(ZOO)
    assert (await ask("pelican patience", zoo)).sources[0].location == f"{zoo}/birds.py:5"
    assert (await ask("tips of the wings", zoo)).sources[0].object == "Pelican.wingspan"


async def test_readmes_are_searched() -> None:
    report = await ask("Which brokers does Kombu support? AMQP message library", "kombu")
    assert any("METADATA" in source.location for source in report.sources)


@pytest.mark.parametrize(
    ("question", "location", "words"),
    [
        (
            "How does Celery acknowledge messages late?",
            "celery/app/task.py",
            "after the task has been executed",
        ),
        (
            "What is a visibility timeout in Redis transport?",
            "kombu/transport/redis.py",
            "visibility_timeout",
        ),
    ],
)
async def test_real_questions(question: str, location: str, words: str) -> None:
    report = await ask(question)
    assert any(source.location.startswith(location) for source in report.sources)
    assert words in report.answer
    assert report.confidence > 0.7
    assert "Traceback" not in report.answer and "::" not in report.answer


async def test_what_is_not_documented_is_said_honestly() -> None:
    report = await ask("Analyze AI chip market trends")
    assert report.confidence < 0.2
    assert report.answer.startswith(f"The {report.documents_searched:,} passages searched ")
    assert "nowhere mentioned: 'chip', 'market', 'trends'" in report.confidence_reason


@pytest.mark.parametrize(
    "topic", ["", "the of and", "!!! ???", "日本語の質問", "x" * 100_000, "fish " * 20_000]
)
async def test_any_text_is_answered(topic: str, make_package: MakePackage) -> None:
    report = await ask(topic, make_package(ZOO))
    assert report.topic == topic and report.answer
    assert 0 <= report.confidence <= 1


async def test_progress_and_sources_so_far(make_package: MakePackage) -> None:
    told, packages = Recorder(), [make_package(ZOO), make_package(ZOO)]
    await research.function(told, "pelican", packages=packages)
    told.assert_went_to_100()
    assert [message for _, message in told.told][:2] == [f"reading {package}" for package in packages]
    assert [name for name, _ in told.partials] == ["sources", "sources"]
    assert len(told.partials[0][1]) < len(told.partials[1][1])


async def test_depth_is_the_number_of_quotes(make_package: MakePackage) -> None:
    zoo = make_package(ZOO)
    topic = "zoo animals fish birds pelican"
    assert [len((await ask(topic, zoo, depth=depth)).sources) for depth in (-1, 1, 2)] == [1, 1, 2]
    assert len((await ask(topic, zoo, depth=10**9)).sources) <= 6


async def test_weak_evidence_is_shown_as_such(make_package: MakePackage) -> None:
    report = await ask("pelican market", make_package(ZOO))
    assert report.answer.startswith("The 6 passages searched say little about this")
    assert 0 < len(report.sources) <= 2


async def test_an_unknown_package_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="no package named 'komby' is installed here; did you mean 'kombu'"):
        await ask("messages", "komby")


async def test_the_report_survives_json(make_package: MakePackage) -> None:
    report = await ask("pelican", make_package(ZOO))
    assert ResearchReport.model_validate_json(report.model_dump_json()) == report


async def test_cancelled_midway_it_stops_and_the_next_one_goes_on(make_package: MakePackage) -> None:
    many = make_package({f"m{number}.py": f'"""Number {number} is a module."""\n' for number in range(100)})
    with anyio.CancelScope() as scope:
        await investigate("module", lambda percent, _: scope.cancel(), lambda value, name: None, [many])
    assert scope.cancelled_caught
    shelf = open_shelf(many)
    shelf.read_some()
    assert not shelf.complete
    assert (await ask("number 7", many)).documents_searched == 100


async def test_many_side_by_side_read_each_file_once_and_do_not_block_the_loop(
    make_package: MakePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo, read, pauses = make_package(ZOO), [], []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or original(path))

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await anyio.sleep(0)
            pauses.append(time.monotonic() - before)

    async with anyio.create_task_group() as watching:
        watching.start_soon(watch)
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask, "pelican fish", zoo)
        watching.cancel_scope.cancel()
    assert len([path for path in read if zoo in path.parts]) == len(ZOO)
    assert max(pauses) < 0.5


def test_bm25_puts_the_rare_word_first_and_short_before_long() -> None:
    index: Index[str] = Index()
    for number in range(20):
        index.add(f"common {number}", [], ["queue", "task"])
    index.add("rare, long", [], ["zebra", *["task"] * 50])
    index.add("rare, short", [], ["zebra", "task"])
    index.add("rare, in the title", ["zebra"], ["task", "task"])
    hits = search(weigh(["zebra", "queue"], [index]), [index], limit=4)
    assert [hit.document for hit in hits][:3] == ["rare, in the title", "rare, short", "rare, long"]


def test_a_word_said_often_does_not_outweigh_two_words_together() -> None:
    index: Index[str] = Index()
    index.add("often", [], ["late"] * 30)
    index.add("together", [], ["late", "message", *["other"] * 28])
    assert search(weigh(["late", "message"], [index]), [index], 1)[0].document == "together"


def test_several_indexes_are_weighed_as_one() -> None:
    one, two, both = Index[str](), Index[str](), Index[str]()
    for index, name, body in [(one, "a", ["x", "y"]), (two, "b", ["x"]), (two, "c", ["z", "z", "z"])]:
        index.add(name, [], body)
        both.add(name, [], body)
    assert weigh(["x"], [one, two]) == weigh(["x"], [both])
    assert search({"x": 1.0}, [one, two], 9) == search({"x": 1.0}, [both], 9)


def test_mmr_prefers_something_new_over_the_same_again() -> None:
    texts = {"best": {"a", "b"}, "same": {"a", "b"}, "new": {"c"}}
    relevance = {"best": 1.0, "same": 0.9, "new": 0.7}
    assert choose_diverse(list(texts), 2, relevance.__getitem__, texts.__getitem__) == ["best", "new"]


def test_words_that_are_related_meet() -> None:
    assert len({stem(word) for word in ("acknowledge", "acknowledged", "acknowledgment", "acks", "ack")}) == 1
    assert len({stem(word) for word in ("message", "messages", "messaging")}) == 1
    assert stem("class") == "class"
    assert terms("HTTPServer task_acks_late, see https://example.org/zebra") == [
        stem(word) for word in ("http", "server", "task", "acks", "late", "see")
    ]


def test_sentences_are_prose_without_markup() -> None:
    text = """Title of it all
===============
This is ``code`` and :meth:`~kombu.Connection.drain_events` in a sentence.
See `the docs <https://x.y>`_ for all of it.

Example of what is left out because it is code::

    run this code and forget about it now

* A list item that says something, e.g. This one
  over two lines.

.. versionadded:: 5.0

```
this is code in a fence too
```
| a | table | with | many | cells |
:param size: How many there may be at once
"""
    assert sentences(text) == [
        "This is code and drain_events in a sentence.",
        "See the docs for all of it.",
        "A list item that says something, e.g. This one over two lines.",
        "size: How many there may be at once.",
    ]
