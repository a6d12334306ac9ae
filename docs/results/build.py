"""Write the published numbers: every block between markers, from the records committed beside it.

    python docs/results/build.py               write the blocks of README.md and docs/results/*.md
    python docs/results/build.py --check       exit 1 where a block is not what the records say
    python docs/results/build.py --add FOLDER  copy the small records of a run, or of a study and
                                               its runs, to docs/results/records/
    python docs/results/build.py --keep FOLDER the same of a run or study that is not finished, to
                                               docs/results/unfinished/

A block is `<!-- records: NAME [PART ...] -->` up to `<!-- end -->`, where NAME is a run or a study
of the records, a run of a study by its folder's name, or `claims`, all studies of the records that
make a claim. Each PART is the name of one of its tables, or verdict, provenance, or chart:NAME, a
picture of its report. No number in a block is written by hand.

The program takes a cell whose small records are there as done. So an unfinished study goes on
elsewhere, on what is kept of it, after `cp -r docs/results/unfinished/. FOLDER`, with the same
command and `--out FOLDER`. No page shows it before it is complete and was added.
"""

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tyro_cli.analysis.claim_tables import claim_tables, measure_in_words
from tyro_cli.analysis.claims import ClaimResult, claim_results
from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.formats import Performance, Split
from tyro_cli.analysis.probe_tables import probe_tables
from tyro_cli.analysis.probes import load_probes
from tyro_cli.analysis.records import RunRecords, load_run, parse_record
from tyro_cli.analysis.rendering import to_markdown
from tyro_cli.analysis.search_tables import every_cell
from tyro_cli.analysis.studies import (
    is_study,
    load_study_records,
    studies_in,
    study_contrasts,
)
from tyro_cli.analysis.study_performance import study_performance_table
from tyro_cli.analysis.study_tables import study_tables
from tyro_cli.analysis.tables import all_tables, processors_of, trained_on
from tyro_cli.analysis.verdicts import verdict_of_run
from tyro_cli.reporting.claims_page import claims_page
from tyro_cli.reporting.contents import Page
from tyro_cli.reporting.drawing import draw_png, draw_svg
from tyro_cli.reporting.run_page import run_page
from tyro_cli.reporting.study_page import study_page
from tyro_cli.storage.files import read_json, write_json
from tyro_cli.storage.records import read_records

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
RECORDS = RESULTS / "records"
STUDIES = RECORDS / "studies"
UNFINISHED = RESULTS / "unfinished"
PLOTS = RESULTS / "plots"
SMALL = (
    "manifest.json",
    "study.yaml",
    "probes.json",
    "result.json",
    "performance.json",
    "documents.npz",
)
METRICS = "metrics.jsonl"
"""Of which the evaluations are copied: the curve on valid."""
SIGNED: dict[str, tuple[Split, str]] = {
    "nats_per_word": ("test", "nats_per_word"),
    "nats_per_token": ("test", "nats_per_token"),
    "bits_per_byte": ("test", "bits_per_byte"),
    "valid_nats_per_token": ("valid", "nats_per_token"),
    "gap_nats": ("valid", "nats_per_token"),
    "last_gap_nats": ("valid", "nats_per_token"),
}
"""Where the signature stands of what a finding or a contrast reads."""
CLAIMS = "claims"
BLOCK = re.compile(r"(<!-- records: ([\w.-]+)([\w:. -]*) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Published:
    """What a page can show of a run or a study.

    Attributes:
        name: Its folder of records.
        tables: By name.
        sentences: Every verdict, with where it holds.
        page: Makes its report, for the charts; a run whose cells are not trained has none.
        folder: With the manifest of the command that made it.
        runs: Every run it consists of.
    """

    name: str
    tables: Mapping[str, Table]
    sentences: tuple[str, ...]
    page: Callable[[], Page]
    folder: Path
    runs: tuple[RunRecords, ...]


def pages() -> list[Path]:
    """Return the pages that may hold blocks."""
    return [ROOT / "README.md", *sorted(RESULTS.glob("*.md"))]


@cache
def published(name: str) -> Published:
    """Read the records of a run, of the study of that name, or of all claims."""
    if name == CLAIMS:
        return _claims()
    folder = next((one / name for one in (RECORDS, STUDIES) if (one / name).is_dir()), None)
    if folder is None:
        return _study(name)
    run = load_run(folder)
    sentences = tuple(f"**{one.text}.** {one.sentence}" for one in verdict_of_run(run).values())
    tables = all_tables(run)
    if (run.folder / "probes.json").is_file():
        tables |= probe_tables(load_probes(run.folder))
    return Published(name, tables, sentences, lambda: run_page(run), run.folder, (run,))


def _study(name: str) -> Published:
    found = [path.parent for path in STUDIES.glob(f"{name}-????????/study.yaml")]
    if len(found) != 1:
        raise SystemExit(f"{RECORDS}: {len(found)} runs or studies are named {name}")
    study = load_study_records(found[0])
    contrasts = study_contrasts(study)
    several_arms = len(study.manifest.arms) > 2
    sentences = tuple(
        f"- {f'{one.contrast.arm}, ' * several_arms}{one.where}: **{one.verdict.text}.**"
        for one in contrasts
    )
    runs = tuple(point.run for point in study.points)
    performance = study_performance_table(study)
    tables = study_tables(study, contrasts) | {performance.name: performance}
    return Published(name, tables, sentences, lambda: study_page(study), study.folder, runs)


def _claims() -> Published:
    claims = claim_results(studies_in(STUDIES))
    sentences = tuple(
        sentence
        for one in claims
        for sentence in (
            f"- Claim {one.claim.number}. {one.claim.sentence} **{one.word}.**",
            *_what_would_tell(one),
        )
    )
    tables = claim_tables(claims) | {"hours": hours_table(claims)}
    return Published(
        CLAIMS, tables, sentences, lambda: claims_page(claims, RECORDS.name), STUDIES, ()
    )


def _what_would_tell(claim: ClaimResult) -> list[str]:
    """Return for each open finding of a claim what would settle it."""
    return [
        f"  - {measure_in_words(one)}, {one.where}: {one.plan.in_full}"
        for one in claim.findings
        if one.plan is not None
    ]


def hours_table(claims: Sequence[ClaimResult]) -> Table:
    """Return what the cells of each study took, and what would settle a finding that is open.

    A cell that two studies share counts in both.
    """
    rows: list[Row] = []
    for one in claims:
        for study in one.studies:
            runs = [point.run for point in study.points]
            cells = [cell for run in runs for cell in every_cell(run)]
            rows.append(
                {
                    "claim": one.claim.number,
                    "study": study.manifest.name,
                    "cells": len(cells),
                    "hours": sum(map(hours_of, runs)),
                    "processor": ", ".join(
                        _distinct(
                            name for run in runs for name in processors_of(run, every_cell(run))
                        )
                    ),
                }
            )
    return Table(
        "hours",
        "Hours of the studies",
        (
            Column("claim", "claim", "integer"),
            Column("study", "study"),
            Column("cells", "cells", "integer"),
            Column("hours", "hours of cells", "number", 2),
            Column("processor", "processor"),
        ),
        tuple(rows),
        (
            "Training and evaluation as each cell measured them. Cells that ran at once count "
            "each, so two cores took half as long.",
            *(
                f"To settle the {measure_in_words(finding)}, {finding.where}, as the note under "
                f"the findings of claim {one.claim.number} says: about {finding.plan.hours:.1f} "
                "more hours of cells, of every arm at every point."
                for one in claims
                for finding in one.findings
                if finding.plan is not None and finding.plan.hours is not None
            ),
        ),
    )


def hours_of(run: RunRecords) -> float:
    """Return what the cells of a run took, as they measured it; those of a search included."""
    times = (parse_record(Performance, path) for path in run.folder.rglob("performance.json"))
    return sum(one.seconds for one in times) / 3600


def provenance(what: Published) -> str:
    """Return command, hardware, versions and hours, from the manifests and the cells."""
    command = read_json(what.folder / "manifest.json").get("command")
    manifests = [read_json(run.folder / "manifest.json") for run in what.runs]
    lines = [f"command: `{' '.join(command or manifests[0]['command'])}`"]
    if len(manifests) == 1:
        name, run_id = what.runs[0].folder.name, manifests[0]["run_id"][:16]
        lines.append(f"run: `{name}`, id `{run_id}`, {_how(what.runs[0], manifests[0])}")
    else:
        hows = Counter(map(_how, what.runs, manifests))
        where = (what.folder / "manifest.json").relative_to(RESULTS)
        lines += [f"runs: {count}, {how}; their ids: `{where}`" for how, count in hows.items()]
    lines += _distinct(_machine(manifest) for manifest in manifests)
    lines += trained_on(cell for run in what.runs for cell in every_cell(run))
    if is_study(what.folder):  # the tables of a run have its signatures
        lines += [f"scored as: `{one}`" for one in _signatures(what)]
    cell_hours = sum(map(hours_of, what.runs))
    commits = _distinct((one["git"] or {}).get("commit", "unknown")[:12] for one in manifests)
    lines.append(
        f"cost: {cell_hours:.2f} hours of cells (training and evaluation; cells that ran at "
        "once count each), "
        f"started {min(one['created'] for one in manifests)}, commit `{'`, `'.join(commits)}`"
    )
    return "\n".join(f"- {line}" for line in lines)


def _signatures(what: Published) -> list[str]:
    """Return how the losses were computed that a study's findings or contrasts read."""
    claim = load_study_records(what.folder).manifest.claim
    measures = {one.measure for one in claim.findings} if claim else set()
    read = [SIGNED[one] for one in SIGNED if one in measures] or [SIGNED["nats_per_word"]]
    results = [
        cell.result for run in what.runs for cell in run.cells.values() if cell.result is not None
    ]
    found = _distinct(one.signature(*place) for place in read for one in results)
    scores = [one.quality["test"].signatures["bleu"] for one in results if one.quality]
    return [one for one in found if one] + _distinct(f"BLEU {one}" for one in scores)


def _how(run: RunRecords, manifest: Mapping[str, dict]) -> str:
    return (
        f"seeds {sorted({seed for _, seed in run.cells})}, {manifest['precision']} products on "
        f"{manifest['device']}, {manifest['threads']} thread(s) a cell"
    )


def _machine(manifest: Mapping[str, dict]) -> str:
    hardware, versions = manifest["hardware"], manifest["versions"]
    return (
        f"hardware: {hardware['processor']}, {hardware['cores']} cores, "
        f"{(hardware['memory_bytes'] or 0) / 2**30:.0f} GiB, {hardware['system']}\n- versions: "
        + ", ".join(f"{name} {value}" for name, value in sorted(versions.items()))
    )


def _distinct(texts: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def chart(what: Published, name: str, *, draw: bool) -> str:
    """Return the line that shows a chart, and draw its picture."""
    charts = {one.name: one for one in what.page().charts()}
    if name not in charts:
        raise SystemExit(f"{what.name} has no chart {name!r}: one of {', '.join(charts)}")
    found, picture = charts[name], PLOTS / f"{what.name}-{name}.png"
    if draw:
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(draw_png(draw_svg(found.wide or found.narrow)))
    elif not picture.is_file():
        raise SystemExit(f"{picture} is missing: run make results")
    description = found.description.replace("[", "(").replace("]", ")").replace("\n", " ")
    return f"![{description}](plots/{picture.name})\n\n*{found.title}.* {found.caption}"


def block(name: str, parts: list[str], *, draw: bool) -> str:
    """Return the text of one block."""
    what = published(name)
    texts = []
    for part in parts or [*what.tables, "verdict", "provenance"]:
        if part == "verdict":
            texts.append("\n".join(f"> {sentence}" for sentence in what.sentences))
        elif part == "provenance":
            texts.append(provenance(what))
        elif part.startswith("chart:"):
            texts.append(chart(what, part.removeprefix("chart:"), draw=draw))
        else:
            texts.append(f"#{to_markdown(what.tables[part]).strip()}")
    return "\n\n".join(texts) + "\n"


def built(page: str, *, draw: bool) -> str:
    """Return a page with every block written anew."""
    return BLOCK.sub(lambda m: m[1] + block(m[2], m[3].split(), draw=draw) + m[4], page)


def add(folder: Path) -> None:
    """Copy what is small of a run or a study; tensors, logs and texts stay behind."""
    copied = []
    for path in _folders(folder):
        if is_study(folder):  # what another study has of the same run stays
            copied.append(_copy(path, STUDIES / path.name))
        else:  # an earlier run of that name may have had other cells
            target = RECORDS / load_run(folder).manifest.name
            new = _copy(path, target.with_name(f"{target.name}.new"))
            shutil.rmtree(target, ignore_errors=True)
            copied.append(new.rename(target))
        if (UNFINISHED / path.name).is_dir():
            shutil.rmtree(UNFINISHED / path.name)
    _say(copied)


def keep(folder: Path) -> None:
    """Copy the same of a run or a study that is not finished."""
    begun = [path for path in _folders(folder) if any(path.glob("**/seed-*/result.json"))]
    _say([_copy(path, UNFINISHED / path.name) for path in dict.fromkeys([folder, *begun])])


def _folders(folder: Path) -> list[Path]:
    if not is_study(folder):
        return [folder]
    return [folder, *(point.run.folder for point in load_study_records(folder).points)]


def _say(copied: list[Path]) -> None:
    for target in copied:
        files = sum(one.is_file() for one in target.rglob("*"))
        print(f"{target.relative_to(ROOT)}: {files} files")


def _copy(folder: Path, target: Path) -> Path:
    finished = sorted(one.parent for one in folder.glob("**/seed-*/result.json"))
    for path in [path for one in (folder, *finished) for path in sorted(one.iterdir())]:
        if path.name in SMALL and path.is_file():
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            if path.suffix == ".json":  # what lies beside the repository is named from within it
                text = copy.read_text(encoding="utf-8")
                copy.write_text(text.replace(f"{ROOT.parent}/", "../"), encoding="utf-8")
            if path.name == "manifest.json":
                _forget_where(copy)
    for curve in [one / METRICS for one in finished if (one / METRICS).is_file()]:
        evaluations = [one for one in read_records(curve) if one["kind"] == "evaluation"]
        lines = [json.dumps(one, sort_keys=True, separators=(",", ":")) for one in evaluations]
        copy = target / curve.relative_to(folder)
        copy.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return target


def _forget_where(manifest: Path) -> None:
    """Take `--out FOLDER` out of the recorded command: it says where, and nothing of what."""
    record = read_json(manifest)
    command = record["command"]
    if "--out" in command:
        place = command.index("--out")
        record["command"] = command[:place] + command[place + 2 :]
        write_json(manifest, record)


def main(arguments: list[str]) -> int:
    """Do what the arguments say; return the exit code."""
    if arguments[:1] in (["--add"], ["--keep"]):
        for folder in arguments[1:]:
            (add if arguments[0] == "--add" else keep)(Path(folder))
        return 0
    stale = []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        new = built(text, draw=arguments != ["--check"])
        if new != text:
            stale.append(str(path.relative_to(ROOT)))
            if arguments != ["--check"]:
                path.write_text(new, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'differs from its records' if arguments else 'written'}")
    return 1 if stale and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
