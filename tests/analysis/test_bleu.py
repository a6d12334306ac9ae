"""BLEU from counts, and the randomisation test, against sacrebleu itself."""

import numpy as np
import pytest

from tests.sentences import GOOD, POOR, REFERENCES
from tyro_cli.analysis.bleu import corpus_bleu, randomisation_test
from tyro_cli.evaluation.quality import BLEU_COUNTS, bleu_counts

sacrebleu = pytest.importorskip("sacrebleu")


@pytest.mark.parametrize(
    "hypotheses",
    [
        GOOD,
        POOR,
        REFERENCES,
        [""] * 40,
        ["dog"] * 40,
        ["a dog"] * 40,
        [*GOOD[:39], ""],
        ["house the to quickly runs dog a"] * 40,
        [f"{text} {text}" for text in GOOD],
        ["x y z w v"] * 40,
    ],
    ids=range(10),
)
def test_counts_give_the_same_bleu(hypotheses: list[str]) -> None:
    counts = bleu_counts(hypotheses, REFERENCES)
    assert counts.shape == (40, BLEU_COUNTS)
    expected = sacrebleu.corpus_bleu(hypotheses, [REFERENCES]).score
    assert float(corpus_bleu(counts.sum(axis=0))) == pytest.approx(expected, abs=1e-9)


def test_the_randomisation_test_agrees_with_sacrebleu(monkeypatch: pytest.MonkeyPatch) -> None:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.significance import PairedTest

    monkeypatch.setenv("SACREBLEU_SEED", "1")
    generator = np.random.default_rng(5)
    words = [*"abcdefghijklmno", "the", "of", "and"]
    texts = [" ".join(generator.choice(words, 12)) for _ in range(60)]

    def worsened(probability: float) -> list[str]:
        """Replace words at random: no two exchanges then have the same BLEU."""
        return [
            " ".join(w if generator.random() > probability else "x" for w in text.split())
            for text in texts
        ]

    baseline = worsened(0.25)
    expected = []
    for probability in (0.25, 0.28, 0.31):
        arm = worsened(probability)
        systems = [("baseline", baseline), ("arm", arm)]
        metric = {"BLEU": BLEU(references=[texts])}
        _, scores = PairedTest(systems, metric, None, "ar", n_samples=10_000)()
        ours = randomisation_test(bleu_counts(arm, texts), bleu_counts(baseline, texts))
        expected.append(scores["BLEU"][1].p_value)
        assert ours.difference == pytest.approx(scores["BLEU"][1].score - scores["BLEU"][0].score)
        # Two sets of 10,000 exchanges: within four standard errors of each other.
        assert ours.p == pytest.approx(expected[-1], abs=4 * np.sqrt(2 * 0.25 / 10_000))
        assert (ours.sentences, ours.trials) == (60, 10_000)
    assert min(expected) < 0.2 and max(expected) > 0.3  # the cases tell tests apart


def test_two_sentences_that_differ_are_no_finding() -> None:
    nearly = [*REFERENCES[:2], *GOOD[2:]]
    test = randomisation_test(bleu_counts(nearly, REFERENCES), bleu_counts(GOOD, REFERENCES))
    assert test.difference > 0 and test.p > 0.2


def test_equal_translations_never_differ() -> None:
    counts = bleu_counts(GOOD, REFERENCES)
    test = randomisation_test(counts, counts, trials=200)
    assert (test.difference, test.p) == (0.0, 1.0)


def test_exchanges_depend_on_the_seed_alone() -> None:
    first, second = bleu_counts(GOOD, REFERENCES), bleu_counts(POOR, REFERENCES)
    one, again, other = (randomisation_test(first, second, seed, 300) for seed in (3, 3, 4))
    assert one == again
    assert one.difference == other.difference


def test_false_positives_stay_at_their_rate() -> None:
    """Both systems draw each sentence from the same two: p below .1 a tenth of the time."""
    generator = np.random.default_rng(0)
    pool = np.stack([bleu_counts(GOOD, REFERENCES), bleu_counts(POOR, REFERENCES)])
    hits = 0
    for draw in range(300):
        first, second = (pool[generator.integers(0, 2, 40), np.arange(40)] for _ in range(2))
        hits += randomisation_test(first, second, draw, 200).p <= 0.1
    assert hits / 300 < 0.1 + 4 * np.sqrt(0.1 * 0.9 / 300)
