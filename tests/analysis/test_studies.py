"""Studies from hand-made records: families, sign_changes, what is missing, and what is refused."""

import pytest

from tests.analysis.fake_runs import ARM_CHANGES, MANIFEST_PATH, diverge, edit_json, sha256, values
from tests.analysis.fake_studies import make_study, tables_of, write_shard
from tests.analysis.test_contrasts import only, without_words
from tyro_cli.analysis.perplexity_tables import perplexity_table
from tyro_cli.analysis.statistics import paired_t_test
from tyro_cli.analysis.studies import (
    check_shards,
    is_study,
    load_study_records,
    sign_changes,
    study_contrasts,
)
from tyro_cli.analysis.tables import parameter_table
from tyro_cli.errors import DamagedRecord, NothingMatched, RunFolderError

LEVELS = (512, 1024, 2048, 4096)
TIED = [-0.04, -0.05, -0.035]  # p .0110
UNTIED = [0.04, 0.05, 0.035]
WEAK = [-0.02, -0.03, -0.012]  # p .0603
SMALL = [-0.002, 0.001, 0.002]  # equivalent: p .0026
NOISY = [-0.02, 0.03, 0.01]


def study_on(tmp_path, *differences, **changes):
    """Read a study of one factor with these differences at its levels."""
    points = {(level,): values(one) for level, one in zip(LEVELS, differences, strict=False)}
    return load_study_records(make_study(tmp_path, points, **changes))


def texts(study):
    return [one.verdict.text for one in study_contrasts(study)]


def sentences(study):
    return tuple(one.sentence for one in sign_changes(study, study_contrasts(study)))


# families


def test_p_values_are_adjusted_over_the_whole_study(tmp_path):
    ps = [paired_t_test(one) for one in (TIED, WEAK, NOISY)]
    contrasts = study_contrasts(study_on(tmp_path, TIED, WEAK, NOISY))
    assert [one.levels for one in contrasts] == [{"vocabulary": v} for v in (512, 1024, 2048)]
    assert [one.contrast.t_p for one in contrasts] == pytest.approx(ps)
    assert ps[0] < ps[1] < ps[2]
    assert [one.family.better for one in contrasts] == pytest.approx(
        [3 * ps[0], 2 * ps[1], max(2 * ps[1], ps[2])]
    )
    assert {one.family.size for one in contrasts} == {3}
    assert "In a family of 3 contrasts, adjusted by Holm: p .0330 that" in (
        contrasts[0].verdict.sentence
    )
    assert "the intervals are not adjusted" in contrasts[0].verdict.sentence


def test_better_needs_the_adjusted_p(tmp_path):
    # .0110 is adjusted to .0330 beside two contrasts without effect, to .0552 beside four.
    assert texts(study_on(tmp_path, TIED, NOISY, NOISY))[0] == "tied better"
    (tmp_path / "more").mkdir()
    points = {(level,): values(TIED if level == 0 else NOISY) for level in range(5)}
    study = load_study_records(make_study(tmp_path / "more", points))
    first = study_contrasts(study)[0]
    assert (first.verdict.kind, first.verdict.winner) == ("cannot-tell", None)
    assert first.contrast.t_p < 0.05 < first.family.better
    assert first.contrast.interval(0.95).excludes_zero(), "shown unadjusted"


def test_equivalent_needs_its_own_adjusted_p(tmp_path):
    nearly = [0.0008, -0.0043, 0.0053]  # 90 % [-0.0075, +0.0087]
    alone = study_contrasts(study_on(tmp_path, nearly))
    assert alone[0].verdict.text == "equivalent within 1 %"
    assert 0.025 < alone[0].equivalence_p < 0.05
    (tmp_path / "two").mkdir()
    study = study_on(tmp_path / "two", nearly, NOISY)
    two = study_contrasts(study)
    assert two[0].verdict.text == "cannot tell"
    assert two[0].family.equivalent == pytest.approx(2 * two[0].equivalence_p)


def test_the_two_questions_are_two_families(tmp_path):
    contrasts = study_contrasts(study_on(tmp_path, TIED, SMALL))
    assert [one.verdict.text for one in contrasts] == ["tied better", "equivalent within 1 %"]
    assert contrasts[0].family.better == pytest.approx(2 * contrasts[0].contrast.t_p)
    assert contrasts[1].family.equivalent == pytest.approx(2 * contrasts[1].equivalence_p)
    assert contrasts[1].family.better == pytest.approx(contrasts[1].contrast.t_p)


def test_a_family_by_factor_holds_the_points_of_one_level(tmp_path):
    points = {
        (512, 0.1): values(TIED),
        (512, 1.0): values(WEAK),
        (1024, 0.1): values(NOISY),
        (1024, 1.0): values(SMALL),
    }
    changes = {"family": "vocabulary"}
    folder = make_study(tmp_path, points, factors=("vocabulary", "data"), changes=changes)
    contrasts = study_contrasts(load_study_records(folder))
    assert [one.family.name for one in contrasts] == [
        "the family of vocabulary 512",
        "the family of vocabulary 512",
        "the family of vocabulary 1024",
        "the family of vocabulary 1024",
    ]
    assert {one.family.size for one in contrasts} == {2}
    assert contrasts[0].family.better == pytest.approx(2 * contrasts[0].contrast.t_p)
    assert "In the family of vocabulary 512 of 2 contrasts" in contrasts[0].verdict.sentence
    edit_json(folder / MANIFEST_PATH, lambda record: record.update(family="data"))
    by_data = study_contrasts(load_study_records(folder))
    assert [one.family.name[-8:] for one in by_data] == ["data 0.1", "data 1.0"] * 2
    edit_json(folder / MANIFEST_PATH, lambda record: record.update(family="all"))
    whole = study_contrasts(load_study_records(folder))
    assert whole[0].family.better == pytest.approx(4 * contrasts[0].contrast.t_p)


def test_every_arm_of_a_point_is_in_the_family(tmp_path):
    arms = ARM_CHANGES | {"other": {"model": {"tying": "in-out", "tied_role": "embedding"}}}
    point = values(TIED) | values(NOISY, "other")
    folder = make_study(tmp_path, {(512,): point, (1024,): point}, arms=arms)
    contrasts = study_contrasts(load_study_records(folder))
    assert [(one.contrast.arm, one.levels["vocabulary"]) for one in contrasts] == [
        ("tied", 512),
        ("tied", 1024),
        ("other", 512),
        ("other", 1024),
    ]
    assert {one.family.size for one in contrasts} == {4}
    assert contrasts[0].family.better == pytest.approx(4 * contrasts[0].contrast.t_p)


@pytest.mark.parametrize("nothing", [{}, {("untied", 0): 4.5, ("tied", 0): 4.46}])
def test_a_contrast_without_a_p_counts_as_one(tmp_path, nothing):
    """Nothing is trained there yet, or one pair, which has no interval."""
    folder = make_study(tmp_path, {(512,): values(TIED), (1024,): nothing})
    contrasts = study_contrasts(load_study_records(folder))
    assert contrasts[1].contrast.t_p is None
    assert contrasts[1].equivalence_p is None
    assert contrasts[1].family.better == contrasts[1].family.equivalent == 1.0
    assert contrasts[0].family.size == 2
    assert contrasts[0].family.better == pytest.approx(2 * contrasts[0].contrast.t_p)
    assert contrasts[1].verdict.winner is None


def test_a_contrast_with_a_diverged_pair_counts_as_one_whatever_the_others_say(tmp_path):
    edits = {(1024,): only("tied", 2, diverge)}
    study = study_on(tmp_path, TIED, [-0.04, -0.0401, -0.04], edits=edits)
    contrasts = study_contrasts(study)
    assert contrasts[1].verdict.text == "withheld: 1 of 3 pairs diverged"
    assert contrasts[1].contrast.t_p < 0.001
    assert contrasts[1].family.better == 1.0
    assert contrasts[0].family.better == pytest.approx(2 * contrasts[0].contrast.t_p)


def test_a_point_without_a_run_counts_as_one(tmp_path):
    folder = make_study(tmp_path, {(v,): values(TIED) for v in (512, 1024, 2048)})
    (tmp_path / "tiny-00000001").rename(tmp_path / "elsewhere")
    study = load_study_records(folder)
    assert study.missing == ("tiny-00000001",)
    assert [point.levels["vocabulary"] for point in study.points] == [512, 2048]
    contrasts = study_contrasts(study)
    assert {one.family.size for one in contrasts} == {3}
    assert contrasts[0].family.better == pytest.approx(3 * contrasts[0].contrast.t_p)
    for table in tables_of(study).values():
        assert table.notes[-1] == "Points without a run folder yet: 1."
        assert len({row["level vocabulary"] for row in table.rows}) == 2
    edit_json(folder / MANIFEST_PATH, lambda record: record.update(family="vocabulary"))
    by_level = study_contrasts(load_study_records(folder))
    assert {one.family.size for one in by_level} == {1}


# crossovers


def test_a_crossover_stands_between_two_adjusted_better(tmp_path):
    study = study_on(tmp_path, TIED, NOISY, UNTIED)
    assert texts(study) == ["tied better", "cannot tell", "untied better"]
    assert sentences(study) == (
        "Crossover of tied along vocabulary: tied better at 512, untied better at 2048.",
    )


def test_a_change_of_sign_without_two_verdicts_is_not_established(tmp_path):
    study = study_on(tmp_path, TIED, NOISY)
    assert sentences(study) == (
        "Tied along vocabulary: the sign of the mean changes between 512 (-0.0417) and 1024 "
        "(+0.0067), not established.",
    )


def test_a_verdict_that_the_adjustment_takes_away_establishes_no_crossover(tmp_path):
    points = {(level,): values(NOISY) for level in range(5)}
    points |= {(0,): values(TIED), (4,): values(UNTIED)}
    study = load_study_records(make_study(tmp_path, points))
    assert {text for text in texts(study)} == {"cannot tell"}
    assert "Crossover" not in " ".join(sentences(study))
    assert "between 0 (-0.0417) and 1 (+0.0067), not established." in sentences(study)[0]


def test_without_a_change_of_sign_nothing_is_said(tmp_path):
    study = study_on(tmp_path, TIED, WEAK)
    assert sentences(study) == ()
    notes = tables_of(study)["contrasts"].notes
    assert notes[0] == "No contrast changes its sign along vocabulary."


@pytest.mark.parametrize("between", [[0.0, 0.0, 0.0], []])
def test_a_sign_changes_across_a_point_without_one(tmp_path, between):
    study = study_on(tmp_path, WEAK, between, NOISY)
    assert sentences(study) == (
        "Tied along vocabulary: the sign of the mean changes between 512 (-0.0207) and 2048 "
        "(+0.0067), not established.",
    )


def test_nothing_is_said_of_signs_that_are_not_known_yet(tmp_path):
    study = study_on(tmp_path, TIED, [])
    assert sentences(study) == ()
    assert not any("its sign" in note for note in tables_of(study)["contrasts"].notes)


def test_each_line_of_the_grid_has_its_own_crossover(tmp_path):
    points = {
        (512, 0.1): values(TIED),
        (512, 1.0): values(TIED),
        (1024, 0.1): values(UNTIED),
        (1024, 1.0): values(TIED),
    }
    folder = make_study(tmp_path, points, factors=("vocabulary", "data"))
    assert sentences(load_study_records(folder)) == (
        "Crossover of tied along vocabulary at data 0.1: tied better at 512, "
        "untied better at 1024.",
        "Crossover of tied along data at vocabulary 1024: untied better at 0.1, "
        "tied better at 1.0.",
    )


def test_levels_are_ordered_as_in_the_study_not_as_trained(tmp_path):
    points = {(2048,): values(UNTIED), (512,): values(TIED)}
    folder = make_study(tmp_path, points)
    edit_json(
        folder / MANIFEST_PATH,
        lambda record: record["factors"]["vocabulary"].update(levels=[512, 1024, 2048]),
    )
    assert sentences(load_study_records(folder)) == (
        "Crossover of tied along vocabulary: tied better at 512, untied better at 2048.",
    )


def test_one_pair_a_point_has_an_interval_over_documents(tmp_path):
    folder = make_study(tmp_path, {(512,): values([-0.04])}, seeds=(0,))
    (one,) = study_contrasts(load_study_records(folder))
    assert one.verdict.kind == "one-pair"
    assert "Over documents (these two fixed checkpoints, 4 documents)" in one.verdict.sentence


# what enters


def test_only_the_arms_and_seeds_of_the_study_enter(tmp_path):
    """The run holds an arm and seeds more, added when results were there."""
    arms = ARM_CHANGES | {"other": {"model": {"tying": "in-out", "tied_role": "embedding"}}}
    more = values([*TIED, 0.5, 0.5]) | values([9.0] * 5, "other")
    plans = [
        {"seeds": [0, 1, 2], "arms": ["untied", "tied"], "after_results": False},
        {"seeds": [3, 4], "arms": list(arms), "after_results": True},
        {"seeds": [0, 1, 2], "arms": ["other"], "after_results": True},
    ]
    folder = make_study(
        tmp_path, {(512,): more}, arms=arms, plans=plans, study_arms=("untied", "tied")
    )
    study = load_study_records(folder)
    (one,) = study_contrasts(study)
    assert one.contrast.seeds == one.contrast.planned_seeds == (0, 1, 2)
    assert one.contrast.differences == pytest.approx(TIED)
    assert one.verdict.text == "tied better"
    assert not one.verdict.extended, "the seeds that were added are not the study's"
    tables = tables_of(study)
    assert [row["arm"] for row in tables["results"].rows] == ["untied", "tied"]
    assert {row["cells"] for row in tables["results"].rows} == {"3/3"}
    run = study.points[0].run
    assert run.arms == ("untied", "tied")
    assert {row["arm"] for row in perplexity_table(run).rows} == {"untied", "tied"}
    assert set(parameter_table(run).rows[0]) == {
        "quantity",
        "value untied",
        "share untied",
        "value tied",
        "share tied",
        "difference tied",
    }


def test_seeds_that_the_study_added_after_looking_are_said(tmp_path):
    plans = [
        {"seeds": [0, 1], "arms": ["untied", "tied"], "after_results": False},
        {"seeds": [2], "arms": ["untied", "tied"], "after_results": True},
    ]
    study = study_on(tmp_path, TIED, NOISY, plans=plans)
    assert all(one.verdict.extended for one in study_contrasts(study))
    assert "Extended after looking: 2 of 2 contrasts." in tables_of(study)["contrasts"].notes


def test_tokens_decide_where_words_are_not_available(tmp_path):
    study = study_on(tmp_path, TIED, edits={(512,): without_words})
    assert study_contrasts(study)[0].verdict.metric == "nats_per_token"


# what is refused


def test_a_folder_without_a_study_is_refused(tmp_path):
    folder = make_study(tmp_path, {(512,): values(TIED)})
    assert is_study(folder)
    assert not is_study(tmp_path / "tiny-00000000")
    with pytest.raises(RunFolderError, match=r"is not a study folder: it has no study\.yaml"):
        load_study_records(tmp_path / "tiny-00000000")


def test_a_study_without_any_run_says_where_they_lie(tmp_path):
    folder = make_study(tmp_path, {(512,): values(TIED)})
    (tmp_path / "tiny-00000000").rename(tmp_path / "elsewhere")
    with pytest.raises(NothingMatched, match="none of its 1 runs is there") as caught:
        load_study_records(folder)
    assert "tiny-00000000" in caught.value.remedy


def test_a_run_folder_that_holds_another_run_is_refused(tmp_path):
    folder = make_study(tmp_path, {(512,): values(TIED), (1024,): values(TIED)})
    other = tmp_path / "tiny-00000001" / MANIFEST_PATH
    edit_json(other, lambda record: record.update(run_id=sha256("another")))
    with pytest.raises(RunFolderError, match="tiny-00000001 holds another run than the study"):
        load_study_records(folder)


@pytest.mark.parametrize(
    ("seeds", "arms", "first"),
    [([0, 1], ["untied", "tied"], "tied, seed 2"), ([0, 1, 2], ["untied"], "tied, seed 0")],
)
def test_a_run_that_was_not_planned_for_the_study_is_refused(tmp_path, seeds, arms, first):
    """As when a run folder of the same content is copied over the study's: nothing is counted."""
    plans = [{"seeds": seeds, "arms": arms, "after_results": False}]
    run_arms = {arm: ARM_CHANGES[arm] for arm in arms}
    nats = {key: value for key, value in values(TIED[: len(seeds)]).items() if key[0] in arms}
    folder = make_study(
        tmp_path, {(512,): nats}, arms=run_arms, plans=plans, study_arms=("untied", "tied")
    )
    with pytest.raises(RunFolderError, match=f"it has no {first}") as caught:
        load_study_records(folder)
    assert "same wtie sweep command again" in caught.value.remedy


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: r.update(format=2), "format: 2, but this version of wtie reads format 1"),
        (lambda r: r.pop("points"), "points: field required"),
        (lambda r: r.update(points=[]), "points: list should have at least 1 item"),
        (lambda r: r.update(family="data"), "family 'data' is neither all nor one of the factors"),
        (lambda r: r.update(baseline="other"), "baseline 'other' is not one of the arms"),
        (lambda r: r["points"][0].update(levels={}), r"points\[0\].levels does not name every"),
        (
            lambda r: r["points"][0]["levels"].update(vocabulary=3),
            r"points\[0\].levels.vocabulary is no level of the factor",
        ),
        (lambda r: r["points"].append(r["points"][0]), "two points have the same levels"),
        (lambda r: r.update(margin=0), "margin: input should be greater than 0"),
        (lambda r: r.update(seeds=["0"]), "seeds.0: input should be a valid integer"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, change, what):
    folder = make_study(tmp_path, {(512,): values(TIED)})
    edit_json(folder / MANIFEST_PATH, change)
    with pytest.raises(DamagedRecord, match=what) as caught:
        load_study_records(folder)
    assert str(folder / MANIFEST_PATH) in caught.value.message


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 1000])
def test_a_manifest_that_is_no_record_is_refused(tmp_path, text):
    folder = make_study(tmp_path, {(512,): values(TIED)})
    (folder / MANIFEST_PATH).write_text(text)
    with pytest.raises(DamagedRecord, match=r"manifest\.json"):
        load_study_records(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc", "", ".hidden", "a/b"])
def test_a_manifest_cannot_lead_out_of_the_runs_folder(tmp_path, name):
    folder = make_study(tmp_path, {(512,): values(TIED)})
    edit_json(folder / MANIFEST_PATH, lambda record: record["points"][0].update(run=name))
    with pytest.raises(RunFolderError, match=r"manifest\.json: the name below"):
        load_study_records(folder)


# shards


def test_shards_of_one_study_that_share_no_pair_merge(tmp_path):
    folder = make_study(tmp_path, {(512,): values(TIED)})
    write_shard(folder, 1, 2, [("tiny-00000000", 0), ("tiny-00000000", 2)])
    write_shard(folder, 2, 2, [("tiny-00000000", 1)])
    assert [one.shard for one in check_shards(folder, sha256("study"))] == [1, 2]
    assert len(load_study_records(folder).points) == 1


def test_shards_that_overlap_are_refused(tmp_path):
    folder = make_study(tmp_path, {(512,): values(TIED)})
    write_shard(folder, 1, 2, [("tiny-00000000", 0), ("tiny-00000000", 2)])
    write_shard(folder, 2, 3, [("tiny-00000000", 1), ("tiny-00000000", 2)])
    with pytest.raises(RunFolderError) as caught:
        load_study_records(folder)
    assert (
        "shards 1-of-2 and 2-of-3 overlap: both hold tiny-00000000, seed 2 (1 pairs in all)"
        in caught.value.message
    )
    assert "the same n in every --shard i/n" in caught.value.remedy


def test_a_shard_of_another_study_is_refused(tmp_path):
    folder = make_study(tmp_path, {(512,): values(TIED)})
    path = write_shard(folder, 2, 2, [("tiny-00000000", 1)], study="another")
    with pytest.raises(RunFolderError, match=r"2-of-2\.json belongs to another study") as caught:
        load_study_records(folder)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    "text", ["", "{}", '{"format": 1, "study_id": "x", "shard": 0, "shards": 2, "pairs": []}']
)
def test_a_damaged_shard_is_refused(tmp_path, text):
    folder = make_study(tmp_path, {(512,): values(TIED)})
    write_shard(folder, 1, 2, []).write_text(text)
    with pytest.raises(DamagedRecord, match=r"1-of-2\.json"):
        load_study_records(folder)
