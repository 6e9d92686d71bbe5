"""From ranked passages to an answer that can be checked: quotes, sources, and how far to trust it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from pydantic import BaseModel

from examples.corpus import Passage
from examples.ranking import Hit, Index, choose_diverse, coverage, search, weigh
from examples.text import sentences, stem, telling_words, terms

MOST_TERMS = 64  # a whole page given as the topic is searched by its beginning
HITS_PER_QUOTE = 4
OPENING = 4  # words
LEAST_RELEVANCE = 0.25  # of the best sentence; what is below only fills the page

SUPPORTS = 0.7  # a passage that covers so much of the question counts as support
WEAK = 0.35
FEW = 2  # quotes are enough to show that there is no answer
MOST_CONFIDENCE = 0.95  # words that match are evidence, never proof


_LIST_ITEM = re.compile(r"[\w.*-]+( \([^)]*\))?(:| -) ")


class Question(NamedTuple):
    """What is searched: each term and the word that people know it by."""

    words: dict[str, str]

    @classmethod
    def of(cls, topic: str) -> Question:
        """Take the words that say something out of a topic."""
        distinct = {stem(word): word for word in reversed(telling_words(topic))}
        return cls(dict(list(reversed(distinct.items()))[:MOST_TERMS]))

    def name(self, matched: Sequence[str]) -> str:
        """Name some of the terms, as the asker wrote them."""
        return ", ".join(f"'{self.words[term]}'" for term in matched)


class Source(BaseModel):
    """Where a part of the answer stands."""

    number: int
    package: str
    module: str
    object: str
    location: str
    score: float
    quote: str


class Finding(BaseModel):
    """An answer and everything needed to doubt it."""

    answer: str
    confidence: float
    confidence_reason: str
    sources: list[Source]


class _Sentence(NamedTuple):
    text: str
    terms: frozenset[str]
    hit: Hit[Passage]
    relevance: float
    covered: float


def find_evidence(question: Question, indexes: Sequence[Index[Passage]], depth: int) -> Finding:
    """Answer a question in the words of the passages that fit it best."""
    weights = weigh(question.words, indexes)
    hits = search(weights, indexes, limit=depth * HITS_PER_QUOTE)
    passages = sum(len(index.documents) for index in indexes)
    quotes = _quotes(weights, hits, depth)
    confidence = _confidence(weights, hits, quotes)
    reason = _reason(question, weights, hits, indexes)
    sources = _sources(quotes if confidence >= WEAK else quotes[:FEW])
    lead = _lead(confidence, reason, passages, bool(sources))
    lines = [f"[{source.number}] {_title(source)}: {source.quote}" for source in sources]
    return Finding(
        answer="\n".join([*lead, *lines]), confidence=confidence, confidence_reason=reason, sources=sources
    )


def _quotes(weights: Mapping[str, float], hits: Sequence[Hit[Passage]], depth: int) -> list[_Sentence]:
    """Choose the sentences worth reading, none of which repeats another."""
    candidates = [sentence for hit in hits for sentence in _sentences(weights, hit)]
    least = LEAST_RELEVANCE * max((sentence.relevance for sentence in candidates), default=0.0)
    worth = {sentence.terms: sentence for sentence in reversed(candidates) if sentence.relevance > least}
    return choose_diverse(
        [*worth.values()], depth, lambda sentence: sentence.relevance, lambda sentence: sentence.terms
    )


def _sentences(weights: Mapping[str, float], hit: Hit[Passage]) -> list[_Sentence]:
    passage = hit.document
    title = frozenset(terms(passage.object))
    found = []
    for text in sentences(passage.text):
        own = terms(text)
        # The name of the object is what the sentence is about, though the sentence need not repeat it;
        # and what a sentence begins with, it says something of.
        covered = coverage(title.union(own), weights)
        fit = coverage({*own}, weights) + covered + coverage({*own[:OPENING]}, weights)
        found.append(_Sentence(text, frozenset(own), hit, hit.score * fit, covered))
    return found


def _sources(quotes: Sequence[_Sentence]) -> list[Source]:
    """Number the passages in the order in which they were chosen, each with what was chosen from it."""
    chosen = {quote.hit.document: quote.hit for quote in quotes}
    return [
        Source(
            number=number,
            package=passage.package,
            module=passage.module,
            object=passage.object,
            location=passage.location,
            score=round(hit.score, 3),
            quote=_quote(passage.text, {quote.text for quote in quotes if quote.hit.document == passage}),
        )
        for number, (passage, hit) in enumerate(chosen.items(), start=1)
    ]


def _quote(text: str, chosen: Set[str]) -> str:
    """Quote sentences as they follow each other, after the first of the text, which says what it is about."""
    quoted, last = "", 0
    for number, sentence in enumerate(sentences(text)):
        if sentence in chosen or (number == 0 and not _LIST_ITEM.match(sentence)):
            quoted += f"{' …' if quoted and number > last + 1 else ''} {sentence}"
            last = number
    return quoted.strip()


def _title(source: Source) -> str:
    return f"{source.module}.{source.object}" if source.object else source.module


def _confidence(
    weights: Mapping[str, float], hits: Sequence[Hit[Passage]], quotes: Sequence[_Sentence]
) -> float:
    """Return how much of the question the best passage and sentence cover, less when few passages do."""
    passage = max((coverage(hit.matched, weights) for hit in hits), default=0.0)
    sentence = max((quote.covered for quote in quotes), default=0.0)
    doubt: float = 0.5 ** max(1, _support(weights, hits))
    return round(MOST_CONFIDENCE * (passage + sentence) / 2 * (1 - doubt), 2)


def _reason(
    question: Question,
    weights: Mapping[str, float],
    hits: Sequence[Hit[Passage]],
    indexes: Sequence[Index[Passage]],
) -> str:
    absent = [term for term in weights if not any(index.frequency(term) for index in indexes)]
    if absent:
        return f"nowhere mentioned: {question.name(absent)}"
    if support := _support(weights, hits):
        return f"{support} of the {len(hits)} best passages cover most of the question"
    return "every word is mentioned, but never most of them together"


def _support(weights: Mapping[str, float], hits: Sequence[Hit[Passage]]) -> int:
    return sum(coverage(hit.matched, weights) >= SUPPORTS for hit in hits)


def _lead(confidence: float, reason: str, passages: int, found: bool) -> list[str]:
    if not found:
        return [f"The {passages:,} passages searched say nothing about this ({reason})."]
    if confidence < WEAK:
        return [
            f"The {passages:,} passages searched say little about this ({reason}). The nearest they come:"
        ]
    return []
