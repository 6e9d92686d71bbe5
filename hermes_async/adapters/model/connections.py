"""The models in use on one event loop, with their connections, which belong to the loop that made them."""

from __future__ import annotations

from typing import Any

from pydantic_ai.models import Model
from pydantic_ai.providers import Provider

from hermes_async.adapters.model.names import made_by, model_over


class Connections:
    """Models by name and server; those of one provider share its HTTP client."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str | None], Model] = {}
        self._providers: dict[tuple[str, str | None], Provider[Any]] = {}

    def model(self, name: str, base_url: str | None) -> Model:
        """Return a model.

        Raises:
            ConfigError: there is no such model, a package is missing, or no key is set.
        """
        if (name, base_url) not in self._models:
            self._models[name, base_url] = model_over(
                name, base_url, lambda kind: self._provider(kind, base_url)
            )
        return self._models[name, base_url]

    async def close(self) -> None:
        """Close them all."""
        providers, self._providers = self._providers, {}
        self._models.clear()
        for provider in providers.values():
            async with provider:  # what leaves it last closes its client
                pass

    def _provider(self, kind: str, base_url: str | None) -> Provider[Any]:
        if (kind, base_url) not in self._providers:
            self._providers[kind, base_url] = made_by(kind, base_url)
        return self._providers[kind, base_url]
