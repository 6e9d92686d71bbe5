"""The models in use on one event loop, with their connections, which belong to the loop that made them."""

from __future__ import annotations

from typing import Any

from pydantic_ai.models import Model
from pydantic_ai.providers import Provider

from hermes_async.adapters.model.names import made_by, model_over

#: The name of a model or of a provider, its server and its key.
Place = tuple[str, str | None, str | None]


class Connections:
    """Models by name, server and key; those of one provider share its HTTP client."""

    def __init__(self) -> None:
        self._models: dict[Place, Model] = {}
        self._providers: dict[Place, Provider[Any]] = {}

    def model(self, name: str, base_url: str | None, api_key: str | None) -> Model:
        """Return a model.

        Raises:
            ConfigError: there is no such model, a package is missing, or no key is set.
        """
        place = (name, base_url, api_key)
        if place not in self._models:
            self._models[place] = model_over(
                name, base_url, lambda kind: self._provider((kind, base_url, api_key))
            )
        return self._models[place]

    async def close(self) -> None:
        """Close them all."""
        providers, self._providers = self._providers, {}
        self._models.clear()
        for provider in providers.values():
            async with provider:  # what leaves it last closes its client
                pass

    def _provider(self, place: Place) -> Provider[Any]:
        if place not in self._providers:
            self._providers[place] = made_by(*place)
        return self._providers[place]
