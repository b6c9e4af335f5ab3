"""Texts against a reference: WER of read text; ROUGE-L, METEOR, BLEU-2 and CIDEr of captions and open-ended answers.

WER: released is the mean over answers of min(WER, 1), what OneThinker's accuracy of read text is 1 minus of; standard
is all word errors over all words of the references (jiwer). Words are split on white space, case kept.

The others have a standard form alone. ROUGE-L is the F of rouge-score with stemming. METEOR is NLTK's with its stages
of equal words and equal stems; the stage of synonyms needs WordNet's data, which comes with no package, and is left
out. BLEU-2 is the corpus's: the geometric mean of clipped uni- and bigram precision, with brevity penalty. CIDEr is
CIDEr-D as COCO's captioning evaluation computes it, from 0 to 10: its words weigh what they tell apart among the
references, so that it needs several. METEOR, BLEU and CIDEr read words in lower case without punctuation, as COCO does.
G-Eval is a judge's rating from 1 to 5, as VLMEvalKit gives it.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from onethinker_jax.evaluate.benchmarks.task_metrics import RATING
from onethinker_jax.evaluate.metrics.answer import Answer
from onethinker_jax.evaluate.metrics.shares import Forms, Measured, Share
from onethinker_jax.rewards.metrics import rouge_scores, word_accuracy

REFERENCES = "references"
"""The fact of a caption's sample, as MMSci has it."""
MAX_CHARS = 16_384
"""Of a text that is read: four characters for each of 4,096 tokens."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_PUNCTUATION = frozenset(["""''""", "'", "``", "`", *"()[]{}.?!,:;", "-", "--", "...", '"'])
_LONGEST, _SIGMA, _SCALE = 4, 6.0, 10.0


def measure_read(answer: Answer) -> Measured:
    """WER of read text."""
    return {"WER": Forms((1.0 - word_accuracy(answer.text, answer.truth), 1.0), word_errors(answer))}


def word_errors(answer: Answer) -> Share:
    """Word errors of an answer and words of its reference."""
    reference, given = answer.truth.split(), answer.text.split()
    if not given:
        return float(len(reference)), float(len(reference))
    import jiwer

    found = jiwer.process_words(" ".join(reference), " ".join(given))
    return float(found.substitutions + found.deletions + found.insertions), float(len(reference))


def measure_written(answer: Answer) -> Measured:
    """ROUGE-L, METEOR and BLEU-2 of a caption or an open-ended answer; a caption's G-Eval, if a judge has rated it."""
    reference, given = words(answer.truth), words(answer.text)
    *_, rouge_l = rouge_scores(answer.text, answer.truth)
    rating = None if answer.relevance is None else (float(answer.relevance), 1.0)
    rated: Measured = {RATING: Forms(None, rating)} if answer.sample.facts.get(REFERENCES) else {}
    return rated | {
        "ROUGE-L": Forms(None, (rouge_l, 1.0)),
        "METEOR": Forms(None, (meteor(given, reference), 1.0)),
        "BLEU-2": Forms(None, bleu_counts(given, reference)),
    }


def measure_cider(answers: Sequence[Answer]) -> list[Measured]:
    """CIDEr of each answer among all: every problem's reference counts once, however many answers it has."""
    references = {id(answer.sample): words(answer.truth) for answer in answers}
    corpus = Cider(list(references.values()))
    scores = [corpus.score(words(answer.text), references[id(answer.sample)]) for answer in answers]
    return [{"CIDEr": Forms(None, (score, 1.0))} for score in scores]


def words(text: str) -> list[str]:
    """The words of a text, lower case, without punctuation: the Penn Treebank's, as COCO's captions are split."""
    sentences = _SENTENCE_END.split(text[:MAX_CHARS].lower())
    split = _tokenizer()
    return [word for sentence in sentences for word in split.tokenize(sentence) if word not in _PUNCTUATION]


@functools.lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()


class _NoSynonyms:
    """Stands for WordNet where its data is not asked for."""

    def synsets(self, word: str) -> list[Any]:
        return []


def meteor(given: Sequence[str], reference: Sequence[str]) -> float:
    """METEOR of words against a reference's, by equal words and equal stems."""
    if not given or not reference:
        return 0.0
    from nltk.translate.meteor_score import single_meteor_score

    without: Any = _NoSynonyms()
    return float(single_meteor_score(reference, given, wordnet=without))


def bleu_counts(given: Sequence[str], reference: Sequence[str]) -> Share:
    """(clipped unigrams, unigrams, clipped bigrams, bigrams, words, the reference's words): `bleu` sums them."""
    counts: list[float] = []
    for n in (1, 2):
        own, true = _n_grams(given, n), _n_grams(reference, n)
        counts += [float((own & true).total()), float(own.total())]
    return (*counts, float(len(given)), float(len(reference)))


def bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU-2 of sums of `bleu_counts`, [..., 6] -> [...]; 0 where no word or no pair of words agrees."""
    shared_1, all_1, shared_2, all_2, given, reference = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.sqrt(shared_1 / all_1 * (shared_2 / all_2))
        penalty = np.exp(np.minimum(0.0, 1.0 - reference / given))
        return np.where(shared_2 > 0, penalty * precision, 0.0)


def _n_grams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(text[start:] for start in range(n)), strict=False))


class Cider:
    """CIDEr-D (Vedantam et al. 2015) of captions against one reference each, among all references of a corpus."""

    def __init__(self, references: Sequence[Sequence[str]]):
        self._documents: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            self._documents.update({gram for n in range(1, _LONGEST + 1) for gram in _n_grams(reference, n)})
        self._log_count = math.log(len(references)) if references else 0.0

    def score(self, given: Sequence[str], reference: Sequence[str]) -> float:
        """10 times the mean over n = 1 to 4 of the clipped cosine of the n-grams' weights, less for other lengths."""
        total = 0.0
        for n in range(1, _LONGEST + 1):
            a, b = self._weights(given, n), self._weights(reference, n)
            norms = math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))
            if norms:
                total += sum(min(x, b[gram]) * b[gram] for gram, x in a.items() if gram in b) / norms
        longer = max(len(given) - 1, 0) - max(len(reference) - 1, 0)
        return _SCALE * total / _LONGEST * math.exp(-(longer**2) / (2 * _SIGMA**2))

    def _weights(self, text: Sequence[str], n: int) -> dict[tuple[str, ...], float]:
        """n-gram -> how often it occurs, times the logarithm of how rarely among the references."""
        return {
            gram: count * (self._log_count - math.log(max(1, self._documents[gram])))
            for gram, count in _n_grams(text, n).items()
        }
