"""What is named in agents.yaml and found elsewhere: in installed packages, in modules, in a folder."""

from hermes_async.adapters.plugins.callback_folder import FOLDER
from hermes_async.adapters.plugins.callbacks import CallbackNames, cure, load_callbacks

__all__ = ["FOLDER", "CallbackNames", "cure", "load_callbacks"]
