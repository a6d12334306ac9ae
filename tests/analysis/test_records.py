import math
import zipfile

import numpy as np
import pytest

from tests.analysis.fake_runs import diverge, edit_json, make_run
from tyro_cli.analysis.arm_notes import initial_deviation
from tyro_cli.analysis.formats import LedgerRecord, exp_or_none
from tyro_cli.analysis.records import differing_settings, load_run
from tyro_cli.config.schema import ModelConfig
from tyro_cli.errors import DamagedRecord, NothingMatched, RunFolderError


def test_a_run_is_read_in_the_order_of_arms_and_seeds(tmp_path):
    run = load_run(make_run(tmp_path))
    assert run.arms == ("untied", "tied")
    assert list(run.cells) == [(arm, seed) for arm in ("untied", "tied") for seed in (0, 1, 2)]
    assert all(cell.status == "done" for cell in run.cells.values())
    assert run.cells["tied", 1].result.scores("test", "best").nats_per_word == pytest.approx(4.47)
    assert run.cells["tied", 1].result.scores("valid", "last").nats_per_word == pytest.approx(
        4.47 * 1.02 * 1.005
    )
    assert run.cells["tied", 1].performance.train_seconds == 13.5
    assert run.seeds_of("tied") == (0, 1, 2)


def test_planned_cells_without_a_result_are_unfinished(tmp_path):
    plans = [{"seeds": [0, 2], "arms": ["untied", "tied"], "after_results": False}]
    run = load_run(make_run(tmp_path, nats_per_word={("untied", 0): 4.5}, plans=plans))
    statuses = {key: cell.status for key, cell in run.cells.items()}
    assert statuses == {
        ("untied", 0): "done",
        ("untied", 2): "unfinished",
        ("tied", 0): "unfinished",
        ("tied", 2): "unfinished",
    }
    assert [result.arm for result in run.results()] == ["untied"]


def test_a_diverged_cell_has_a_result_without_scores(tmp_path):
    def edit(record):
        if record["arm"] == "tied" and record["seed"] == 1:
            diverge(record)

    run = load_run(make_run(tmp_path, edit=edit))
    assert run.cells["tied", 1].status == "diverged"
    assert run.cells["tied", 1].result.diverged.step == 33
    assert len(list(run.results())) == 5


def test_results_that_were_never_planned_are_no_part_of_the_run(tmp_path):
    plans = [{"seeds": [0], "arms": ["untied", "tied"], "after_results": False}]
    assert set(load_run(make_run(tmp_path, plans=plans)).cells) == {("untied", 0), ("tied", 0)}


def test_keys_of_the_future_are_ignored(tmp_path):
    folder = make_run(tmp_path, edit=lambda record: record.update(more={"x": 1}))
    edit_json(folder / "manifest.json", lambda manifest: manifest.update(more=[1]))
    load_run(folder)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunFolderError, match=r"is not a run folder: it has no manifest\.json"):
        load_run(tmp_path)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        load_run(tmp_path / "absent")


def put(path, value):
    """Return a change that replaces what stands at a dotted path; `DELETE` removes it."""
    *parents, last = path.split(".")

    def change(record):
        for part in parents:
            record = record[int(part) if isinstance(record, list) else part]
        if value == "DELETE":
            del record[last]
        else:
            record[int(last) if isinstance(record, list) else last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("seed", "DELETE", "seed: field required"),
        ("seed", 1, "it is the record of untied, seed 1, in the folder of untied, seed 0"),
        ("arm", "tied", "it is the record of tied, seed 0, in the folder of untied, seed 0"),
        ("seed", "0", "seed: input should be a valid integer"),
        ("seed", True, "seed: input should be a valid integer"),
        ("status", "fine", "status: input should be 'done' or 'diverged'"),
        ("status", "diverged", "status is diverged, but `diverged` does not say where"),
        ("format", 2, "format: 2, but this version of wtie reads format 1"),
        ("format", "1", "format: input should be 1"),
        ("vocab_size", 62, "vocab_size: 62, but manifest.json says 61"),
        ("vocab_size", 0, "vocab_size: input should be greater than or equal to 1"),
        (
            "settings.model.tying",
            "in-out",
            "settings.model.tying: 'in-out', but manifest.json says",
        ),
        ("settings", [], "settings: input should be a valid dictionary"),
        ("parameters.unique_storage", 5327, "parameters.unique_storage: 5,327, but the ledger"),
        ("parameters.total", 4352, "parameters.total: 4,352, but the ledger of the arm untied"),
        ("evaluations", None, "`evaluations` lacks the best or the last"),
        ("evaluations.last", None, "`evaluations` lacks the best or the last"),
        ("evaluations.best.test", "DELETE", "test is scored at one of the checkpoints alone"),
        ("evaluations.best.test.nats", "2250", "evaluations.best.test.nats: input should be a val"),
        ("evaluations.best.test.nats", -1.0, "evaluations.best.test.nats: input should be greater"),
        ("evaluations.best.test.tokens", 0, "evaluations.best.test.tokens: input should be great"),
        (
            "evaluations.best.test.nats_per_word",
            4.3,
            "evaluations.best.test: nats_per_word is 4.3, but its sums give 4.5",
        ),
        ("evaluations.best.test.words", 0, "but its sums give None"),
        ("evaluations.last.valid.token_perplexity", 1.5, "token_perplexity is 1.5, but its sums"),
        ("signatures.test", "DELETE", "`signatures.test` is missing"),
        ("pairing.batches.0", [20], "pairing.batches.0.1: field required"),
        ("pairing.batches.0.1", "../x", "pairing.batches.0.1: string should match pattern"),
        ("pairing.initial_parameters", {}, "pairing.initial_parameters: dictionary should have"),
        ("training.learning_rate", None, "training.learning_rate: input should be a valid number"),
    ],
)
def test_a_tampered_result_names_the_file_and_the_field(tmp_path, path, value, says):
    folder = make_run(tmp_path)
    edit_json(folder / "untied/seed-0/result.json", put(path, value))
    with pytest.raises(DamagedRecord) as caught:
        load_run(folder)
    assert says in caught.value.message
    assert str(folder / "untied/seed-0/result.json") in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("baseline", "both", "baseline 'both' is not one of the arms"),
        ("plans.0.arms", ["untied", "x"], "plans name the arm 'x', which is not one of the arms"),
        ("plans.0.seeds", [0, -1], "plans.0.seeds.1: input should be greater than or equal to 0"),
        ("margin", 0, "margin: input should be greater than 0"),
        ("arms", {}, "arms: dictionary should have at least 1 item"),
        ("arms.tied.ledger.total", 4000, "rows hold 4,352 parameters, but total is 4,000"),
        ("arms.tied.ledger.rows.0.parameters", "DELETE", "arms.tied.ledger.rows.0.parameters: fi"),
    ],
)
def test_a_tampered_manifest_names_the_field(tmp_path, path, value, says):
    folder = make_run(tmp_path)
    edit_json(folder / "manifest.json", put(path, value))
    with pytest.raises(DamagedRecord) as caught:
        load_run(folder)
    assert says in caught.value.message
    assert "manifest.json" in caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1, "seed": NaN}', "\x00"])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    folder = make_run(tmp_path)
    (folder / "tied/seed-2/result.json").write_text(text)
    with pytest.raises(DamagedRecord, match=r"tied/seed-2/result\.json"):
        load_run(folder)


def test_a_number_that_overflows_is_refused(tmp_path):
    folder = make_run(tmp_path)
    path = folder / "tied/seed-2/result.json"
    path.write_text(path.read_text().replace('"learning_rate": 0.002', '"learning_rate": 1e999'))
    with pytest.raises(DamagedRecord, match=r"result\.json"):
        load_run(folder)


def test_an_arm_cannot_lead_out_of_the_run_folder(tmp_path):
    folder = make_run(tmp_path)

    def rename(manifest):
        manifest["arms"]["../../secret"] = manifest["arms"].pop("tied")
        manifest["plans"][0]["arms"] = ["untied", "../../secret"]

    edit_json(folder / "manifest.json", rename)
    with pytest.raises(DamagedRecord, match=r"manifest\.json: arms\.\.\./\.\./secret"):
        load_run(folder)


def test_a_cell_cannot_be_a_link_to_elsewhere(tmp_path):
    folder = make_run(tmp_path)
    (folder / "tied/seed-0").rename(tmp_path / "elsewhere")
    (folder / "tied/seed-0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedRecord, match="symbolic link"):
        load_run(folder)


def test_an_unknown_baseline_lists_the_arms(tmp_path):
    run = load_run(make_run(tmp_path))
    assert run.baseline() == "untied"
    assert run.baseline("tied") == "tied"
    with pytest.raises(NothingMatched, match="has no arm 'tide'") as caught:
        run.baseline("tide")
    assert caught.value.remedy == "Its arms are: untied, tied."


def test_document_scores_are_read_and_add_up(tmp_path):
    cell = load_run(make_run(tmp_path)).cells["tied", 0]
    scores = cell.document_scores("test")
    assert scores.nats.sum() == pytest.approx(4.46 * 500)
    assert scores.counts("words").tolist() == [100, 50, 200, 150]
    assert scores.counts("tokens").tolist() == [150, 75, 300, 225]


def replace_array(path, **arrays):
    with np.load(path) as content:
        kept = dict(content)
    np.savez(path, **(kept | arrays))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"test_nats": np.array([1.0, 2.0, 3.0, 4.0])}, "test_nats sums to 10.0, but result.json"),
        ({"test_words": np.array([100, 50, 200, 151])}, "test_words sums to 501"),
        ({"test_words": np.array([250, 250])}, "test_words: one number for each document"),
        ({"test_nats": np.full((4, 1), 1.0)}, "test_nats: one number for each document"),
        ({"test_nats": np.array([1.0, 2.0, 3.0, math.nan])}, "below zero or not finite"),
        ({"test_words": np.array([600, -100, 0, 0])}, "below zero or not finite"),
        ({"test_tokens": np.array(["a", "b", "c", "d"])}, "test_tokens: <U1 is not the expected"),
        ({"test_nats": np.array([{}, {}, {}, {}], dtype=object)}, "it cannot be read as arrays"),
    ],
)
def test_tampered_document_scores_are_refused(tmp_path, arrays, says):
    cell = load_run(make_run(tmp_path)).cells["tied", 0]
    replace_array(cell.folder / "documents.npz", **arrays)
    with pytest.raises(DamagedRecord) as caught:
        cell.document_scores("test")
    assert says in caught.value.message
    assert str(cell.folder / "documents.npz") in caught.value.message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04N.", b"\x93NUMPY\x01\x00"])
def test_a_file_that_holds_no_arrays_is_refused(tmp_path, content):
    cell = load_run(make_run(tmp_path)).cells["tied", 0]
    (cell.folder / "documents.npz").write_bytes(content)
    with pytest.raises(DamagedRecord, match="cannot be read as arrays"):
        cell.document_scores("test")


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    cell = load_run(make_run(tmp_path)).cells["tied", 0]
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000000,), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(cell.folder / "documents.npz", "w") as archive:
        array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        archive.writestr("test_nats.npy", array)
    with pytest.raises(DamagedRecord, match="cannot be read as arrays"):
        cell.document_scores("test")


def zipped(path, content, *, flags=0, method=zipfile.ZIP_STORED):
    """Write an archive of one member, and what both of its headers say of it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("test_nats.npy", content)
    written = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = written.index(signature) + place
        written[start : start + 4] = flags.to_bytes(2, "little") + method.to_bytes(2, "little")
    path.write_bytes(written)


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "test_nats: it is no array"),
        ({"flags": 1}, "cannot be read as arrays.*encrypted"),
        ({"method": 99}, "cannot be read as arrays.*compression"),
    ],
)
def test_a_member_that_is_no_array_is_refused(tmp_path, headers, says):
    cell = load_run(make_run(tmp_path)).cells["tied", 0]
    zipped(cell.folder / "documents.npz", b"no array at all", **headers)
    with pytest.raises(DamagedRecord, match=says):
        cell.document_scores("test")


def test_a_missing_array_or_file_is_named(tmp_path):
    cell = load_run(make_run(tmp_path)).cells["tied", 0]
    np.savez(cell.folder / "documents.npz", valid_nats=np.zeros(2))
    with pytest.raises(DamagedRecord, match="test_nats: the array is missing"):
        cell.document_scores("test")
    (cell.folder / "documents.npz").unlink()
    assert not cell.has_document_scores
    with pytest.raises(DamagedRecord, match="the file is missing"):
        cell.document_scores("test")


def test_settings_are_compared_value_by_value():
    first = {"a": {"b": 1, "c": {"d": None}}, "e": [1]}
    second = {"a": {"b": 2, "c": {"d": None}}, "e": [1], "f": {}}
    assert differing_settings(first, second) == ("a.b", "f")
    assert differing_settings({"a": {"b": 1}}, {"a": 3}) == ("a", "a.b")


def test_a_perplexity_too_large_for_a_float_is_not_available():
    assert exp_or_none(709.0) == math.exp(709)
    assert exp_or_none(710.0) is None


@pytest.mark.parametrize(
    ("d_model", "configured"), [(64, None), (128, None), (512, None), (64, 0.1)]
)
def test_the_initial_deviation_is_that_of_the_configuration(d_model, configured):
    model = {"d_model": d_model, "num_layers": 1, "num_heads": 2, "embedding_std": configured}
    ledger = LedgerRecord.model_construct(d_model=d_model)
    expected = ModelConfig.model_validate(model).resolved_embedding_std
    assert initial_deviation(model, ledger) == expected
