"""The relay over plain HTTP: tasks, sessions, event streams, health and metrics, beside the sockets."""

from hermes_async.relay.http.app import http_app
from hermes_async.relay.http.desk import Desk

__all__ = ["Desk", "http_app"]
