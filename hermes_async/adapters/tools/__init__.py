"""Tools by name: ours, those of installed packages, and those whose name is their place."""

from hermes_async.adapters.tools.names import ToolNames, cure, load_tools
from hermes_async.adapters.tools.options import ToolOptions
from hermes_async.core.tool import Tool

__all__ = ["Tool", "ToolNames", "ToolOptions", "cure", "load_tools"]
