"""What the charts of a run share: its arms in order with their colours, and its decisive contrasts.

Invariant: the baseline comes first and takes the first colour, whatever the order in the file, so
that an arm looks the same in every chart of every page.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tyro_cli.analysis.contrasts import Contrast
from tyro_cli.analysis.formats import CellResult
from tyro_cli.analysis.records import RunRecords
from tyro_cli.analysis.verdicts import decisive_contrast
from tyro_cli.reporting.palette import Colour, arm_colour, arm_shape
from tyro_cli.reporting.plots import shortened

LABEL_CHARACTERS = 14

METRIC_UNITS = {
    "nats_per_word": "nats per word",
    "nats_per_token": "nats per token",
    "bits_per_byte": "bits per byte",
    "word_perplexity": "word perplexity",
    "token_perplexity": "token perplexity",
}


@dataclass(frozen=True)
class ArmView:
    """One arm as the charts show it."""

    name: str
    label: str
    colour: Colour
    shape: str


def arm_views(arms: tuple[str, ...], baseline: str) -> tuple[ArmView, ...]:
    """Return the arms, the baseline first, with their labels, colours and shapes."""
    ordered = [baseline, *(arm for arm in arms if arm != baseline)]
    return tuple(
        ArmView(arm, shortened(arm, LABEL_CHARACTERS), arm_colour(place), arm_shape(place))
        for place, arm in enumerate(ordered)
    )


def on_test(metric: str) -> Callable[[CellResult], float | None]:
    """Return what reads a metric on test at the best-valid checkpoint."""
    return lambda result: getattr(result.scores("test", "best"), metric)


def arm_values(
    run: RunRecords, arm: str, value: Callable[[CellResult], float | None]
) -> tuple[tuple[int, float], ...]:
    """Return (seed, value) of every cell of an arm that is done and has the value."""
    found = ((result.seed, value(result)) for result in run.done(arm))
    return tuple((seed, one) for seed, one in found if one is not None)


@dataclass(frozen=True)
class RunView:
    """A run with what its charts share."""

    run: RunRecords
    arms: tuple[ArmView, ...]
    contrasts: tuple[Contrast, ...]

    @property
    def metric(self) -> str:
        """The metric that decides the verdicts."""
        return self.contrasts[0].metric if self.contrasts else "nats_per_word"

    @property
    def unit(self) -> str:
        """The unit of that metric, in words."""
        return METRIC_UNITS[self.metric]


def run_view(run: RunRecords, *, force: bool = False) -> RunView:
    """Return the view of a run against its own baseline.

    Raises:
        RunFolderError: The values have different signatures, and `force` is not set.
    """
    baseline = run.baseline()
    return RunView(
        run=run,
        arms=arm_views(run.arms, baseline),
        contrasts=tuple(
            decisive_contrast(run, arm, baseline, force=force)
            for arm in run.arms
            if arm != baseline
        ),
    )
