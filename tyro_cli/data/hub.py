"""The Hugging Face hub: datasets by name, through the `datasets` library.

Invariant: nothing from a dataset is executed, and a hub that cannot be reached is found out in
seconds: the library alone would try again for 20 seconds and more. What is in the library's cache
is used then, but never another revision than the one asked for. What the rows must be is left to
`corpora` and `parallel`.
"""

import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro_cli.data.places import folder_of
from tyro_cli.errors import DataError

# One answer, of whatever kind, says that the hub is there.
_PROBE_SECONDS = 4.0

_NAME = re.compile(
    r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^:@]+))?(?:@(?P<revision>[^:@]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True)
class HubName:
    """What `hf:...` names.

    Attributes:
        path: OWNER/NAME on the hub, or a local folder.
        config: Configuration of the dataset, or None.
        revision: Branch, tag or commit, or None; never given for a local folder.
        is_local: Whether `path` is a folder on this machine.
    """

    path: str
    config: str | None
    revision: str | None
    is_local: bool


def parse_hub_name(corpus: str) -> HubName:
    """Read `hf:OWNER/NAME[:CONFIG][@REVISION]` or `hf:FOLDER[:CONFIG]`.

    A folder starts with `/`, `./`, `../` or `~`.

    Raises:
        DataError: It is neither.
    """
    text = corpus.removeprefix("hf:")
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        whole = folder_of(corpus, text)
        before, colon, config = text.rpartition(":")
        if colon and not whole.is_dir():
            whole = folder_of(corpus, before)
        else:
            config = ""
        if not whole.is_dir():
            raise DataError(f"{corpus}: no such folder ({whole})", "check data.corpus")
        return HubName(str(whole), config or None, None, is_local=True)
    match = _NAME.fullmatch(text)
    if match is None:
        raise DataError(
            f"data.corpus {corpus!r} does not name a dataset",
            "write hf:OWNER/NAME, hf:OWNER/NAME:CONFIG or hf:OWNER/NAME:CONFIG@REVISION",
        )
    return HubName(match["name"], match["config"], match["revision"], is_local=False)


def read_hub_dataset(
    corpus: str,
    candidates: Mapping[str, tuple[str, ...]],
    *,
    column: str,
    remedy: str,
) -> dict[str, list[object]]:
    """Return the rows of one column, for each split.

    Args:
        corpus: `hf:...`, see `parse_hub_name`.
        candidates: For each split the names it may have.
        column: The column's name.
        remedy: What to do where there is no such column.

    Raises:
        DataError: The hub cannot be reached and the dataset is not cached; or it does not exist,
            or does not have the splits or the column.
    """
    name = parse_hub_name(corpus)
    is_reachable = name.is_local or hub_is_reachable()
    splits = _load(corpus, name, is_reachable)
    rows = {}
    for split, names in candidates.items():
        found = next((known for known in names if known in splits), None)
        if found is None:
            raise DataError(
                f"{corpus}: no split {' or '.join(names)}; it has {', '.join(splits)}",
                f"name the split: data.splits.{split}=NAME",
            )
        dataset = splits[found]
        if column not in dataset.column_names:
            raise DataError(
                f"{corpus}: no column named {column}; it has {', '.join(dataset.column_names)}",
                remedy,
            )
        rows[split] = list(dataset[column])
    return rows


def hub_is_reachable(timeout_seconds: float = _PROBE_SECONDS) -> bool:
    """Say whether the hub answers; at once where the user asked for offline work.

    Any answer counts, also a refusal. A name that does not resolve can block for longer than a
    time-out allows, so the question is asked in a thread that is not waited for.
    """
    offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    if any(os.environ.get(key, "").upper() in ("1", "ON", "YES", "TRUE") for key in offline):
        return False
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(_ask(timeout_seconds)), daemon=True)
    asking.start()
    asking.join(timeout_seconds + 1.0)
    return answers == [True]


def _ask(timeout_seconds: float) -> bool:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=timeout_seconds).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # A certificate that only this question does not trust: the library may have its own.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):
        return False
    return True


def _load(corpus: str, name: HubName, is_reachable: bool) -> Mapping[str, Any]:
    """Load all splits through the library; without the hub, from its cache alone."""
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    import datasets

    bars_were_shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        with _offline(not is_reachable):
            splits: Mapping[str, Any] = datasets.load_dataset(
                name.path, name=name.config, revision=name.revision
            )
    except Exception as error:  # the library raises many types, of its own and of its parts
        if is_reachable:
            raise DataError(
                f"{corpus}: {type(error).__name__}: {_first_line(error)}",
                "check the name, its CONFIG and its REVISION (hf:OWNER/NAME:CONFIG@REVISION)",
            ) from error
        raise _unreachable(corpus, name, "it is not in the cache") from error
    finally:
        if bars_were_shown:
            datasets.enable_progress_bars()
    if not is_reachable and name.revision and not _is_revision(splits, name):
        raise _unreachable(corpus, name, "the cache holds another revision")
    return splits


@contextmanager
def _offline(is_offline: bool) -> Iterator[None]:
    """Keep the library from asking the hub, however early it was imported."""
    import datasets.config
    import huggingface_hub.constants

    places = (
        (datasets.config, "HF_HUB_OFFLINE"),
        (datasets.config, "HF_DATASETS_OFFLINE"),
        (huggingface_hub.constants, "HF_HUB_OFFLINE"),
    )
    before = [getattr(module, key) for module, key in places]
    try:
        if is_offline:
            for module, key in places:
                setattr(module, key, True)
        yield
    finally:
        for (module, key), value in zip(places, before, strict=True):
            setattr(module, key, value)


def _is_revision(splits: Mapping[str, Any], name: HubName) -> bool:
    """Say whether cached splits are of the revision asked for.

    The library keeps each commit in a folder of that name; a branch or tag is looked up in the
    hub's own cache.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    revision = name.revision or ""
    reference = Path(HF_HUB_CACHE, f"datasets--{name.path.replace('/', '--')}", "refs", revision)
    if reference.is_file():
        revision = reference.read_text(encoding="utf-8").strip()
    if not _COMMIT.fullmatch(revision):
        return False
    files = [file["filename"] for split in splits.values() for file in split.cache_files]
    return bool(files) and all(Path(file).parent.name.startswith(revision) for file in files)


def _unreachable(corpus: str, name: HubName, why: str) -> DataError:
    from datasets.config import HF_DATASETS_CACHE

    return DataError(
        f"{corpus}: the Hugging Face hub cannot be reached, and {why} ({HF_DATASETS_CACHE})",
        f"connect once, so that {name.path} is cached; or download its files and name their "
        "folder: data.corpus=FOLDER (`wtie data ls` says what it may hold)",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
