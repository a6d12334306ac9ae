"""The hub's parquet files in a folder: which of them belong to a split, and one of their columns.

Invariant: shards are read in the order of their names. What the rows of a column must be is for
the corpus that asks for it to say.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tyro_cli.data.places import entries
from tyro_cli.errors import DataError

LAYOUT = "{stem}.parquet or {stem}-*.parquet"


def find_shards(
    folder: Path, candidates: Mapping[str, tuple[str, ...]]
) -> dict[str, list[Path]] | None:
    """Return the shards of every split, from a folder or the one subfolder that holds some.

    The hub keeps each configuration of a dataset in a subfolder.

    Args:
        folder: Where to look.
        candidates: For each split the names it may have.

    Raises:
        DataError: Several subfolders hold shards of the training split.
    """
    inside = [
        path
        for path in entries(folder)
        if path.is_dir() and shards_of_split(path, candidates["train"])
    ]
    if len(inside) > 1:
        raise DataError(
            f"{folder}: several of its folders hold parquet files: "
            + ", ".join(path.name for path in inside),
            f"name one of them: data.corpus={inside[0]}",
        )
    for place in (folder, *inside):
        shards = {split: shards_of_split(place, names) for split, names in candidates.items()}
        if all(shards.values()):
            return shards
    return None


def shards_of_split(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the shards of a split, in order; none where no name fits."""
    for name in names:
        shards = [
            path
            for path in entries(folder)
            if path.suffix == ".parquet" and (path.stem == name or path.stem.startswith(f"{name}-"))
        ]
        if shards:
            return shards
    return []


def read_column(path: Path, column: str, remedy: str) -> list[object]:
    """Return the rows of one column of a shard.

    Args:
        path: The shard.
        column: The column's name.
        remedy: What to do where there is no such column.

    Raises:
        DataError: The file is not parquet, or has no such column.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        columns = file.schema_arrow.names
        if column not in columns:
            raise DataError(
                f"{path}: no column named {column}; it has {', '.join(columns)}", remedy
            )
        rows: list[object] = file.read(columns=[column]).column(column).to_pylist()
        return rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read as parquet: {error}", "download the file again"
        ) from error
