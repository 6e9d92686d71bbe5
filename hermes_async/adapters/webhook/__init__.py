"""Webhooks: a finished task is posted, signed (Standard Webhooks), to a place that may be posted to."""

from hermes_async.adapters.webhook.sender import WebhookSender

__all__ = ["WebhookSender"]
