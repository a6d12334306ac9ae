"""The probes of a study: the rows of its runs, with the levels of their points."""

from tests.analysis.fake_probes import make_probes
from tests.analysis.fake_runs import values, write
from tests.analysis.fake_studies import make_study, tables_of
from tyro_cli.analysis.probe_tables import agreement_table, resemblance_table
from tyro_cli.analysis.probes import ProbeRecord
from tyro_cli.analysis.studies import load_study_records
from tyro_cli.analysis.study_probe_tables import study_probe_tables

DIFFERENCES = [-0.02, -0.03, -0.012]


def study_with(tmp_path, *records):
    """Read a study of a point a record, whose run has that record of probes or none."""
    points = {(512 * 2**number,): values(DIFFERENCES) for number in range(len(records))}
    folder = make_study(tmp_path, points)
    for number, record in enumerate(records):
        if record is not None:
            write(tmp_path / f"tiny-{number:08x}" / "probes.json", record)
    return load_study_records(folder)


def test_every_probed_point_has_the_rows_of_its_run(tmp_path):
    few, many = make_probes(3), make_probes(4)
    tables = tables_of(study_with(tmp_path, few, None, many))
    for name, of_run in (("agreement", agreement_table), ("resemblance", resemblance_table)):
        expected = [
            {"level vocabulary": level} | row
            for level, record in (("512", few), ("2048", many))
            for row in of_run(ProbeRecord.model_validate(record)).rows
        ]
        assert list(tables[name].rows) == expected
        assert tables[name].columns[0].key == "level vocabulary"
        assert len(set(tables[name].notes)) == len(tables[name].notes)


def test_a_study_that_was_not_probed_has_no_such_table(tmp_path):
    assert study_probe_tables(study_with(tmp_path, None)) == []


def test_what_one_seed_cannot_say_has_no_table(tmp_path):
    names = [table.name for table in study_probe_tables(study_with(tmp_path, make_probes(1)))]
    assert "agreement" not in names
