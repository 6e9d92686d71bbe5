"""Models by name: `gpt-4o-mini`, `anthropic:claude-sonnet-4-5`, or what a server of one's own calls it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from hermes_async.domain.errors import ConfigError

if TYPE_CHECKING:  # an optional extra, and 2.8 s of imports
    from pydantic_ai.models import Model
    from pydantic_ai.providers import Provider

#: What helps when pydantic-ai is not there.
INSTALL: Final = "pip install 'hermes_async[llm]'"
#: The provider of a name without one: OpenAI itself, or a server that speaks its chat completions.
OPENAI, COMPATIBLE = "openai", "openai-chat"
#: The variables that hold the key of a provider, any of them; others than these check theirs themselves.
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "cerebras": ("CEREBRAS_API_KEY",),
    "cohere": ("CO_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "google": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    "groq": ("GROQ_API_KEY",),
    "mistral": ("MISTRAL_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
    "openai-chat": ("OPENAI_API_KEY",),
    "openai-responses": ("OPENAI_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY",),
    "xai": ("XAI_API_KEY",),
}


def model_for(name: str, base_url: str | None = None, api_key: str | None = None) -> Model:
    """Return the model of a name, with an HTTP client of its own.

    Args:
        name: `provider:model`; a bare name is one of OpenAI, or of the server at `base_url`.
        base_url: a server that speaks OpenAI's chat completions; by default what OPENAI_BASE_URL says.
        api_key: its key; by default what the provider's variable says.

    Raises:
        ConfigError: there is no such model, a package is missing, or no key is set.
    """
    check_model(name, base_url, api_key)
    return model_over(name, base_url, lambda kind: made_by(kind, base_url, api_key))


def made_by(provider: str, base_url: str | None, api_key: str | None) -> Provider[Any]:
    """Return a provider, with an HTTP client of its own."""
    from pydantic_ai.providers import infer_provider_class  # noqa: PLC0415

    kind: Callable[..., Provider[Any]] = infer_provider_class(provider)
    said = {"base_url": base_url, "api_key": api_key}
    return kind(**{name: value for name, value in said.items() if value is not None})


def model_over(name: str, base_url: str | None, provider: Callable[[str], Provider[Any]]) -> Model:
    """Return the model of a name over what `provider` returns for the name of a provider.

    Raises:
        ConfigError: there is no such model, a package is missing, or no key is set.
    """
    from pydantic_ai.exceptions import UserError  # noqa: PLC0415
    from pydantic_ai.models import infer_model  # noqa: PLC0415

    try:
        return infer_model(full_name(name, base_url), provider)
    except ImportError as error:
        raise ConfigError(f"model {name!r}: {error}") from error
    except (UserError, ValueError, TypeError) as error:
        raise ConfigError(f"model {name!r}: {_first_sentence(error)}") from error


def full_name(name: str, base_url: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Return `provider:model`: other servers than OpenAI's own mostly know its chat completions only."""
    provider, colon, model = name.partition(":")
    if not colon:
        provider, model = OPENAI, name
    if provider == OPENAI and (base_url or environ.get("OPENAI_BASE_URL")):
        provider = COMPATIBLE
    return f"{provider}:{model}"


def check_installed(name: str) -> None:
    """Raise ConfigError when what a model needs is not installed."""
    if find_spec("pydantic_ai") is None:
        raise ConfigError(f"model {name!r} needs an optional package: {INSTALL}")


def check_model(
    name: str,
    base_url: str | None = None,
    api_key: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Look, without importing anything, whether a model can be used on this machine.

    Raises:
        ConfigError: pydantic-ai is not installed, or no key is set.
    """
    check_installed(name)
    if api_key is not None:
        if not api_key:
            raise ConfigError(f"model {name!r} needs a key: its `api_key` is empty here")
        return
    provider = full_name(name, base_url, environ).partition(":")[0]
    needed = KEYS.get(provider, ())
    if provider.startswith(OPENAI) and (base_url or environ.get("OPENAI_BASE_URL")):
        return  # a server of one's own may need none
    if needed and not any(environ.get(variable) for variable in needed):
        raise ConfigError(f"model {name!r} needs a key: set {' or '.join(needed)}{_or_server(provider)}")


def _or_server(provider: str) -> str:
    compatible = provider.startswith(OPENAI)
    return ", or OPENAI_BASE_URL for a server of your own" if compatible else ""


def _first_sentence(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(" To try Pydantic AI")[0]
