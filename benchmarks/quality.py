"""What the fast path costs in quality: one cell trained in bf16 and in float32 from one seed."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import OUR_THREADS, REPOSITORY, Call, Case, Comparison, Side, Start
from tyro_cli.config.loading import load_experiment
from tyro_cli.data.prepared import default_cache_folder, prepare_data
from tyro_cli.training.hardware import configure_process
from tyro_cli.training.loop import CellContext, Trainer


def valid_nats(
    start: Start, seconds: float, *, config: str, steps: int, precision: str, threads: int
) -> float:
    """Return the validation loss in nats a token after some steps of a file's first arm."""
    overrides = [f"training.budget.steps={steps}", f"evaluation.every_steps={steps}"]
    settings = next(iter(load_experiment(Path(config), overrides).arms.values())).settings
    configure_process("cpu", threads, settings.training.deterministic)
    data = prepare_data(settings.data, cache_folder=default_cache_folder())
    start()
    events: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        context = CellContext(
            cell_id="0" * 64,
            settings=settings,
            seed=0,
            data=data,
            total_steps=steps,
            device="cpu",
            precision=precision,
            folder=Path(folder),
            allow_numeric_drift=False,
            poll=lambda: None,
            warn=lambda text: None,
            report=events.append,
        )
        Trainer(context).run()
    return float(next(event["valid_nats"] for event in events if event["kind"] == "evaluation"))


def cases(
    config: Path = REPOSITORY / "configs" / "quickstart.yaml", steps: int = 500
) -> tuple[Case, ...]:
    """Return the case, for an experiment's first arm."""

    def side(name: str, precision: str) -> Side:
        arguments = {"config": str(config), "steps": steps, "precision": precision}
        call = Call("quality:valid_nats", arguments | {"threads": OUR_THREADS}, OUR_THREADS)
        return Side(name, ((call,),))

    return (
        Case(
            "quality",
            f"Validation loss after {steps} steps in bf16, against float32, from one seed",
            "nats per token",
            (Comparison("quickstart, untied", side("bf16", "bf16"), side("float32", "fp32")),),
            goal=0.995,
            note="The goal is a loss within 0.5 % of float32's. Repeating changes nothing.",
            repeats=1,
        ),
    )
