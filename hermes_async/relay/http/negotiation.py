"""Which of the things that we can say a client wants to hear."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_async.relay.http.problem import Refused


def chosen(accept: str, offers: Sequence[str]) -> str:
    """Return the offer that a client likes best; of two, the one that it names first.

    Args:
        accept: what its header says, such as `text/event-stream, */*;q=0.1`.
        offers: media types, ours first.

    Raises:
        Refused: it wants none of them.
    """
    for _, wanted in sorted(_ranges(accept), key=lambda one: -one[0]):
        for offer in offers:
            if wanted in ("*/*", offer, f"{offer.partition('/')[0]}/*"):
                return offer
    raise Refused("not_acceptable", f"accept one of {', '.join(offers)}")


def _ranges(accept: str) -> list[tuple[float, str]]:
    """Return the media ranges with their weights, without those that are refused."""
    found = []
    for part in accept.split(","):
        wanted, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        found.append((_number(weight), wanted))
    return [(weight, wanted) for weight, wanted in found if weight > 0]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
