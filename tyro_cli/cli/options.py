"""The words that several commands take, said once, and what they mean.

An option's name, help and checks live here; what a command does with the value stays in the
command. A value that cannot be meant raises `UsageError` naming the option.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tyro_cli.errors import UsageError

if TYPE_CHECKING:
    from tyro_cli.config.loading import LoadedExperiment
    from tyro_cli.experiments.launchers.choice import LauncherChoice

AUTO = "auto"
RUNS_ROOT = Path("runs")

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", help="The experiment: a YAML file."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Replaces what stands at that path of the file, e.g. training.budget.tokens=40000.",
    ),
]


def named(folder: Path) -> Path:
    """Return a folder by a path that ends in its name, which that of `.` and `..` does not."""
    return Path(os.path.abspath(folder)) if folder.name in ("", "..") else folder


def all_named(folders: list[Path] | None) -> list[Path]:
    """Return the same of several folders; none where none was given."""
    return [named(folder) for folder in folders or ()]


RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run folder, e.g. runs/quickstart-3f9a1c2e.", callback=named
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="The folder that holds the runs.")
]
WorkersOption = Annotated[
    str,
    typer.Option(
        metavar="COUNT",
        help="Cells at once; auto: as many as cores and memory allow, on a GPU one.",
    ),
]
ThreadsOption = Annotated[
    str,
    typer.Option(
        metavar="COUNT",
        help="Threads a cell; auto: cores divided by the cells at once. A run keeps the count of "
        "its first start.",
    ),
]
LauncherOption = Annotated[
    str,
    typer.Option(
        "--launcher",
        metavar="NAME",
        help="What runs the cells: local (processes here) or ray (tasks of a Ray cluster; extra "
        "`ray`).",
    ),
]
LAUNCHERS = ("local", "ray")
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="The Ray cluster: HOST:PORT of its head, or auto for the one that was started here. "
        "Default: RAY_ADDRESS, or else Ray is started on this machine.",
    ),
]
StorageOption = Annotated[
    Path | None,
    typer.Option(
        "--storage",
        metavar="FOLDER",
        help="With Ray: where a cell keeps checkpoints on the machine that trains it; one that all "
        "share lets a cell go on elsewhere. Default: the run folder.",
    ),
]
DeviceOption = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")]
DEVICES = ("auto", "cpu", "cuda")
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]


def check_device(device: str) -> None:
    """Raise `UsageError` where a device is none that there could be."""
    if device not in DEVICES:
        raise UsageError(f"--device {device!r} is unknown", f"one of {', '.join(DEVICES)}")


def choose_launcher(name: str, address: str | None, storage: Path | None) -> "LauncherChoice":
    """Return which launcher was asked for.

    Raises:
        UsageError: There is none of that name, it takes no such option, or Ray is not installed.
        DeviceError: Nothing answers at the address.
    """
    from tyro_cli.experiments.launchers.choice import LauncherChoice

    if name == "local":
        for option, value in (("--ray-address", address), ("--storage", storage)):
            if value is not None:
                raise UsageError(f"{option} says nothing to --launcher local", "add --launcher ray")
        return LauncherChoice()
    if name != "ray":
        raise UsageError(f"--launcher {name!r} is unknown", f"one of {', '.join(LAUNCHERS)}")
    from tyro_cli.experiments.launchers.ray_connection import check_ray

    address = address or os.environ.get("RAY_ADDRESS") or None
    check_ray(address)
    return LauncherChoice("ray", address, storage)


def checked_overrides(words: list[str] | None) -> list[str]:
    """Return the `key=value` words; raise `UsageError` on anything else."""
    for word in words or []:
        key, equals, _ = word.partition("=")
        if not equals or not key:
            remedy = (
                f"name a configuration with --config {word}"
                if word.endswith((".yaml", ".yml"))
                else "write key=value, e.g. training.budget.tokens=40000"
            )
            raise UsageError(f"{word!r} is not key=value", remedy)
    return list(words or [])


def parse_count(text: str, option: str) -> int | None:
    """Return the count that `text` says, or None for `auto`."""
    if text == AUTO:
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"{option} {text!r} is neither a count nor auto", f"{option} 2, for example")


def load_checked(config: Path, overrides: list[str]) -> "LoadedExperiment":
    """Load an experiment and run the confound guard, before anything heavy is imported.

    Raises:
        ConfigurationError: With every problem found.
    """
    from tyro_cli.config.loading import load_experiment
    from tyro_cli.experiments.confounds import check_confounds

    loaded = load_experiment(config, overrides)
    check_confounds(loaded)
    return loaded


def parse_names(text: str | None, option: str, example: str) -> tuple[str, ...] | None:
    """Return the comma-separated names, or None where the option was not given.

    `example` is what the option may be given, for the message.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(f"{option} {text!r} holds an empty name", f"{option} {example}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"{option} names {', '.join(repeated)} twice", "name each once")
    return names
