"""What every test gets: no network, no colours, no folders of the user's, and a fixed seed."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Workers share the cores, so a slow example is no failure; a failing example prints its blob.
settings.register_profile("wtie", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("wtie")

# Before any test module imports a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def repository() -> Path:
    """The root of the project, for tests that look at its own files."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """Keep every test out of the user's caches, and its output plain."""
    monkeypatch.setenv("WTIE_CACHE", str(tmp_path_factory.mktemp("cache", numbered=True)))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "WTIE_DEBUG", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
