"""The page of a set of claims: the answer first, every finding behind it, and no foreign markup."""

import pytest

from tests.analysis.fake_chains import make_chain_study
from tests.analysis.fake_claims import BETTER, NOISY, WORSE, claim, finding, published
from tests.analysis.fake_probes import make_probes
from tests.analysis.fake_runs import values, write
from tests.analysis.fake_studies import make_study
from tests.reporting.pages import parse
from tyro_cli.analysis.claims import claim_results
from tyro_cli.analysis.studies import studies_in
from tyro_cli.errors import RunFolderError, UsageError
from tyro_cli.reporting.claims_page import claims_page
from tyro_cli.reporting.folders import read_report, write_report


def make_claims(root, *findings, **keys):
    points = {(512,): values(BETTER), (1024,): values(WORSE), (2048,): values(NOISY)}
    return make_study(root, points, changes={"claim": claim(*findings, **keys)})


def test_a_claim_is_answered_before_its_findings(tmp_path):
    make_claims(tmp_path, finding(), finding("lower", "parameters"))
    page = parse(read_report(tmp_path).html)
    main = page.all("main")[0]
    card = main.children[0].text()
    for part in ("Claim 3: Tying helps.", "mixed: depends on the vocabulary", "3 of 6 hold"):
        assert part in card
    text = main.text()
    for part in (
        "vocabulary 1024",
        "test nats per word, tied - untied",
        "would take",
        "more hours of cells",
        "fails: opposite",
        "95 % paired t intervals over seeds",
        "wtie sweep",
    ):
        assert part in text
    assert text.count("All hold: supported") == 1


@pytest.mark.parametrize("cells", [None, 0, 4])
def test_a_claim_written_after_its_cells_is_told_on(tmp_path, cells):
    make_study(
        tmp_path,
        {(512,): values(BETTER)},
        changes={"claim": claim(finding())}
        | ({} if cells is None else {"claim_after_cells": cells}),
    )
    said = "as it stands now, after 4 of its 6 cells had been trained."
    assert (said in parse(read_report(tmp_path).html).all("main")[0].text()) == (cells == 4)


def test_claims_are_not_decided_by_force(tmp_path):
    make_claims(tmp_path, finding())
    with pytest.raises(UsageError, match="claims are decided without --force"):
        read_report(tmp_path, force=True)


def test_a_card_shows_the_numbers_of_every_outcome(tmp_path):
    make_claims(tmp_path, finding(), finding("lower", "parameters"))
    facts = {
        one.name: one
        for one in claims_page(claim_results(studies_in(tmp_path)), "runs").cards[0].facts
    }
    assert list(facts) == ["1 of 6 holds", "1 of 6 fails: opposite", "1 of 6 open", "3 of 6 hold"]
    assert facts["1 of 6 holds"].value == "-0.0417"
    detail = facts["1 of 6 holds"].detail
    assert detail.startswith("95 % interval [-0.0606, -0.0227]; ")
    assert detail.endswith("; test nats per word, tied - untied; vocabulary 512")
    assert facts["3 of 6 hold"].value == "-976"


def test_a_card_says_what_is_missing_and_what_would_settle_it(tmp_path):
    make_claims(tmp_path, finding(), finding(rates="each-best"))
    (card,) = claims_page(claim_results(studies_in(tmp_path)), "runs").cards
    assert card.sentence == (
        "3 of 6 not run: no search was made for the best rate of untied. "
        "Measured on kjv, 3,840 tokens a cell, width 16, 1 layer, 3 seeds."
    )
    ((name, text),) = [one for one in card.points if "2048" in one[0]]
    assert name == "test nats per word, tied - untied, vocabulary 2048:"
    assert text.startswith("to bring the half-width") and text.endswith("every arm at every point.")


def test_several_findings_of_one_outcome_are_a_range(tmp_path):
    points = {(512,): values(BETTER), (1024,): values([2 * one for one in BETTER])}
    make_study(tmp_path, points, changes={"claim": claim(finding())})
    (card,) = claims_page(claim_results(studies_in(tmp_path)), "runs").cards
    (fact,) = card.facts
    assert (fact.name, fact.value) == ("2 of 2 hold", "-0.0833 to -0.0417")
    assert fact.detail.startswith("95 % intervals within [-0.1213, -0.0227]; ")


def test_long_texts_of_a_table_may_wrap_and_short_ones_do_not(tmp_path):
    make_claims(tmp_path, finding())
    cells = parse(read_report(tmp_path).html).all("td")
    classes = {one.text(): one.attributes.get("class") for one in cells}
    assert classes["test nats per word, tied - untied"] == "text long"
    assert classes["Tying helps."] == "text"


def test_every_measure_has_a_chart_of_its_own(tmp_path):
    make_claims(
        tmp_path, finding(), finding("lower", "bits_per_byte"), finding("lower", "gap_nats")
    )
    names = {name.partition(".")[0] for name in read_report(tmp_path).pictures}
    assert names == {f"claim-3-{one}" for one in ("nats-per-word", "bits-per-byte", "gap-nats")}


def test_a_claim_on_a_known_source_shows_the_excess_and_checks_the_instrument(tmp_path):
    one = finding("higher", "nats_per_token", at={"irreversibility": 1.0, "depth": 0})
    make_chain_study(tmp_path, changes={"claim": claim(one, number=5)})
    report = read_report(tmp_path)
    assert {f"claim-5-excess-1-1.{kind}" for kind in ("svg", "png", "vl.json")} <= set(
        report.pictures
    )
    main = parse(report.html).all("main")[0]
    text = main.text()
    assert "Excess nats per token along irreversibility" in text
    assert "can the untied model be the source?" in text and "0.60 %" in text
    assert "at most 2 % at 3 of 3 points" in text


def test_models_that_are_counted_stand_in_a_table(tmp_path):
    big = {"name": "big", "vocab_size": 10, "d_model": 4, "untied_total": 100, "saving": 40}
    make_claims(tmp_path, finding(), counted=[big])
    assert "40.0 %" in parse(read_report(tmp_path).html).all("main")[0].text()


def test_published_models_stand_in_a_table_beside_them(tmp_path):
    make_claims(tmp_path, finding(), published=[published(name="<i>big</i>")])
    html = read_report(tmp_path).html
    text = parse(html).all("main")[0].text()
    for part in ("Published models, for claim 3", "<i>big</i>", "untied", "40.0 %"):
        assert part in text
    assert "<i>big" not in html


def test_the_words_of_a_claim_are_text(tmp_path):
    make_claims(tmp_path, finding(name="<b>bold</b>"), sentence="<script>alert(1)</script>")
    html = read_report(tmp_path).html
    assert "<script>alert" not in html and "<b>bold" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_it_is_written_beside_its_studies(tmp_path):
    make_claims(tmp_path, finding())
    page, pictures = write_report(tmp_path)
    assert page == tmp_path / "report.html" and page.is_file()
    assert {one.parent for one in pictures} == {tmp_path / "plots"}


def test_a_folder_without_a_claim_is_refused(tmp_path):
    make_study(tmp_path, {(512,): values(BETTER)})
    with pytest.raises(RunFolderError, match="holds no study that makes a claim"):
        read_report(tmp_path)


def test_the_probes_behind_a_claim_stand_below_it(tmp_path):
    make_claims(tmp_path, finding())
    write(tmp_path / "tiny-00000000" / "probes.json", make_probes())
    text = parse(read_report(tmp_path).html).all("main")[0].text()
    assert "Which untied matrix the tied one of sizes resembles" in text
    assert "Agreement across seeds of sizes" in text


def test_a_chart_names_the_matrix_where_findings_differ_in_it(tmp_path):
    findings = [finding("higher", "linear_cka", matrix=one) for one in ("input", "output")]
    make_claims(tmp_path, *findings)
    for run in tmp_path.glob("tiny-*"):
        write(run / "probes.json", make_probes())
    page = claims_page(claim_results(studies_in(tmp_path)), "claims")
    (chart,) = page.charts()
    assert "vs untied input, vocabulary 512:" in chart.description
    assert "vs untied output, vocabulary 512:" in chart.description
    assert "95 % jackknife intervals" in chart.caption and "paired" not in chart.caption
    text = parse(read_report(tmp_path).html).all("main")[0].text()
    assert "differences by seed are the jackknife's values" in text


def test_a_chart_names_the_arms_alone_where_findings_differ_in_nothing_else(tmp_path):
    findings = [
        finding("higher", "linear_cka", matrix=one, at={"vocabulary": 512})
        for one in ("input", "output")
    ]
    make_claims(tmp_path, *findings)
    write(tmp_path / "tiny-00000000" / "probes.json", make_probes())
    (chart,) = claims_page(claim_results(studies_in(tmp_path)), "claims").charts()
    assert "tied - untied input:" in chart.description
    assert "vocabulary 512" not in chart.description
