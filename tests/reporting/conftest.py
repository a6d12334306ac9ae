"""A run and a study of fixed records, and their pages, drawn once for all tests of a module."""

import pytest

from tests.analysis.fake_runs import make_run
from tests.reporting.fake_grids import make_grid
from tyro_cli.reporting.folders import read_report


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory):
    return make_grid(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def run_report(run_folder):
    return read_report(run_folder)


@pytest.fixture(scope="module")
def study_report(study_folder):
    return read_report(study_folder)
