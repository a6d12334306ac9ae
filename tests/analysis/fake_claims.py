"""Claims about hand-made studies, and the differences of three seeds that decide them."""

from tests.analysis.fake_runs import values
from tests.analysis.fake_studies import make_study
from tyro_cli.analysis.claims import claim_results
from tyro_cli.analysis.studies import load_study_records

BETTER = [-0.04, -0.05, -0.035]  # p .0110
WORSE = [0.04, 0.05, 0.035]
SMALL = [-0.002, 0.001, 0.002]  # within 1 %: p .0026
SMALLER = [-0.0021, 0.0009, 0.0019]
SMALL_BETTER = [-0.005, -0.0055, -0.0052]
NOISY = [-0.02, 0.03, 0.01]


def only(items):
    """Return the one item there is."""
    (item,) = items
    return item


def finding(expected="lower", measure="nats_per_word", **keys):
    return {
        "name": "tied loses less",
        "measure": measure,
        "arm": "tied",
        "baseline": "untied",
        "matrix": None,
        "at": {},
        "minus": None,
        "rates": "shared",
        "expected": expected,
        "margin": None,
    } | keys


AGREES = [
    finding("higher", measure, matrix=matrix)
    for measure in ("neighbour_overlap", "linear_cka")
    for matrix in ("input", "output")
]


def published(**keys):
    """Return the record of an untied model of 100 parameters, 80 of them in two matrices."""
    return {
        "name": "big",
        "vocab_size": 10,
        "d_model": 4,
        "untied_total": 100,
        "saving": 40,
        "tied": False,
        "embedding_and_head": 80,
    } | keys


def claim(*findings, **keys):
    return {
        "number": 3,
        "sentence": "Tying helps.",
        "depends_on": "the vocabulary",
        "findings": list(findings),
        "counted": [],
    } | keys


def result_of(tmp_path, points, *findings, **changes):
    """Return the one claim of a study with these differences at its levels."""
    folder = make_study(
        tmp_path,
        {(level,): values(one) for level, one in points.items()},
        changes={"claim": claim(*findings)},
        **changes,
    )
    return only(claim_results([load_study_records(folder)]))
