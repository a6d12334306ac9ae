"""Where the numbers come from: configuration, signatures, versions, hardware and commands.

Invariant: read from the run's own files and shown as they are. The manifest's free parts are
untrusted and of any shape, so they are flattened to lines of text, never interpreted; a part that
is missing is left out.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.formats import Split
from tyro_cli.analysis.perplexity_tables import SCORE_COLUMNS, SPLITS
from tyro_cli.analysis.records import RunRecords, flattened
from tyro_cli.reporting.contents import Block, CodeBlock, Section, TableBlock
from tyro_cli.reporting.views import RunView
from tyro_cli.storage.files import read_json
from tyro_cli.storage.system import open_regular, storage_errors

MOST_FILE_BYTES = 64 * 2**10
"""Longest configuration file that a page shows: far above any written by hand."""

MOST_ROWS = 200
PARTS = ("created", "device", "precision", "threads", "hardware", "versions", "git", "data")


def configuration_section(view: RunView) -> Section:
    """Return the settings of every arm, with those that differ marked, and the experiment file."""
    settings = {
        arm.name: dict(_in_words(view.run.manifest.arms[arm.name].settings)) for arm in view.arms
    }
    paths = list(dict.fromkeys(path for one in settings.values() for path in one))
    differing = [path for path in paths if len({one.get(path) for one in settings.values()}) > 1]
    ordered = [*differing, *(path for path in paths if path not in differing)]
    rows: list[Row] = [
        {
            "setting": path,
            **{f"value {arm}": one.get(path, "not set") for arm, one in settings.items()},
        }
        for path in ordered
    ]
    table = Table(
        "settings",
        "Settings by arm; those that differ come first",
        (
            Column("setting", "setting"),
            *(Column(f"value {arm}", arm) for arm in settings),
        ),
        tuple(rows),
    )
    blocks: list[Block] = [TableBlock(table, frozenset(range(len(differing))), folded=True)]
    text = text_of(view.run.folder / "experiment.yaml")
    if text is not None:
        blocks.append(CodeBlock("experiment.yaml", text, folded=True))
    return Section("configuration", "Configuration", tuple(blocks))


def provenance_section(run: RunRecords) -> Section:
    """Return signatures, versions, hardware and data of a run, and the commands that repeat it."""
    manifest = read_raw_manifest(run.folder)
    name = folder_name(run.folder)
    commands = [
        *recorded_command(manifest),
        f"wtie runs verify runs/{name}",
        f"wtie compare runs/{name}",
        f"wtie report runs/{name}",
    ]
    return Section(
        "provenance",
        "Provenance",
        (
            CodeBlock("Commands that reproduce this page", "\n".join(commands)),
            TableBlock(signature_table(run), folded=True),
            TableBlock(provenance_table(run, manifest), folded=True),
        ),
    )


def signature_table(run: RunRecords) -> Table:
    """Return how each metric was computed, with the number of cells that say so."""
    counts: dict[tuple[Split, str, str], int] = {}
    for result in run.results():
        for split in SPLITS:
            for column in SCORE_COLUMNS:
                signature = result.signature(split, column.key) or "none is recorded"
                key = (split, column.key, signature)
                counts[key] = counts.get(key, 0) + 1
    rows: list[Row] = [
        {"split": split, "metric": metric, "cells": count, "signature": signature}
        for (split, metric, signature), count in counts.items()
    ]
    return Table(
        "signatures",
        "Signatures: how each metric was computed",
        (
            Column("split", "split"),
            Column("metric", "metric"),
            Column("cells", "cells", "integer"),
            Column("signature", "signature"),
        ),
        tuple(rows),
    )


def provenance_table(run: RunRecords, manifest: Mapping[str, Any]) -> Table:
    """Return what the manifest says of machine, versions and data."""
    pairs = [("run", run.manifest.run_id)]
    for part in PARTS:
        if manifest.get(part) is not None:
            pairs += _in_words({part: manifest[part]})
    rows: list[Row] = [{"what": what, "value": value} for what, value in pairs[:MOST_ROWS]]
    return Table(
        "provenance",
        "Versions, hardware and data",
        (Column("what", "what"), Column("value", "value")),
        tuple(rows),
    )


def recorded_command(manifest: Mapping[str, Any]) -> list[str]:
    """Return the command that started the run or study, as it would be typed; none if unknown."""
    command = manifest.get("command")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        return []
    return [shlex.join(command)]


def _in_words(value: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (dotted path, value in words) of every value in nested mappings."""
    return [(path, "not set" if one is None else str(one)) for path, one in flattened(value)]


def folder_name(folder: Path) -> str:
    """Return the name of a folder, however it was written, in characters that a page can hold."""
    return os.fsencode(folder.resolve().name).decode("utf-8", "backslashreplace")


def read_raw_manifest(folder: Path) -> Mapping[str, Any]:
    """Return the manifest with the parts that no record class reads; it was checked before."""
    content = read_json(folder / "manifest.json")
    return content if isinstance(content, dict) else {}


def text_of(path: Path) -> str | None:
    """Return a file as text, or None where it is not there or too long to show."""
    with storage_errors(path, "read"):
        if not path.is_file() or path.stat().st_size > MOST_FILE_BYTES:
            return None
    with storage_errors(path, "read"), open_regular(path, MOST_FILE_BYTES) as file:
        return file.read(MOST_FILE_BYTES).decode("utf-8", "replace").strip("\n")
