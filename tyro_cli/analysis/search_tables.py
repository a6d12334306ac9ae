"""What a search leads to: the table of its trials, the contrasts at each arm's best, and the sign.

Invariant: the contrast at the shared setting decides the run's verdict; beside it stands the
contrast with each arm at its own best, and a sentence that says whether the sign survives. Every
trial has a row, and a best value on the edge of the grid is flagged. Which trial is best is decided
in `trials`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.contrasts import Contrast, seeds_in_words
from tyro_cli.analysis.perplexity_tables import status_in_words
from tyro_cli.analysis.records import CellRecord, RunRecords, at_best
from tyro_cli.analysis.trials import Search, Trial
from tyro_cli.analysis.verdicts import Verdict, decisive_contrast, verdict_of
from tyro_cli.config.tuning import in_words, short_key

Tabulate = Callable[[RunRecords], Table]


@dataclass(frozen=True)
class TunedVerdict:
    """What becomes of a verdict with each arm at its best.

    Attributes:
        contrast: The decisive contrast with each arm at its best; None where one of the two arms
            has no best setting.
        verdict: What it allows one to say.
        survives: Whether the sign of the mean is that at the shared setting; None where one of the
            two cannot be said.
        sentence: The same in words, with both means.
    """

    contrast: Contrast | None
    verdict: Verdict | None
    survives: bool | None
    sentence: str

    @property
    def sign(self) -> str:
        """Whether the sign survives, in a few words."""
        if self.survives is None:
            return "cannot be said"
        return "survives" if self.survives else "does not survive"

    @property
    def text(self) -> str:
        """The verdict and the sign in a few words."""
        if self.verdict is None or self.survives is None:
            return self.sentence.removesuffix(".")
        return f"{self.verdict.text}; the sign {self.sign}"


def tuned_verdicts(
    run: RunRecords, baseline: str, *, force: bool = False
) -> dict[str, TunedVerdict]:
    """Return, for every arm but the baseline, what each arm's best makes of its verdict.

    Args:
        run: A run with a search.
        baseline: The baseline.
        force: Compare values of different signature.

    Raises:
        RunFolderError: The values have different signatures, and `force` is not set.
    """
    tuned = at_best(run)
    return {
        arm: _tuned_verdict(run, tuned, arm, baseline, force=force)
        for arm in run.arms
        if arm != baseline
    }


def _tuned_verdict(
    run: RunRecords, tuned: RunRecords, arm: str, baseline: str, *, force: bool
) -> TunedVerdict:
    search = run.search
    assert search is not None
    unknown = "Whether the sign survives cannot be said"
    for each in (baseline, arm):
        if why := search.why_no_best(each):
            return TunedVerdict(None, None, None, f"{unknown}: {why}.")
    one = decisive_contrast(run, arm, baseline, force=force)
    other = decisive_contrast(tuned, arm, baseline, force=force)
    shared = verdict_of(run, arm, baseline, force=force)
    best = verdict_of(tuned, arm, baseline, force=force)
    survives: bool | None = None
    for verdict, where in ((shared, "at the shared setting"), (best, "with each arm at its best")):
        if verdict.kind == "withheld":
            sentence = f"{unknown}: {where} the verdict is {verdict.text}."
            return TunedVerdict(other, best, None, sentence)
    if search.shared == search.best[arm] == search.best[baseline]:
        sentence = "Both arms are best at the shared setting: the two contrasts are one."
        return TunedVerdict(other, best, True, sentence)
    assert one.mean is not None and other.mean is not None
    begin = f"{unknown}, a mean of zero has none"
    if one.mean and other.mean:
        survives = (one.mean > 0) == (other.mean > 0)
        begin = "The sign survives" if survives else "The sign does not survive"
    sentence = (
        f"{begin}: {arm} - {baseline} is {one.mean:+.4f} {one.metric.replace('_', ' ')} at the "
        f"shared setting and {other.mean:+.4f} with each arm at its best; the verdicts are "
        f"`{shared.text}` and `{best.text}`."
    )
    return TunedVerdict(other, best, survives, sentence)


def contrast_cells(run: RunRecords) -> tuple[CellRecord, ...]:
    """Return the cells that contrasts are made of, at the shared setting and at each arm's best."""
    cells = list(run.cells.values())
    if run.search is not None:
        cells += at_best(run).cells.values()
    return tuple({cell.folder: cell for cell in cells}.values())


def every_cell(run: RunRecords) -> tuple[CellRecord, ...]:
    """Return the cells that contrasts are made of, and those of the trials before them."""
    cells = list(contrast_cells(run))
    for trials in run.search.trials.values() if run.search is not None else ():
        cells += [cell for trial in trials for cell in trial.cells]
    return tuple(cells)


def unfinished_cells(run: RunRecords) -> tuple[str, ...]:
    """Return the names of the cells that are planned and not done, trials included."""
    names = [
        f"{cell.arm} seed {cell.seed}"
        for cell in contrast_cells(run)
        if cell.status == "unfinished"
    ]
    for trials in run.search.trials.values() if run.search is not None else ():
        names += [
            f"{trial.arm} seed {cell.seed}, trial of {in_words(trial.setting.values)}"
            for trial in trials
            for cell in trial.cells
            if cell.status == "unfinished"
        ]
    return tuple(names)


def trial_table(run: RunRecords) -> Table:
    """Return every trial of every arm: its setting, its valid loss, which is best and shared."""
    search = run.search
    assert search is not None, "only a run with a search has trials"
    keys = list(search.record.settings[0].values)
    rows = [_trial_row(search, trial) for arm in run.arms for trial in search.trials.get(arm, ())]
    return Table(
        "trials",
        f"Trials of {run.manifest.name}",
        (
            Column("arm", "arm"),
            Column("setting", "setting", on_screen=False),
            *(Column(f"value {key}", short_key(key), "shortest") for key in keys),
            Column("status", "trial"),
            Column("valid_values", "valid nats/tok by seed", "numbers"),
            Column("valid_nats", "mean", "number"),
            Column("role", "which is"),
            Column("edge", "edge"),
        ),
        tuple(rows),
        (*_rule_notes(search), *(note for arm in run.arms for note in _arm_notes(search, arm))),
    )


def tuned_table(
    run: RunRecords, baseline: str, tabulate: Tabulate, *, force: bool = False
) -> Table:
    """Return the contrasts with each arm at its best, and whether their signs survive.

    Args:
        run: A run with a search.
        baseline: The baseline.
        tabulate: Makes the table of contrasts of a run.
        force: Compare values of different signature.
    """
    search = run.search
    assert search is not None
    signs = tuned_verdicts(run, baseline, force=force)
    notes = tuple(f"{arm}: {one.sentence}" for arm, one in signs.items())
    if search.why_no_best(baseline):
        title = f"Contrasts of {run.manifest.name} with each arm at its best"
        return Table("tuned", title, (Column("arm", "arm"),), (), notes)
    table = tabulate(at_best(run))
    return replace(table, name="tuned", notes=(*notes, *table.notes))


def best_in_words(search: Search, arm: str) -> tuple[str, str]:
    """Return an arm's best setting, and the keys in which it lies on the edge of the grid."""
    best = search.best_of(arm)
    if best is None:
        return search.why_no_best(arm), ""
    edges = ", ".join(f"{short_key(key)} {side}" for key, side in search.edges(arm))
    return in_words(best.values), edges


def edges_in_words(search: Search, arm: str) -> list[str]:
    """Say of each key whose best value for an arm lies on the edge of the grid that it does."""
    best = search.best_of(arm)
    if best is None:
        return []
    return [
        f"On the edge of the grid: {best.values[key]:g} is the {side} `{key}` tried for {arm}; "
        "its best may lie beyond, so extend the grid."
        for key, side in search.edges(arm)
    ]


def _trial_row(search: Search, trial: Trial) -> Row:
    name = trial.setting.name
    is_best = search.best.get(trial.arm) == name
    roles = [
        *(["best"] if is_best else []),
        *(["shared"] if search.shared == name else []),
    ]
    row: dict[str, CellValue] = {
        "arm": trial.arm,
        "setting": name,
        "status": trial.status,
        "valid_values": trial.valid_values,
        "role": ", ".join(roles),
        "edge": best_in_words(search, trial.arm)[1] if is_best else "",
    }
    row |= {f"value {key}": value for key, value in trial.setting.values.items()}
    if trial.status == "diverged":
        row["status"] = "; ".join(
            status_in_words(cell) for cell in trial.cells if cell.status == "diverged"
        )
    if trial.valid_nats is not None:
        row["valid_nats"] = trial.valid_nats
    return row


def _rule_notes(search: Search) -> list[str]:
    record = search.record
    given = [f"{key} {value}" for key, value in (record.budget or {}).items() if value is not None]
    budget = f"a budget of {', '.join(given)}" if given else "the budget of every cell"
    notes = [
        f"Each arm has the same {len(record.settings)} settings to try, at "
        f"{seeds_in_words(record.seeds)}, which no contrast uses, with {budget}.",
        "Best is the lowest mean of valid nats per token at the best checkpoint, and nothing else "
        "is looked at. A tie goes to the shared setting, else to the lowest values.",
    ]
    if search.shared is None:
        notes.append("The shared setting is the baseline's best, which is not known.")
    elif record.shared == "baseline-best":
        notes.append("The shared setting is the baseline's best.")
    elif search.setting(search.shared) is None:
        notes.append("The shared setting is the experiment's own, which is not in the grid.")
    else:
        notes.append("The shared setting is the experiment's own.")
    if search.changed_after_looking:
        notes.append(
            "The search was planned or changed when results were known: extended after looking."
        )
    return notes


def _arm_notes(search: Search, arm: str) -> list[str]:
    """Say of one arm where its best lies, what stands on an edge, and what diverged or moved."""
    trials = search.trials.get(arm, ())
    best = search.best_of(arm)
    if best is None:
        why = search.why_no_best(arm)
        return [f"{why[:1].upper()}{why[1:]}: {arm} has no best setting."]
    notes = [f"{arm} is best at {in_words(best.values)}."]
    notes += edges_in_words(search, arm)
    diverged = sum(trial.status == "diverged" for trial in trials)
    if diverged:
        notes.append(
            f"{diverged} of {len(trials)} trials of {arm} diverged: they count as trials and "
            "cannot be best."
        )
    before = search.best_before(arm)
    if search.changed_after_looking and before not in (None, search.best[arm]):
        was = search.setting(str(before))
        assert was is not None
        notes.append(
            f"The best setting of {arm} was {in_words(was.values)} before the search was changed."
        )
    return notes
