"""The project's private folder: secrets, and the data of the embedded Redis."""

from __future__ import annotations

from pathlib import Path


def prepare(folder: Path) -> None:
    """Make the folder if it is not there: for its owner only, and nothing for a repository."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
