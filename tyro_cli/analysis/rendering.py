"""Tables as text: Markdown, CSV, JSON, LaTeX, and aligned text for a terminal.

Invariant: byte-deterministic. Readers' formats (md, tex, plain) round and group digits; machines'
formats (csv, json) hold the numbers as they are. Text from records is escaped in every format, so a
name can neither break a table nor run a command in LaTeX.
"""

import csv
import io
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.storage.files import encode_json, write_text
from tyro_cli.storage.system import make_folder

NOT_APPLICABLE = "n/a"
TEXT_KINDS = frozenset({"text"})


def cell_text(column: Column, row: Row) -> str:
    """Return one value for readers: grouped digits, a sign where the kind asks for one.

    A value of None is `n/a`; a key that is absent is empty.
    """
    if column.key not in row:
        return ""
    value = row[column.key]
    if value is None:
        return NOT_APPLICABLE
    if column.kind == "p":
        ps = value if isinstance(value, tuple) else (value,)
        return ", ".join(p_in_words(float(p), column.digits) for p in ps)
    if isinstance(value, tuple):
        sign = "" if column.kind == "numbers" else "+"
        numbers = ", ".join(f"{number:{sign},.{_digits(column, number)}f}" for number in value)
        return f"[{numbers}]" if column.kind == "interval" else numbers
    if isinstance(value, str):
        return value
    if column.kind == "bytes":
        return bytes_in_words(value)
    specifications = {
        "integer": ",d",
        "signed_integer": "+,d",
        "number": f",.{_digits(column, value)}f",
        "shortest": "g",
        "signed": f"+,.{_digits(column, value)}f",
        "percent": f".{column.digits}%",
    }
    return f"{value:{specifications[column.kind]}}".replace("%", " %")


def _digits(column: Column, number: float) -> int:
    """Return the digits behind the point: none for a count in a column of measures."""
    return 0 if isinstance(number, int) else column.digits


def to_markdown(table: Table) -> str:
    """Return the table as Markdown: a heading, a pipe table, and its notes as a list."""
    lines = [f"## {_escape_markdown(table.title)}", ""]
    if table.rows:
        widths, header, rows = _laid_out(table, table.columns, _escape_markdown)
        lines.append("| " + " | ".join(header) + " |")
        rules = [
            "-" * width if column.kind in TEXT_KINDS else "-" * (width - 1) + ":"
            for column, width in zip(table.columns, widths, strict=True)
        ]
        lines.append("| " + " | ".join(rules) + " |")
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines.append("")
    lines += [f"- {_outside_code(note, _escape_markdown)}" for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(table: Table) -> str:
    """Return the rows as CSV with the keys as header.

    Numbers are not rounded, an interval takes two columns (`_low`, `_high`), several numbers are
    joined by semicolons, and what is absent or not applicable is empty. Notes are left out.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys: list[str] = []
    for column in table.columns:
        if column.kind == "interval":
            keys += [f"{column.key}_low", f"{column.key}_high"]
        else:
            keys.append(column.key)
    writer.writerow(keys)
    for row in table.rows:
        values: list[str] = []
        for column in table.columns:
            value = row.get(column.key)
            if column.kind == "interval":
                bounds = value if isinstance(value, tuple) else (None, None)
                values += [_raw(bound) for bound in bounds]
            else:
                values.append(_raw(value))
        writer.writerow(values)
    return text.getvalue()


def to_json(table: Table) -> str:
    """Return the table as JSON: columns, rows by key, notes; numbers are not rounded."""
    return encode_json(table_record(table))


def table_record(table: Table) -> dict[str, Any]:
    """Return the table as a JSON object; a number that is not finite becomes null."""
    return {
        "name": table.name,
        "title": table.title,
        "columns": [
            {"key": column.key, "header": column.header, "kind": column.kind}
            for column in table.columns
        ],
        "rows": [{key: _json_value(value) for key, value in row.items()} for row in table.rows],
        "notes": list(table.notes),
    }


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX `table` environment; it needs the package booktabs."""
    alignment = "".join("l" if column.kind in TEXT_KINDS else "r" for column in table.columns)
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escape_latex(table.title)}}}",
        f"\\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', table.name)}}}",
    ]
    if table.rows:
        lines += [f"\\begin{{tabular}}{{{alignment}}}", "\\toprule"]
        headers = [_escape_latex(column.header) for column in table.columns]
        lines += [" & ".join(headers) + r" \\", "\\midrule"]
        for row in table.rows:
            values = [_latex_value(column, row) for column in table.columns]
            # An opening bracket after \\ would be read as its optional argument.
            line = " & ".join(values)
            lines.append(("{}" + line if line.startswith("[") else line) + r" \\")
        lines += ["\\bottomrule", "\\end{tabular}"]
    for note in table.notes:
        text = _outside_code(note, _escape_latex, lambda code: f"\\texttt{{{_escape_latex(code)}}}")
        lines.append(f"\\par\\footnotesize {text}")
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def to_plain(table: Table, width: int = 100) -> str:
    """Return the table as aligned text that is no wider than `width`, where words allow.

    Columns that do not fit follow below, under the first columns of text again. Columns that are
    not meant for a screen are left out; notes are wrapped.
    """
    lines = [table.title]
    for columns in _fitting_columns(table, width):
        widths, header, rows = _laid_out(table, columns, on_one_line)
        rule = "  ".join("-" * column_width for column_width in widths)
        lines += ["", "  ".join(header).rstrip(), rule]
        lines += ["  ".join(row).rstrip() for row in rows]
    if table.notes:
        lines.append("")
    for note in table.notes:
        lines += textwrap.wrap(
            on_one_line(note).replace("`", ""),
            max(width, 20),
            initial_indent="- ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines).rstrip() + "\n"


RENDERERS: Mapping[str, Callable[[Table], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "json": to_json,
    "tex": to_latex,
}
"""How a table is written to a file, by the file's ending."""


def write_tables(folder: Path, tables: Mapping[str, Table]) -> tuple[Path, ...]:
    """Write tables to `tables/NAME.{md,csv,json,tex}` and return the paths.

    Args:
        folder: The folder of the run or study.
        tables: The tables by name.

    Raises:
        StorageError: A file cannot be written; each one is replaced whole or not at all.
    """
    make_folder(folder / "tables")
    paths = []
    for name, table in tables.items():
        for ending, render in RENDERERS.items():
            path = folder / "tables" / f"{name}.{ending}"
            write_text(path, render(table))
            paths.append(path)
    return tuple(paths)


def _laid_out(
    table: Table, columns: tuple[Column, ...], escape: Callable[[str], str]
) -> tuple[list[int], list[str], list[list[str]]]:
    """Return widths, and header and rows padded to them: text to the left, numbers to the right."""
    header = [escape(column.header) for column in columns]
    rows = [[escape(cell_text(column, row)) for column in columns] for row in table.rows]
    widths = [max(3, *map(len, cells)) for cells in zip(header, *rows, strict=True)]

    def padded(cells: list[str]) -> list[str]:
        return [
            cell.ljust(width) if column.kind in TEXT_KINDS else cell.rjust(width)
            for cell, column, width in zip(cells, columns, widths, strict=True)
        ]

    return widths, padded(header), [padded(row) for row in rows]


def _fitting_columns(table: Table, width: int) -> list[tuple[Column, ...]]:
    """Return groups of columns that fit the width; each starts with the table's leading text."""
    if not table.rows:
        return []
    shown = [column for column in table.columns if column.on_screen]
    # Leading columns of text tell the rows apart; a table of nothing else needs only its first.
    leading = next((i for i, column in enumerate(shown) if column.kind not in TEXT_KINDS), 1)
    keys, others = shown[:leading], shown[leading:]
    groups: list[tuple[Column, ...]] = []
    group: list[Column] = []
    for column in others:
        candidate = (*keys, *group, column)
        widths, _, _ = _laid_out(table, candidate, on_one_line)
        if group and sum(widths) + 2 * (len(widths) - 1) > width:
            groups.append((*keys, *group))
            group = []
        group.append(column)
    return [*groups, (*keys, *group)]


def p_in_words(p: float, digits: int = 4) -> str:
    """Return a p value as `.0286`, and what lies closer to 0 or 1 than its digits as a bound."""
    least = 10.0**-digits
    if p < least:
        return f"< {least:.{digits}f}".replace("0.", ".")
    if p > 1 - least:
        return f"> {1 - least:.{digits}f}".replace("0.", ".")
    return f"{p:.{digits}f}".removeprefix("0")


def bytes_in_words(number: float) -> str:
    """Return a size in the largest unit that fits, as `21.3 KiB`."""
    value, unit = float(number), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"


def _raw(value: CellValue) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ";".join(_raw(number) for number in value)
    return repr(value) if isinstance(value, float) else str(value)


def _json_value(value: CellValue) -> Any:
    if isinstance(value, tuple):
        return [_json_value(number) for number in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def on_one_line(text: str) -> str:
    """Replace line ends and control characters, which forge rows, or move the cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


def _escape_markdown(text: str) -> str:
    special = r"[\\`*<|]|^[#>]|\](?=[(\[])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
    return re.sub(f"({special})", r"\\\1", on_one_line(text))


LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
}


def _escape_latex(text: str) -> str:
    escaped = "".join(LATEX_CHARACTERS.get(character, character) for character in on_one_line(text))
    # Two hyphens would print as one dash.
    return escaped.replace("--", "-{}-").replace("--", "-{}-")


def _latex_value(column: Column, row: Row) -> str:
    text = _escape_latex(cell_text(column, row))
    if column.kind in TEXT_KINDS:
        return text
    return re.sub(r"([+-])(?=[\d.])", r"$\1$", text)


def _outside_code(
    note: str,
    escape: Callable[[str], str],
    escape_code: Callable[[str], str] = lambda code: f"`{on_one_line(code)}`",
) -> str:
    """Escape a note, treating what stands between backticks as code."""
    return "".join(
        escape_code(part) if is_code else escape(part) for part, is_code in code_parts(note)
    )


def code_parts(note: str) -> list[tuple[str, bool]]:
    """Split a note of a table into (text, whether it stood between backticks)."""
    parts = note.split("`")
    if len(parts) % 2 == 0:
        return [(note, False)]
    return [(part, index % 2 == 1) for index, part in enumerate(parts) if part]
