"""The data of either task: prepared once, opened by its folder.

What a language model reads is left to `prepared`, pairs of sentences to `prepared_pairs`.
"""

from collections.abc import Callable
from pathlib import Path

from tyro_cli.config.schema import DataConfig
from tyro_cli.data.prepared import PreparedData, open_prepared, prepare_data
from tyro_cli.data.prepared_pairs import PreparedPairs, open_pairs, prepare_pairs

Prepared = PreparedData | PreparedPairs


def prepare(
    task: str,
    data: DataConfig,
    *,
    cache_folder: Path,
    on_progress: Callable[[str], None] = lambda message: None,
    should_stop: Callable[[], None] = lambda: None,
) -> Prepared:
    """Read a corpus and return it tokenized, from the cache where it is there.

    Args:
        task: `language-modeling` or `translation`.
        data: What to prepare.
        cache_folder: Where entries are kept; see `prepared.default_cache_folder`.
        on_progress: Told in a few words what happens, for what takes time.
        should_stop: Called between slices of work; raises to stop.

    Raises:
        DataError: The corpus cannot be used as configured.
        StorageError: The cache cannot be written.
    """
    make = prepare_pairs if task == "translation" else prepare_data
    return make(
        data,
        cache_folder=cache_folder,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def open_entry(task: str, folder: Path) -> Prepared:
    """Open and verify a cache entry; the corpus is not needed.

    Raises:
        DamagedFolder, DamagedRecord: The entry is not what was written.
        StorageError: The entry is not there, or cannot be read.
    """
    return open_pairs(folder) if task == "translation" else open_prepared(folder)
