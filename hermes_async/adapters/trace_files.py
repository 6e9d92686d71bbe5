"""Spans in files, one per trace: as many as a person looks back at, and no more."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from hermes_async.domain.spans import Span

#: Traces that are kept, and bytes of one.
KEPT, LARGEST = 500, 4_000_000
#: Traces that are begun between two looks at how many there are.
_LOOK_AFTER: Final = 50
_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class TraceFiles:
    """Keeps spans in a folder of its own, `<trace id>.jsonl`.

    Args:
        folder: made when the first span comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun = 0

    def add(self, spans: Iterable[Span]) -> None:
        """Keep spans; what is beyond the size of a trace, or has no proper trace id, is dropped."""
        traces: dict[str, list[bytes]] = defaultdict(list)
        for span in spans:
            if _TRACE_ID.fullmatch(span.trace_id):
                traces[span.trace_id].append(f"{span.model_dump_json(exclude_defaults=True)}\n".encode())
        for trace_id, lines in traces.items():
            self._append(self._folder / f"{trace_id}.jsonl", lines)

    def read(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace, in the order in which they came; a damaged line is passed over."""
        if not _TRACE_ID.fullmatch(trace_id):
            return []
        try:
            lines = (self._folder / f"{trace_id}.jsonl").read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        return [span for line in lines if (span := _read(line))]

    def _append(self, file: Path, lines: list[bytes]) -> None:
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._prune()
        with file.open("ab") as out:
            room = LARGEST - out.tell()
            for line in lines:
                if (room := room - len(line)) < 0:
                    return
                out.write(line)

    def _prune(self) -> None:
        """Forget the oldest traces, now and then."""
        self._begun += 1
        if self._begun % _LOOK_AFTER == 1:
            files = sorted(self._folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
            for file in files[: max(0, len(files) - KEPT)]:
                file.unlink(missing_ok=True)


def _read(line: bytes) -> Span | None:
    try:
        return Span.model_validate_json(line)
    except ValidationError:
        return None
