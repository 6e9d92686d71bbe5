"""`task answer` and `task send` over a real Redis; the test plays the attempt that asks."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.domain.question import Question
from hermes_async.domain.task import Task
from tests.unit.cli.conftest import HERMES, Cli, with_hermes

QID = "1-a"


def asking(cli: Cli, schema: Any = None) -> str:
    """A task that asks."""
    task_id = cli("task", "create", "parent_agent", "research", "--async").out.strip()

    async def ask(hermes: Hermes) -> None:
        task = await hermes.store.claim(task_id, "the-test", 60.0)
        assert task is not None
        question = Question(question_id=QID, question="Which\x1b region?", answer_schema=schema)
        assert await hermes.store.ask(task, question)

    asyncio.run(with_hermes(ask))
    return task_id


def record(task_id: str) -> Task:
    async def load(hermes: Hermes) -> Any:
        return await hermes.store.load(task_id)

    found: Task = asyncio.run(with_hermes(load))
    return found


def answered(task_id: str) -> Any:
    return record(task_id).answers[QID].answer


def test_the_question_is_shown_with_the_way_to_answer(online: Path, cli: Cli) -> None:
    task_id = asking(cli)
    way = f"hermes-async task answer {task_id} VALUE"
    for words in (("task", "status", task_id), ("task", "events", task_id)):
        said = cli(*words).out
        assert "Which� region?" in said
        assert way in said
    shown = json.loads(cli("task", "status", task_id, "--json").out)
    assert (shown["status"], shown["question"]["question_id"]) == ("input_required", QID)


@pytest.mark.parametrize(
    ("schema", "words", "value"),
    [
        (None, ("eu",), "eu"),
        (None, ("3",), "3"),
        ({"type": "string"}, ("3",), "3"),
        ({"type": "integer"}, ("3",), 3),
        ({"type": "object"}, ('{"a": [1]}',), {"a": [1]}),
        ({"type": "boolean"}, ("true",), True),
        (None, ("--json-value", "null"), None),
        (None, ("--json-value", "[1]"), [1]),
        (None, ("@said.txt",), "from a file"),
        (None, ("eu", "--question", QID), "eu"),
    ],
)
def test_what_an_answer_means(
    online: Path, cli: Cli, schema: Any, words: tuple[str, ...], value: Any
) -> None:
    Path("said.txt").write_text("from a file")
    task_id = asking(cli, schema)
    said = cli("task", "answer", task_id, *words)
    assert (said.code, said.out, said.err) == (0, f"answered task {task_id}\n", "")
    assert answered(task_id) == value


def test_an_answer_from_stdin_and_in_json(online: Path, cli: Cli) -> None:
    task_id = asking(cli)
    line = [*HERMES, "task", "answer", task_id[:12], "-", "--json"]
    piped = subprocess.run(line, input="@home", capture_output=True, text=True, check=True)
    assert json.loads(piped.stdout) == {"task_id": task_id, "answered": True, "answer": "@home"}
    assert answered(task_id) == "@home"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("no",), 2, "the answer is none of 'eu', 'us'; the question is: Which"),
        (("eu", "--question", "9-z"), 6, "does not ask '9-z' now, but 1-a"),
        ((), 2, "give the answer either as VALUE or with --json-value"),
        (("eu", "--json-value", "1"), 2, "give the answer either as VALUE or with --json-value"),
        (("--json-value", "{"), 2, "that is not JSON"),
        (("@none.txt",), 2, "the answer @none.txt: No such file"),
    ],
)
def test_what_is_no_answer_is_one_sentence(
    online: Path, cli: Cli, words: tuple[str, ...], code: int, sentence: str
) -> None:
    task_id = asking(cli, {"enum": ["eu", "us"]})
    said = cli("task", "answer", task_id, *words)
    assert (said.code, said.out, said.err.count("\n")) == (code, "", 1)
    assert sentence in said.err
    assert record(task_id).question is not None


def test_the_second_answer_is_too_late(online: Path, cli: Cli) -> None:
    task_id = asking(cli)
    assert cli("task", "answer", task_id, "first").code == 0
    late = cli("task", "answer", task_id, "second", "--json")
    assert (late.code, json.loads(late.out)["error"]["type"]) == (6, "NotTaken")
    assert cli("task", "answer", "t07-nothing", "x").code == 2
    assert answered(task_id) == "first"


def test_a_message_is_there_for_the_task(online: Path, cli: Cli) -> None:
    task_id = cli("task", "create", "parent_agent", "research", "--async").out.strip()
    assert cli("task", "send", task_id[:12], "shorter").out == f"sent to task {task_id}\n"
    seq = json.loads(cli("task", "send", task_id, "more", "--data", '{"a": 1}', "--json").out)["seq"]

    async def hear(hermes: Hermes) -> Any:
        task = await hermes.store.claim(task_id, "the-test", 60.0)
        assert task is not None
        return await hermes.store.hear(task, 0)

    heard = asyncio.run(with_hermes(hear))
    assert [(event.data.text, event.data.data) for event in heard] == [("shorter", None), ("more", {"a": 1})]
    assert heard[-1].seq == seq
