from __future__ import annotations

import importlib.util
import sys

import pytest

from hermes_async.adapters.model import names
from hermes_async.adapters.model.names import check_model, full_name, model_for
from hermes_async.domain.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "base_url", "full"),
    [
        ("gpt-4o-mini", None, "openai:gpt-4o-mini"),
        ("gpt-4o-mini", "http://localhost/v1", "openai-chat:gpt-4o-mini"),
        ("openai:gpt-4o", "http://localhost/v1", "openai-chat:gpt-4o"),
        ("openai-responses:gpt-4o", "http://localhost/v1", "openai-responses:gpt-4o"),
        ("anthropic:claude-sonnet-4-5", None, "anthropic:claude-sonnet-4-5"),
    ],
)
def test_a_bare_name_is_one_of_openai_or_of_the_server_that_is_named(
    name: str, base_url: str | None, full: str
) -> None:
    assert full_name(name, base_url, {}) == full


def test_the_server_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    model = model_for("qwen3")
    assert (model.model_name, model.system) == ("qwen3", "openai")
    assert type(model).__name__ == "OpenAIChatModel"
    assert str(model.base_url).startswith("http://localhost:1/v1")


def test_a_base_url_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    assert str(model_for("qwen3", "http://localhost:2/v1").base_url).startswith("http://localhost:2/v1")


def test_without_a_server_a_bare_name_speaks_the_responses_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert type(model_for("gpt-4o-mini")).__name__ == "OpenAIResponsesModel"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "gpt-4o-mini",
            "model 'gpt-4o-mini' needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server",
        ),
        ("google:gemini-2.5-pro", "needs a key: set GOOGLE_API_KEY or GEMINI_API_KEY"),
        ("opnai:gpt-4o", "model 'opnai:gpt-4o': Unknown provider: opnai"),
        ("fireworks:x", "Set the `FIREWORKS_API_KEY` environment variable"),
    ],
)
def test_what_is_missing_is_told_in_a_sentence(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        model_for(name)
    assert "\n" not in str(caught.value)


def test_a_missing_package_of_a_provider_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    with pytest.raises(ConfigError, match=r"model 'anthropic:claude-x'.*pydantic-ai-slim\[anthropic\]"):
        model_for("anthropic:claude-x")


def test_a_base_url_for_a_provider_that_takes_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    with pytest.raises(ConfigError, match="base_url"):
        model_for("deepseek:deepseek-chat", "http://localhost/v1")


def test_without_the_extra_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs an optional package: pip install 'hermes_async\[llm\]'"):
        model_for("gpt-4o-mini")


def test_looking_imports_nothing() -> None:
    assert importlib.util.find_spec("pydantic_ai") is not None
    before = set(sys.modules)
    with pytest.raises(ConfigError):
        check_model("gpt-4o-mini", environ={})
    check_model("gpt-4o-mini", environ={"OPENAI_API_KEY": "k"})
    assert not {name for name in set(sys.modules) - before if name.startswith("pydantic_ai")}
