"""`hermes-async tools`: what there is, and how it answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hermes_async.adapters.tools.names import BUILT_IN
from tests.support.web import web
from tests.unit.cli.conftest import Cli

MODULE = """\
from hermes_async import TaskContext, ToolFailed

def price(item: str, amount: int = 1) -> dict[str, float]:
    \"\"\"Tell a price.\"\"\"
    if item == "gold":
        raise ToolFailed("gold is not sold here")
    return {"euros": 2.5 * amount}

def tell(ctx: TaskContext) -> None: ...

def nothing() -> str:
    return "nothing"
"""


@pytest.fixture
def shop(project: Path) -> Path:
    (project / "shop.py").write_text(MODULE)
    (project / "agents.yaml").write_text(
        "agents: {clerk: {model: m, tools: ['shop:price', 'shop:prise', web_search]}}"
    )
    return project


def test_list(shop: Path, cli: Cli) -> None:
    lines = [line.split("\t") for line in cli("tools", "list").out.splitlines()]
    assert [line[0] for line in lines] == [*BUILT_IN, "shop:price", "shop:prise"]
    assert lines[-2] == ["shop:price", "item, amount", "Tell a price."]
    assert "module 'shop' has no 'prise'; did you mean 'price'?" in lines[-1][2]
    assert (
        json.loads(cli("tools", "list", "--json").out)[BUILT_IN.index("web_fetch")]["takes"] == "url, start"
    )


def test_call(shop: Path, cli: Cli) -> None:
    assert '"euros":2.5' in cli("tools", "call", "shop:price", "tea").out
    assert '"euros":5.0' in cli("tools", "call", "shop:price", '{"item": "tea", "amount": "2"}').out
    assert "price failed: gold is not sold here" in cli("tools", "call", "shop:price", "gold").out
    assert "amuont: Extra inputs" in cli("tools", "call", "shop:price", '{"item": "tea", "amuont": 2}').out
    said = json.loads(cli("tools", "call", "shop:nothing", "--json").out)
    assert said == {
        "tool": "shop:nothing",
        "result": '<tool_result name="nothing" trust="none">\nnothing\n</tool_result>',
    }


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["web_serch", "x"], "no tool is named 'web_serch'; did you mean 'web_search'?"),
        (["shop:tell"], "takes a TaskContext: it can only be called within a task"),
        (["shop:nothing", "x"], "tool 'nothing' takes no arguments"),
    ],
)
def test_what_cannot_be_called(shop: Path, cli: Cli, line: list[str], sentence: str) -> None:
    said = cli("tools", "call", *line)
    assert said.code == 2
    assert sentence in said.err


def test_the_operator_s_own_searxng_and_servers(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web() as here:
        here.answer("/page", "<p>inside")
        monkeypatch.setenv("HERMES_SEARXNG_URL", here.url)
        assert "1. Tea 1" in cli("tools", "call", "web_search", "tea").out
        assert "no public address" in cli("tools", "call", "web_fetch", "http://127.0.0.1/").out
        monkeypatch.setenv("HERMES_FETCH_ALLOW", here.place)
        assert "\ninside\n" in cli("tools", "call", "web_fetch", f"{here.url}/page").out
    monkeypatch.setenv("HERMES_SEARXNG_URL", "searx")
    said = cli("tools", "list")
    assert said.code == 2
    assert said.err.startswith("hermes-async: HERMES_SEARXNG_URL: searxng_url must")
