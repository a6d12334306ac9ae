"""Write the published numbers: every block between markers, from the records committed beside it.

    python docs/results/build.py            write the blocks of README.md and docs/results/*.md
    python docs/results/build.py --check    exit 1 where a block is not what the records say
    python docs/results/build.py --add RUN  copy a run's small records to docs/results/records/

A block is `<!-- records: NAME [TABLE ...] -->` up to `<!-- end -->`, where NAME is a folder of
records and each TABLE one of parameters, perplexity, contrasts, performance, verdict, provenance.
No number in those pages is written by hand.
"""

import re
import shutil
import sys
from pathlib import Path

from tyro_cli.analysis.records import RunRecords, load_run
from tyro_cli.analysis.rendering import to_markdown
from tyro_cli.analysis.tables import all_tables
from tyro_cli.analysis.verdicts import verdict_of_run
from tyro_cli.storage.files import read_json

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "results" / "records"
SMALL = ("manifest.json", "result.json", "performance.json", "documents.npz")
BLOCK = re.compile(r"(<!-- records: ([\w.-]+)([\w ]*) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Return the pages that may hold blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs" / "results").glob("*.md"))]


def verdict_lines(run: RunRecords) -> str:
    """Return every verdict as a quoted sentence."""
    return "\n".join(f"> **{v.text}.** {v.sentence}" for v in verdict_of_run(run).values())


def provenance(run: RunRecords) -> str:
    """Return command, hardware, versions and hours, from the manifest and the cells."""
    manifest = read_json(run.folder / "manifest.json")
    hardware, versions, git = manifest["hardware"], manifest["versions"], manifest["git"] or {}
    performances = [cell.performance for cell in run.cells.values() if cell.performance]
    cell_hours = sum(
        (p.train_seconds or 0) + (p.evaluation_seconds or 0) + (p.final_evaluation_seconds or 0)
        for p in performances
    )
    memory_gib = (hardware["memory_bytes"] or 0) / 2**30
    lines = [
        f"command: `{' '.join(manifest['command'])}`",
        f"run: `{run.folder.name}`, id `{manifest['run_id'][:16]}`, seeds "
        f"{sorted({seed for _, seed in run.cells})}, {manifest['precision']} products on "
        f"{manifest['device']}, {manifest['threads']} thread(s) a cell",
        f"hardware: {hardware['processor']}, {hardware['cores']} cores, {memory_gib:.0f} GiB, "
        f"{hardware['system']}",
        f"versions: {', '.join(f'{name} {value}' for name, value in sorted(versions.items()))}",
        f"cost: {cell_hours / 3600:.2f} hours of cells (training and evaluation), "
        f"started {manifest['created']}, commit `{git.get('commit', 'unknown')[:12]}`",
    ]
    return "\n".join(f"- {line}" for line in lines)


def block(name: str, parts: list[str]) -> str:
    """Return the text of one block."""
    run = load_run(RECORDS / name)
    tables = all_tables(run)
    texts = []
    for part in parts or [*tables, "verdict", "provenance"]:
        if part == "verdict":
            texts.append(verdict_lines(run))
        elif part == "provenance":
            texts.append(provenance(run))
        else:
            texts.append(f"#{to_markdown(tables[part]).strip()}")
    return "\n\n".join(texts) + "\n"


def built(page: str) -> str:
    """Return a page with every block written anew."""
    return BLOCK.sub(lambda m: m[1] + block(m[2], m[3].split()) + m[4], page)


def add(run: Path) -> None:
    """Copy what is small of a run; tensors, logs and texts stay behind."""
    target = RECORDS / load_run(run).manifest.name
    small = [run / "manifest.json", *sorted(run.glob("*/seed-*/*"))]
    for path in small:
        if path.name in SMALL:
            copy = target / path.relative_to(run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    print(f"{target.relative_to(ROOT)}: {sum(1 for p in target.rglob('*') if p.is_file())} files")


def main(arguments: list[str]) -> int:
    """Do what the arguments say; return the exit code."""
    if arguments[:1] == ["--add"]:
        for run in arguments[1:]:
            add(Path(run))
        return 0
    stale = []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        new = built(text)
        if new != text:
            stale.append(str(path.relative_to(ROOT)))
            if arguments != ["--check"]:
                path.write_text(new, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'differs from its records' if arguments else 'written'}")
    return 1 if stale and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
