"""The live view: what it says of a cell that is stopped."""

import io

from rich.console import Console

from tyro_cli.experiments.live import LiveView


def said(*events: dict) -> str:
    """Return the plain lines of a view of one cell that took these events."""
    console = Console(file=io.StringIO(), force_terminal=False)
    with LiveView(console, num_cells=1) as view:
        view.handle({"kind": "started", "cell": "a", "total_steps": 10, "batch_tokens": 8})
        for event in events:
            view.handle({"cell": "a", "seconds": 1.0, **event})
    return console.file.getvalue()


STEP = {"kind": "step", "step": 4, "loss_nats": 2.0}
FINAL = {"kind": "phase", "text": "final evaluation"}
STOPPED = {"kind": "stopped"}


def test_a_cell_stopped_in_training_tells_its_step():
    assert said(STEP, STOPPED).splitlines()[-1] == "a: stopped at step 4"


def test_a_cell_resumed_and_stopped_in_its_final_evaluation_names_no_step():
    assert said(FINAL, STOPPED).splitlines()[-1] == "a: stopped (final evaluation)"


def test_a_cell_stopped_before_its_first_event_names_no_step():
    assert said(STOPPED).splitlines()[-1] == "a: stopped (starting)"
