"""Where webhooks may be posted."""

from __future__ import annotations

from typing import Final

from hermes_async.adapters.guarded import Errand

ERRAND: Final = Errand(
    word="a webhook",
    schemes=("https",),
    ports=(443, 8443),
    variable="HERMES_WEBHOOK_ALLOW",
    cure="correct it in agents.yaml, and sign with `secret`",
)
