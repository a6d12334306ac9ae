"""The search of `tune:` between its plan and its cells: its record, and what its trials lead to.

Invariant: a search that has begun can be extended, not reduced or changed: a trial that was made
stays one. Which setting is best is decided by `analysis.trials`, from the records alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tyro_cli.analysis.records import read_manifest, read_search
from tyro_cli.config.tuning import in_words, seeds_message
from tyro_cli.errors import DamagedRecord, RunFolderError
from tyro_cli.experiments.plan import Cell, Plan

REMEDY = "put the old values back beside the new ones, or use wtie train --fresh, which starts over"


def search_record(
    plan: Plan, recorded: Mapping[str, Any], *, after_results: bool
) -> dict[str, Any]:
    """Return what the manifest says of the search under `tuning`; nothing where there is none.

    Args:
        plan: What is to be done.
        recorded: The manifest that is there.
        after_results: Whether results of contrasts were there to be looked at.
    """
    tune = plan.loaded.experiment.tune
    earlier = recorded.get("tuning")
    if tune is None:
        return {} if earlier is None else {"tuning": earlier}
    mine = {
        "settings": [setting.name for setting in plan.settings],
        "seeds": sorted(tune.seeds),
        "shared": tune.shared,
    }
    plans = [] if earlier is None else earlier["plans"]
    if not plans or _scope(plans[-1]) != _scope(mine):
        plans = [*plans, mine | {"after_results": after_results}]
    return {
        "tuning": {
            "shared": tune.shared,
            "budget": None if tune.budget is None else tune.budget.model_dump(mode="json"),
            "settings": [{"name": one.name, "values": one.values} for one in plan.settings],
            "seeds": mine["seeds"],
            "plans": plans,
        }
    }


def _scope(plan: Mapping[str, Any]) -> tuple[set[str], set[int], str]:
    return set(plan["settings"]), set(plan["seeds"]), plan["shared"]


def check_search(plan: Plan, manifest: Mapping[str, Any]) -> None:
    """Refuse a search that would take back trials of the one that was begun.

    Raises:
        RunFolderError: A setting or seed is left out, the budget is another one, or a seed would be
            one of trials and of contrasts.
    """
    tune, earlier = plan.loaded.experiment.tune, manifest.get("tuning")
    contrasts = {seed for one in manifest["plans"] for seed in one["seeds"]} | set(plan.seeds)
    trials = set(tune.seeds if tune is not None else ()) | set(earlier["seeds"] if earlier else ())
    if shared := sorted(contrasts & trials):
        raise RunFolderError(
            f"{plan.run_folder}: {seeds_message(shared)}",
            "choose other seeds, or use wtie train --fresh, which moves the run folder aside",
        )
    if tune is None or earlier is None:
        return
    names = {setting.name for setting in plan.settings}
    lost = [in_words(one["values"]) for one in earlier["settings"] if one["name"] not in names]
    if lost:
        raise RunFolderError(
            f"{plan.run_folder}: the search was begun with trials that tune: leaves out now: "
            f"{'; '.join(lost)}",
            REMEDY,
        )
    if missing := sorted(set(earlier["seeds"]) - set(tune.seeds)):
        raise RunFolderError(
            f"{plan.run_folder}: the search was begun at seeds that tune: leaves out now: "
            f"{', '.join(map(str, missing))}",
            REMEDY,
        )
    budget = None if tune.budget is None else tune.budget.model_dump(mode="json")
    if budget != earlier["budget"]:
        raise RunFolderError(
            f"{plan.run_folder}: the search was begun with trials of another budget: "
            f"{_budget(earlier['budget'])} then, {_budget(budget)} now",
            "put the old budget back, or use wtie train --fresh, which starts over",
        )


def _budget(budget: Mapping[str, Any] | None) -> str:
    given = [f"{key} {value}" for key, value in (budget or {}).items() if value is not None]
    return ", ".join(given) or "that of every cell"


def open_cells(plan: Plan, *, fresh: bool = False) -> tuple[Cell, ...]:
    """Return the cells of a plan, those included that finished trials lead to."""
    at_best = () if fresh else cells_at_best(plan)
    return tuple({cell.folder: cell for cell in (*plan.trials, *plan.cells, *at_best)}.values())


def cells_at_best(plan: Plan) -> tuple[Cell, ...]:
    """Return the cells of the contrasts that the trials lead to, those that are done included.

    None of an arm while its trials are unfinished, and where all of them diverged. A cell at the
    setting that all arms share is one cell, whichever contrasts it stands in.
    """
    if not plan.settings or not (plan.run_folder / "manifest.json").is_file():
        return ()
    try:
        search = read_search(plan.run_folder, read_manifest(plan.run_folder))
    except DamagedRecord:
        return ()  # A damaged cell is not done: it is trained again, and then decides.
    settings = {setting.name: setting for setting in plan.settings}
    if search is None or {one.name for one in search.record.settings} != settings.keys():
        return ()  # The search is being extended: what was best so far decides nothing.
    names = [search.best] if plan.cells else [dict.fromkeys(plan.arms, search.shared), search.best]
    return tuple(
        plan.cell(arm, seed, settings[name])
        for seed in plan.seeds
        for arm in plan.selected_arms
        for best in names
        if (name := best.get(arm)) is not None
    )


def most_to_come(plan: Plan, missing: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return as many cells as missing trials may lead to, each as its arm is.

    That is every arm at its best; where all share the baseline's best, every arm there as well, and
    the baseline once.
    """
    if not any(cell.is_trial for cell in missing):
        return ()
    baseline = plan.loaded.experiment.baseline
    return tuple(
        plan.cell(arm, seed)
        for seed in plan.seeds
        for arm in plan.selected_arms
        for _ in range(1 if plan.cells or arm == baseline else 2)
    )
