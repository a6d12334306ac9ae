"""`--launcher` and its options: what is refused before anything starts; Ray is not needed here."""

import socket
import threading
from pathlib import Path

import pytest

from tyro_cli.experiments import run as experiments_run
from tyro_cli.experiments.launchers import ray_connection


@pytest.fixture(params=["train", "sweep"])
def words(request, in_empty_folder, repository):
    Path("a.yaml").write_text((repository / "configs" / "quickstart.yaml").read_text())
    Path("s.yaml").write_text("name: s\nexperiment: a.yaml\nfactors: {w: {model.d_model: [8]}}\n")
    return (request.param, "--config", "a.yaml" if request.param == "train" else "s.yaml")


@pytest.fixture
def with_ray(monkeypatch):
    """As if Ray were installed; it must not be imported."""
    monkeypatch.setattr(ray_connection, "find_spec", lambda name: name)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def refused(result, *parts):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("runs").exists()


def test_an_unknown_launcher(wtie, words):
    refused(wtie(*words, "--launcher", "slurm"), "--launcher 'slurm' is unknown", "local, ray")


@pytest.mark.parametrize("option", ["--ray-address", "--storage"])
def test_options_of_ray_say_nothing_to_the_local_launcher(wtie, words, option):
    refused(wtie(*words, option, "127.0.0.1:1"), f"{option} says nothing to", "add --launcher ray")


def test_without_ray_the_extra_is_named(wtie, words, monkeypatch):
    monkeypatch.setattr(ray_connection, "find_spec", lambda name: None)
    refused(wtie(*words, "--launcher", "ray"), "not installed", "pip install 'wtie[ray]'")


@pytest.mark.parametrize(
    "address", ["head", "head:", ":6379", "head:x", "head:99999", "ray://head:10001", "head:٣"]
)
def test_an_address_that_is_none(wtie, words, with_ray, address):
    result = wtie(*words, "--launcher", "ray", f"--ray-address={address}")
    refused(result, "is neither HOST:PORT nor auto", "ray start --head")


@pytest.mark.parametrize("by_variable", [False, True])
def test_an_address_at_which_nobody_listens(wtie, words, with_ray, monkeypatch, by_variable):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        option = () if by_variable else ("--ray-address", address)
        monkeypatch.setenv("RAY_ADDRESS", address if by_variable else "elsewhere:1")
        result = wtie(*words, "--launcher", "ray", *option)
    refused(result, f"no Ray cluster can be reached at {address}", "ray start --head")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_an_address_at_which_something_else_answers(wtie, words, with_ray, answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(64)
                connection.sendall(answer)

        thread = threading.Thread(target=greet)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        result = wtie(*words, "--launcher", "ray", "--ray-address", address)
        thread.join()
    refused(result, f"can be reached at {address}: what answers there is not Ray")


def test_words_become_a_choice(wtie, words, with_ray, monkeypatch):
    if words[0] == "sweep":
        from tyro_cli.experiments import sweep as module

        name = "sweep_study"
    else:
        module, name = experiments_run, "train_experiment"
    asked = []

    def start(request, *_):
        asked.append(request.launcher)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, start)
    wtie(*words)
    wtie(*words, "--launcher", "ray")
    wtie(*words, "--launcher", "ray", "--ray-address", "auto", "--storage", "st")
    assert [(choice.name, choice.address, choice.storage) for choice in asked] == [
        ("local", None, None),
        ("ray", None, None),
        ("ray", "auto", Path("st")),
    ]
