"""The exact texts of tables from hand-made records, kept in `tests/golden/tables/`.

`python -m tests.analysis.golden_tables` writes them anew. They change only with a line under
**Numbers** in the CHANGELOG.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.analysis.fake_runs import NATS_PER_WORD, diverge, make_run, values
from tests.analysis.fake_searches import add_search, shared_values
from tests.analysis.fake_studies import make_study, tables_of
from tyro_cli.analysis.records import load_run
from tyro_cli.analysis.rendering import RENDERERS, to_plain
from tyro_cli.analysis.studies import load_study_records
from tyro_cli.analysis.tables import all_tables

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "tables"


def golden_texts(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of every golden file.

    A whole run in every format, one with all that can be missing as Markdown, one with a search,
    and a study of both kinds of points.
    """
    (root / "whole").mkdir()
    for name, table in all_tables(load_run(make_run(root / "whole"))).items():
        for ending, render in RENDERERS.items():
            yield f"{name}.{ending}", render(table)
        yield f"{name}.txt", to_plain(table, 100)
    (root / "gaps").mkdir()
    values = {key: value for key, value in NATS_PER_WORD.items() if key != ("untied", 2)}

    def edit(record):
        if (record["arm"], record["seed"]) == ("tied", 1):
            diverge(record)

    run = load_run(make_run(root / "gaps", nats_per_word=values, edit=edit))
    for name, table in all_tables(run).items():
        yield f"gaps-{name}.md", RENDERERS["md"](table)
    (root / "search").mkdir()
    searched = add_search(make_run(root / "search", nats_per_word=shared_values()))
    tables = all_tables(load_run(searched))
    yield "search-contrasts.md", RENDERERS["md"](tables["contrasts"])
    for name in ("tuned", "trials"):
        for ending, render in RENDERERS.items():
            yield f"search-{name}.{ending}", render(tables[name])
        yield f"search-{name}.txt", to_plain(tables[name], 100)
    (root / "study").mkdir()
    for name, table in tables_of(load_study_records(golden_study(root / "study"))).items():
        for ending, render in RENDERERS.items():
            yield f"study-{name}.{ending}", render(table)
        yield f"study-{name}.txt", to_plain(table, 100)


def golden_study(root: Path) -> Path:
    """Write a study with a crossover, a change of sign, a diverged cell and points to be done."""

    def edit(record):
        if (record["arm"], record["seed"]) == ("tied", 1):
            diverge(record)

    strong, weak = [-0.04, -0.05, -0.045], [-0.02, 0.03, 0.01]
    points = {
        (512, 0.1): values(strong),
        (512, 1.0): values([-0.002, 0.001, -0.002]),
        (1024, 0.1): values([0.04, 0.05, 0.045]),
        (1024, 1.0): values(weak),
        (2048, 0.1): values(strong),
        (2048, 1.0): {},
        (4096, 0.1): values(strong),
    }
    folder = make_study(root, points, factors=("vocabulary", "data"), edits={(2048, 0.1): edit})
    (root / "tiny-00000006").rename(root / "elsewhere")
    return folder


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name, text in golden_texts(Path(temporary)):
            (FOLDER / name).write_text(text)
