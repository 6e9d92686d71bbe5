"""What the relay says over plain HTTP: whether it is well."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Response, status

from hermes_async.core.ports import Store
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.relay import browser

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def http_app(store: Store, hears: Callable[[], bool], lifespan: Lifespan) -> FastAPI:
    """Return the app beside the socket server.

    Args:
        store: what the relay reads from; asked whether it answers.
        hears: tells whether the socket server takes connections.
        lifespan: entered while the relay runs.
    """
    app = FastAPI(title="hermes relay", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.get("/healthz")
    async def healthz(response: Response) -> dict[str, Any]:
        try:
            answers: str | None = await store.ping()
        except StoreUnavailable:
            answers = None
        well = answers is not None and hears()
        if not well:
            response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return {"status": "ok" if well else "unavailable", "redis": answers, "hears": hears()}

    app.include_router(browser.router)
    return app
