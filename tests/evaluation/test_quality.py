"""Quality of translations against sacrebleu itself."""

import sys

import pytest

from tests.sentences import GOOD, REFERENCES, SOURCES
from tyro_cli.errors import DataError
from tyro_cli.evaluation.quality import check_sacrebleu, translation_quality

sacrebleu = pytest.importorskip("sacrebleu")


def test_scores_and_signatures_are_those_of_sacrebleu() -> None:
    record = translation_quality(GOOD, REFERENCES, SOURCES)
    assert record["bleu"] == sacrebleu.corpus_bleu(GOOD, [REFERENCES]).score
    assert record["chrf"] == sacrebleu.corpus_chrf(GOOD, [REFERENCES]).score
    assert record["copy_bleu"] == sacrebleu.corpus_bleu(SOURCES, [REFERENCES]).score
    assert record["copy_bleu"] < record["bleu"] < 100
    assert record["sentences"] == 40
    assert "tok:13a|smooth:exp|version:" in record["signatures"]["bleu"]
    assert "case:mixed" in record["signatures"]["bleu"]
    assert record["signatures"]["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0")


def test_a_missing_sacrebleu_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_sacrebleu()
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(DataError, match=r"not installed \(sacrebleu\)") as caught:
        check_sacrebleu()
    assert "pip install 'wtie[mt]'" in caught.value.remedy


def test_case_counts() -> None:
    upper = [text.upper() for text in REFERENCES]
    assert translation_quality(upper, REFERENCES, SOURCES)["bleu"] < 30
    assert translation_quality(REFERENCES, REFERENCES, SOURCES)["bleu"] == pytest.approx(100)
