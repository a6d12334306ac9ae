import pytest

from tests.analysis.fake_runs import BATCH_STEPS, initial_parameters, result, sha256
from tyro_cli.analysis.formats import CellResult
from tyro_cli.analysis.pairs import verify_pair


@pytest.fixture
def records():
    tied = {"model": {"tying": "in-out"}}
    return result("untied", 0, {}, 4.5), result("tied", 0, tied, 4.4)


def verified(records):
    return verify_pair(*(CellResult.model_validate(record) for record in records))


def test_arms_that_differ_in_the_tie_have_an_identical_start(records):
    proof = verified(records)
    assert proof.status == "identical start"
    assert proof.verified
    assert proof.reason == "batches equal up to step 60, 8 initial parameters equal"


def test_other_shapes_leave_the_same_data(records):
    wide = records[1]["pairing"]["initial_parameters"]["blocks.0.feed_forward.down.weight"]
    wide |= {"shape": [16, 64], "sha256": sha256("wide")}
    proof = verified(records)
    assert proof.status == "same data"
    assert proof.verified


def test_an_arm_with_more_layers_has_the_same_data_only(records):
    extra = {"shape": [16], "sha256": sha256("extra")}
    records[1]["pairing"]["initial_parameters"]["blocks.1.attention_norm.weight"] = extra
    assert verified(records).status == "same data"


def test_one_initial_parameter_that_differs_is_a_mismatch(records):
    changed = records[1]["pairing"]["initial_parameters"]["final_norm.weight"]
    changed["sha256"] = sha256("another draw")
    proof = verified(records)
    assert not proof.verified
    assert proof.reason == "initial values of final_norm.weight differ"


def test_a_three_way_tie_owns_no_source_embedding(records):
    record = records[0]["pairing"]["initial_parameters"]
    record["source_embedding.weight"] = dict(record["final_norm.weight"])
    assert verified(records).status == "identical start"


def test_a_head_both_have_must_be_equal(records):
    for record, seed in zip(records, (0, 7), strict=True):
        record["pairing"]["initial_parameters"] |= {
            "head.weight": initial_parameters(seed, "none")["head.weight"]
        }
    assert verified(records).reason == "initial values of head.weight differ"


def test_other_batches_are_a_mismatch_and_the_first_step_is_named(records):
    records[1]["pairing"]["batches"][1][1] = sha256("other data")
    records[1]["pairing"]["batches"][2][1] = sha256("other data too")
    proof = verified(records)
    assert not proof.verified
    assert proof.reason == "the batches consumed differ at step 40"


def test_early_stopping_compares_up_to_the_last_common_step(records):
    del records[1]["pairing"]["batches"][2]
    proof = verified(records)
    assert proof.status == "identical start"
    assert "up to step 40," in proof.reason


def test_a_last_step_that_only_one_recorded_is_a_mismatch(records):
    records[1]["pairing"]["batches"] = [[50, sha256("x")]]
    assert verified(records).reason == (
        "only one of them recorded the batches consumed up to step 50"
    )


def test_models_of_other_depth_are_compared_in_what_depth_does_not_scale(records):
    name = "blocks.0.feed_forward.down.weight"
    records[1]["pairing"]["initial_parameters"][name]["sha256"] = sha256("scaled")
    assert verified(records).status == "mismatch"
    records[1]["settings"]["model"]["num_layers"] += 1
    records[1]["pairing"]["initial_parameters"]["blocks.1.attention_norm.weight"] = {
        "shape": [16],
        "sha256": sha256("new"),
    }
    assert verified(records).status == "same data"
    other = "blocks.0.feed_forward.gate_up.weight"
    records[1]["pairing"]["initial_parameters"][other]["sha256"] = sha256("other")
    assert verified(records).reason == f"initial values of {other} differ"


@pytest.mark.parametrize("which", [0, 1])
def test_without_batches_there_is_no_proof(records, which):
    records[which]["pairing"]["batches"] = []
    assert verified(records).status == "mismatch"


@pytest.mark.parametrize(
    ("key", "value"), [("threads", 2), ("torch", "2.12.0"), ("precision", "bf16"), ("device", None)]
)
def test_other_numerics_are_a_mismatch(records, key, value):
    records[1]["pairing"]["fingerprint"][key] = value
    proof = verified(records)
    assert not proof.verified
    assert proof.reason.startswith(f"{key} of the machine differs: ")


def test_another_number_of_processes_is_a_mismatch_and_one_is_what_silence_means(records):
    records[0]["pairing"]["fingerprint"]["processes"] = 1
    assert verified(records).verified
    records[0]["pairing"]["fingerprint"]["processes"] = 2
    assert verified(records).reason == (
        "processes of the machine differs: 2 for untied, 1 for tied"
    )


def test_other_seeds_are_no_pair(records):
    records[1]["seed"] = 1
    assert verified(records).reason == "seeds differ: 0 and 1"


def test_the_steps_of_the_fixture_are_those_the_tests_rely_on():
    assert BATCH_STEPS == (20, 40, 60)
