"""Which passages answer a question (BM25) and which sentences to quote without saying things twice (MMR)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

# Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.4.
K1 = 1.2  # how soon a repeated word stops counting
B = 0.75  # how much a long text is held back

TITLE_WEIGHT = 3  # a word in the name of the object counts as so many in its text (BM25F, simplified)
RELEVANCE = 0.7  # of MMR: the rest is the penalty for repeating what is chosen already


class Hit(NamedTuple, Generic[T]):
    """A document that was found, its score, and which of the searched terms it holds."""

    document: T
    score: float
    matched: frozenset[str]


@dataclass(slots=True)
class Index(Generic[T]):
    """An inverted index: for every term, the documents that hold it and how often."""

    documents: list[T] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    postings: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, document: T, title: Iterable[str], body: Sequence[str]) -> None:
        """Add a document by the terms of its title and of its text."""
        counts = Counter(body)
        for term in title:
            counts[term] += TITLE_WEIGHT
        number = len(self.documents)
        for term, count in counts.items():
            self.postings[term].append((number, count))
        self.documents.append(document)
        self.lengths.append(len(body))

    def frequency(self, term: str) -> int:
        """Return in how many documents the term occurs."""
        return len(self.postings.get(term, ()))


def weigh(terms: Iterable[str], indexes: Sequence[Index[T]]) -> dict[str, float]:
    """Return how much each term tells (its inverse document frequency), over all indexes together."""
    total = sum(len(index.documents) for index in indexes)
    found = {term: sum(index.frequency(term) for index in indexes) for term in terms}
    return {term: math.log(1 + (total - n + 0.5) / (n + 0.5)) for term, n in found.items()}


def search(weights: Mapping[str, float], indexes: Sequence[Index[T]], limit: int) -> list[Hit[T]]:
    """Return the best documents, best first: BM25, times the share of the question that they cover."""
    lengths = sum(sum(index.lengths) for index in indexes)
    average = lengths / max(1, sum(len(index.documents) for index in indexes)) or 1.0
    hits = [hit for index in indexes for hit in _search_one(weights, index, average)]
    return sorted(hits, key=lambda hit: -hit.score)[:limit]


def coverage(matched: Set[str], weights: Mapping[str, float]) -> float:
    """Return which share of a question was matched, rare words counting more."""
    total = sum(weights.values())
    return sum(weights[term] for term in matched if term in weights) / total if total else 0.0


def _search_one(weights: Mapping[str, float], index: Index[T], average: float) -> list[Hit[T]]:
    scores: dict[int, float] = defaultdict(float)
    matched: dict[int, set[str]] = defaultdict(set)
    for term, weight in weights.items():
        for number, count in index.postings.get(term, ()):
            length = 1 - B + B * index.lengths[number] / average
            scores[number] += weight * count * (K1 + 1) / (count + K1 * length)
            matched[number].add(term)
    return [
        # A text that has one of the words very often is not about the question; one that has them all may be.
        Hit(index.documents[number], score * coverage(matched[number], weights), frozenset(matched[number]))
        for number, score in scores.items()
    ]


def choose_diverse(
    candidates: Sequence[T], count: int, relevance: Callable[[T], float], terms: Callable[[T], Set[str]]
) -> list[T]:
    """Choose one by one what is relevant and unlike those before (Carbonell & Goldstein 1998, MMR)."""
    left, chosen = list(candidates), list[T]()
    top = max((relevance(candidate) for candidate in left), default=0.0) or 1.0

    def marginal(candidate: T) -> float:
        repeated = max((likeness(terms(candidate), terms(other)) for other in chosen), default=0.0)
        return RELEVANCE * relevance(candidate) / top - (1 - RELEVANCE) * repeated

    while left and len(chosen) < count:
        best = max(left, key=marginal)
        left.remove(best)
        chosen.append(best)
    return chosen


def likeness(one: Set[str], other: Set[str]) -> float:
    """Return the share of terms that two texts have in common (Jaccard)."""
    union = len(one | other)
    return len(one & other) / union if union else 0.0
