"""WER, ROUGE-L, METEOR, BLEU-2 and CIDEr: by the packages that define them, or by hand."""

import json

import jiwer
import numpy as np
import pytest
from nltk.translate.bleu_score import corpus_bleu
from rouge_score import rouge_scorer

from onethinker_jax.evaluate.metrics import texts
from tests.evaluate.metrics.problems import answer, value_of
from tests.places import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "benchmark_metrics.json").read_text())["captions"]
ANSWERS = [answer("open-ended", true, given, problem_id=n) for n, (given, true) in enumerate(GOLDEN["pairs"])]


def test_cider_of_coco() -> None:
    found = [measured["CIDEr"].standard for measured in texts.measure_cider(ANSWERS)]
    assert [share and share[0] for share in found] == pytest.approx(GOLDEN["each"], abs=1e-9)
    assert value_of(found) == pytest.approx(GOLDEN["CIDEr"])


def test_a_references_words_count_once_however_many_answers() -> None:
    once = texts.measure_cider(ANSWERS)
    twice = texts.measure_cider([*ANSWERS, *ANSWERS])
    assert twice == [*once, *once]
    assert texts.measure_cider([]) == []


def test_bleu_of_coco_and_of_nltk() -> None:
    """NLTK gives a text of one word a pair of words that agrees with none, and is asked without it."""
    counts = [texts.measure_written(one)["BLEU-2"].standard for one in ANSWERS]
    assert value_of(counts, texts.bleu) == pytest.approx(GOLDEN["BLEU-2"], rel=1e-6)
    pairs = [(true.split(), given.split()) for given, true in GOLDEN["pairs"] if " " in given]
    wanted = corpus_bleu([[true] for true, _ in pairs], [given for _, given in pairs], weights=(0.5, 0.5))
    counts = [texts.bleu_counts(given, true) for true, given in pairs]
    assert value_of(counts, texts.bleu) == pytest.approx(wanted)
    assert float(texts.bleu(np.array(texts.bleu_counts(["b"], ["a", "b"])))) == 0.0  # no pair of words
    assert float(texts.bleu(np.array(texts.bleu_counts([], ["a"])))) == 0.0


def test_rouge_l() -> None:
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    for one, (given, true) in zip(ANSWERS, GOLDEN["pairs"], strict=True):
        wanted = scorer.score(true, given)["rougeL"].fmeasure
        assert texts.measure_written(one)["ROUGE-L"].standard == (pytest.approx(wanted), 1.0)


def test_meteor_by_hand() -> None:
    """(Banerjee and Lavie 2005 with NLTK's weights.) P = 5/6, R = 5/7, in two chunks, `sat` alone unmatched."""
    reference, given = (
        ["the", "cat", "was", "sitting", "on", "the", "mat"],
        ["the", "cat", "sat", "on", "the", "mats"],
    )
    precision, recall, chunks, matches = 5 / 6, 5 / 7, 2, 5
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    assert texts.meteor(given, reference) == pytest.approx(mean * (1 - 0.5 * (chunks / matches) ** 3))
    assert texts.meteor([], reference) == texts.meteor(given, []) == 0.0
    assert texts.meteor(["big"], ["large"]) == 0.0  # synonyms are not known


def test_words_are_cocos() -> None:
    said = "The dog's ball (red) isn't here. It's gone!  Cost: 3,000 -- or 4.5?"
    assert " ".join(texts.words(said)) == "the dog 's ball red is n't here it 's gone cost 3,000 or 4.5"


def test_wer() -> None:
    pairs = [("hello big world", "hello world"), ("one two", "one two three four five"), ("a b", "")]
    shares = [texts.measure_read(answer("OCR", true, given))["WER"] for true, given in pairs]
    total = jiwer.wer([true for true, _ in pairs], [given for _, given in pairs])
    assert shares[2].standard == (
        2.0,
        2.0,
    )  # the whole response, which is one word, stands for an empty answer
    assert value_of(share.standard for share in shares) == pytest.approx(total)
    assert [share.released for share in shares] == [(pytest.approx(1 / 3), 1.0), (1.0, 1.0), (1.0, 1.0)]
