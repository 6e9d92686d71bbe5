"""Going out to URLs that somebody else has chosen: to public servers, and to what is allowed by name."""

from hermes_async.adapters.guarded.connector import connector
from hermes_async.adapters.guarded.lookup import Lookup
from hermes_async.adapters.guarded.places import Errand, Refused, Target, target

__all__ = ["Errand", "Lookup", "Refused", "Target", "connector", "target"]
