import json

import pytest

from tests.analysis.fake_runs import BATCH_STEPS, NATS_PER_WORD, diverge, make_run
from tyro_cli.analysis.records import load_run
from tyro_cli.errors import DamagedRecord
from tyro_cli.reporting.curve_charts import curve_charts
from tyro_cli.reporting.curves import MOST_POINTS, Curve, mean_curve, read_curves
from tyro_cli.reporting.views import run_view


def test_the_curves_are_those_that_were_recorded(run_folder):
    curves = read_curves(load_run(run_folder))
    assert [(one.arm, one.seed) for one in curves] == [
        (arm, seed) for arm in ("untied", "tied") for seed in (0, 1, 2)
    ]
    assert curves[0].train == tuple((step, 4.0 - step / 100) for step in BATCH_STEPS)
    assert [step for step, _ in curves[0].valid] == list(BATCH_STEPS)


def test_a_long_record_is_averaged_over_windows_that_all_cells_share(tmp_path):
    folder = make_run(tmp_path)
    lines = [{"kind": "train", "step": step, "loss_nats": float(step)} for step in range(1, 601)]
    for seed in (0, 1):
        path = folder / "tied" / f"seed-{seed}" / "metrics.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines[: 600 - 300 * seed]))
    curves = {(one.arm, one.seed): one.train for one in read_curves(load_run(folder))}
    assert len(curves["tied", 0]) == MOST_POINTS
    assert curves["tied", 0][0] == (10, 5.5)
    assert curves["tied", 1] == curves["tied", 0][:30]


def test_a_mean_is_over_the_steps_that_all_have():
    assert mean_curve([((1, 2.0), (2, 4.0)), ((2, 6.0), (3, 1.0))]) == ((2, 5.0),)
    assert mean_curve([]) == ()


def test_a_diverged_cell_keeps_its_curve_and_counts_in_no_mean(tmp_path):
    def edit(record):
        if (record["arm"], record["seed"]) == ("tied", 1):
            diverge(record)

    run = load_run(make_run(tmp_path, edit=edit))
    valid, _train = curve_charts(run_view(run), read_curves(run))
    assert "Not done, so in no mean: tied seed 1" in valid.caption
    assert valid.data.rows[0]["tied seed 1"] == pytest.approx(3.9)


def test_a_run_without_records_of_training_has_no_curves(tmp_path):
    folder = make_run(tmp_path)
    for path in folder.rglob("metrics.jsonl"):
        path.unlink()
    run = load_run(folder)
    assert read_curves(run) == ()
    assert curve_charts(run_view(run), ()) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"kind": "train", "step": 80, "loss_nats": "4"}, "line 7: loss_nats: '4'"),
        ({"kind": "train", "step": -1, "loss_nats": 4.0}, "line 7: step: -1"),
        ({"kind": "evaluation", "step": True, "valid_nats_per_token": 4.0}, "line 7: step: True"),
        ({"kind": "evaluation", "step": 80}, "line 7: valid_nats_per_token: None"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, problem):
    folder = make_run(tmp_path, nats_per_word={c: NATS_PER_WORD[c] for c in NATS_PER_WORD})
    path = folder / "tied" / "seed-2" / "metrics.jsonl"
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(DamagedRecord) as caught:
        read_curves(load_run(folder))
    assert str(path) in caught.value.message
    assert problem in caught.value.message


def test_lines_of_another_kind_are_passed_over(tmp_path):
    folder = make_run(tmp_path)
    path = folder / "tied" / "seed-2" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": ["train"]}\n{"note": 1}\n')
    assert len(read_curves(load_run(folder))) == 6


def curve(seed, points, *, finished=True):
    return Curve("tied", seed, finished, (), tuple(points))


def shown(chart):
    return [
        row["y"]
        for layer in chart.narrow["layer"]
        if layer["mark"]["type"] == "line"
        for row in layer["data"]["values"]
    ]


def test_the_first_descent_does_not_flatten_what_comes_after(run_folder):
    view = run_view(load_run(run_folder))
    curves = [curve(seed, [(1, 9.0), (50, 4.2), (100, 4.0 + seed / 10)]) for seed in (0, 1)]
    (chart,) = curve_charts(view, curves)
    assert max(shown(chart)) == 4.2
    assert "are in the table only" in chart.caption
    assert chart.data.rows[0]["tied seed 0"] == 9.0


def test_a_curve_that_explodes_does_not_flatten_the_others(run_folder):
    view = run_view(load_run(run_folder))
    points = [(30, 5.0), (50, 4.2), (100, 4.0)]
    curves = [curve(0, points), curve(1, [(10, 5.0), (50, 900.0)], finished=False)]
    (chart,) = curve_charts(view, curves)
    assert max(shown(chart)) == 5.0
    assert chart.data.rows[1]["tied seed 1"] == 900.0
