"""The hub: datasets on local disk, cached ones, and a hub that is not there."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.data.texts import data_config, write_parquet
from tyro_cli.data import hub
from tyro_cli.data.corpora import load_corpus
from tyro_cli.data.hub import hub_is_reachable, parse_hub_name
from tyro_cli.errors import DataError

ROWS = {
    "train": ["", " = One = \n", "", " words of one \n"],
    "validation": [" v \n"],
    "test": [" t \n"],
}
TEXTS = {"train": " \n = One = \n \n words of one \n", "valid": " v \n", "test": " t \n"}
COMMIT = "b08601e04326c79dfdd32d625aee71d232d685c3"


def load(corpus: str, **changes: Any) -> dict[str, str]:
    config = data_config(corpus, format="wikitext", **changes)
    return load_corpus(config).texts


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the library a cache of the test's own."""
    import datasets.config
    import huggingface_hub.constants

    cache = tmp_path / "datasets-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    return cache


def write_repository(folder: Path) -> Path:
    """Lay a dataset out as the hub does: a card that lists configurations, a folder for each."""
    configs = []
    for config in ("big", "small"):
        for split, rows in ROWS.items():
            extra = ["big \n"] if config == "big" else []
            write_parquet(folder / config / f"{split}-00000-of-00001.parquet", rows + extra)
        files = "".join(f"  - split: {split}\n    path: {config}/{split}-*\n" for split in ROWS)
        configs.append(f"- config_name: {config}\n  data_files:\n{files}")
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")
    return folder


def write_cached(cache: Path, commit: str, rows: dict[str, list[str]]) -> None:
    """Lay out what the library keeps of `owner/name`, configuration `small`, once loaded."""
    from datasets import Dataset, Features, Value
    from datasets.info import DatasetInfo
    from datasets.splits import SplitDict, SplitInfo

    folder = cache / "owner___name" / "small" / "0.0.0" / commit
    folder.mkdir(parents=True)
    splits = SplitDict()
    for split, texts in rows.items():
        dataset = Dataset.from_dict({"text": texts})
        dataset.save_to_disk(str(folder / f"made-{split}"))
        (made,) = (folder / f"made-{split}").glob("*.arrow")
        made.rename(folder / f"name-{split}.arrow")
        splits.add(SplitInfo(split, num_examples=len(texts), dataset_name="name"))
    info = DatasetInfo(
        features=Features({"text": Value("string")}),
        splits=splits,
        builder_name="parquet",
        dataset_name="name",
        config_name="small",
        version="0.0.0",
    )
    info.write_to_directory(str(folder))
    assert json.loads((folder / "dataset_info.json").read_text())["config_name"] == "small"


def test_dataset_on_local_disk_is_loaded_by_configuration(tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "wikitext")
    assert load(f"hf:{folder}:small") == TEXTS
    assert load(f"hf:{folder}:big")["test"] == " t \nbig \n"
    assert load(str(folder / "small")) == TEXTS  # the same files as a plain folder


def test_configuration_that_must_be_chosen_is_listed(tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "wikitext")
    with pytest.raises(DataError, match="Config name is missing") as caught:
        load(f"hf:{folder}")
    assert ":CONFIG" in caught.value.remedy


def test_missing_split_and_column_name_what_there_is(tmp_path: Path) -> None:
    write_parquet(tmp_path / "one" / "train.parquet", ["x\n"])
    with pytest.raises(DataError, match=r"no split valid or validation; it has train"):
        load(f"hf:{tmp_path / 'one'}")
    for split in ROWS:
        write_parquet(tmp_path / "two" / f"{split}.parquet", ["x\n"], column="sentence")
    with pytest.raises(DataError, match="no column named text; it has sentence"):
        load(f"hf:{tmp_path / 'two'}")


def test_code_in_a_dataset_is_never_run(tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "wikitext")
    (folder / "wikitext.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(DataError, match="scripts are no longer supported"):
        load(f"hf:{folder}:small")
    assert not (tmp_path / "ran").exists()


def test_offline_and_not_cached_fails_in_seconds_with_the_cache_and_the_alternative(
    datasets_cache: Path,
) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match="hub cannot be reached") as caught:
        load("hf:owner/name:small")
    assert time.monotonic() - start < 10
    assert str(datasets_cache) in caught.value.message
    assert "data.corpus=FOLDER" in caught.value.remedy


def test_offline_and_cached_is_loaded_from_the_cache(datasets_cache: Path) -> None:
    write_cached(datasets_cache, COMMIT, ROWS)
    assert load("hf:owner/name:small") == TEXTS
    assert load(f"hf:owner/name:small@{COMMIT[:7]}") == TEXTS


def test_offline_another_revision_is_never_taken_for_the_one_asked_for(
    datasets_cache: Path, tmp_path: Path
) -> None:
    write_cached(datasets_cache, COMMIT, ROWS)
    for revision in ("0" * 40, "v1.0"):
        with pytest.raises(DataError, match="holds another revision"):
            load(f"hf:owner/name:small@{revision}")
    reference = tmp_path / "hub-cache" / "datasets--owner--name" / "refs" / "v1.0"
    reference.parent.mkdir(parents=True)
    reference.write_text(COMMIT)
    assert load("hf:owner/name:small@v1.0") == TEXTS


def test_the_library_is_left_as_it_was(datasets_cache: Path) -> None:
    import datasets.config
    import huggingface_hub.constants

    before = (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)
    with pytest.raises(DataError):
        load("hf:owner/name:small")
    after = (datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)
    assert after == before


class TestReachable:
    @pytest.fixture(autouse=True)
    def _online(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in list(os.environ):
            if "OFFLINE" in name or name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)

    def test_offline_by_the_users_word_asks_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(hub, "_ask", lambda timeout_seconds: pytest.fail("asked"))
        assert not hub_is_reachable()

    def test_closed_port_is_not_reachable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        assert not hub_is_reachable()

    def test_silent_hub_is_given_up_after_the_time_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
            assert not hub_is_reachable(timeout_seconds=0.2)

    def test_name_that_never_resolves_is_not_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hub, "_ask", lambda timeout_seconds: time.sleep(5))
        start = time.monotonic()
        assert not hub_is_reachable(timeout_seconds=0.1)
        assert time.monotonic() - start < 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:wikitext", ("wikitext", None, None)),
        ("hf:Salesforce/wikitext", ("Salesforce/wikitext", None, None)),
        ("hf:a/b:c-1", ("a/b", "c-1", None)),
        ("hf:a/b@refs/pr/1", ("a/b", None, "refs/pr/1")),
        ("hf:a/b:c@d", ("a/b", "c", "d")),
    ],
)
def test_names_are_read(text: str, expected: tuple[str | None, ...]) -> None:
    name = parse_hub_name(text)
    assert (name.path, name.config, name.revision) == expected
    assert not name.is_local


@pytest.mark.parametrize("text", ["hf:", "hf:a/b/c", "hf:a b", "hf:a/b:", "hf:a/b@", "hf:a@b:c"])
def test_names_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="does not name a dataset"):
        parse_hub_name(text)


def test_local_folders_are_told_by_how_they_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_hub_name("hf:./a:b").config is None
    assert parse_hub_name("hf:./a:b:c").config == "c"
    with pytest.raises(DataError, match="no such folder"):
        parse_hub_name("hf:./nowhere:c")
