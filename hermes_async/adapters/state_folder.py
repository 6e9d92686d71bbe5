"""The project's private folder: secrets, and the data of the embedded Redis."""

from __future__ import annotations

import os
from pathlib import Path


def prepare(folder: Path) -> None:
    """Make the folder if it is not there: for its owner only, and nothing for a repository."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def fault(folder: Path) -> str | None:
    """Return why nothing could be kept in the folder, or None; nothing is made."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        return f"{place} is not a folder"
    return None if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written"
