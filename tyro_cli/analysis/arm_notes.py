"""Sentences about the arms of a run that stand below its tables.

Invariant: every setting in which an arm differs from the baseline is named, whether it was
declared, solved by `match`, or the tie itself; nothing that could explain a difference stays
hidden, and no saving is printed that its formula does not confirm.
"""

from collections.abc import Mapping
from typing import Any

from tyro_cli.analysis.formats import LedgerRecord
from tyro_cli.analysis.records import RunRecords, differing_settings
from tyro_cli.config.paths import value_at
from tyro_cli.errors import DamagedRecord
from tyro_cli.ledger.ledger import MATRICES_SAVED

TIE = "model.tying"


def difference_notes(run: RunRecords, baseline: str) -> tuple[str, ...]:
    """Name, arm by arm, every setting that differs from the baseline's."""
    notes = []
    for arm in run.arms:
        if arm == baseline:
            continue
        record = run.manifest.arms[arm]
        settings, base = record.settings, run.manifest.arms[baseline].settings
        paths = differing_settings(base, settings)
        changes = "; ".join(
            f"`{path}`: {_shown(value_at(base, path))} -> {_shown(value_at(settings, path))}"
            for path in paths
        )
        if not paths:
            notes.append(f"{arm} differs from {baseline} in nothing.")
        elif paths == (TIE,):
            notes.append(f"{arm} differs from {baseline} in nothing but the tie ({changes}).")
        else:
            notes.append(f"{arm} differs from {baseline} in {changes}.")
        if record.match is not None:
            match = record.match
            notes.append(
                f"{arm} has `{match.by}` {match.value:,}, solved to match the "
                f"{match.target_parameters:,} parameters of {match.parameters_of}: "
                f"{match.parameters:,}, difference {match.difference:+,}."
            )
    return tuple(notes)


def tie_notes(run: RunRecords) -> tuple[str, ...]:
    """Say which role a shared matrix takes, and how wide embedding and head are drawn."""
    notes = []
    deviations: dict[str, list[str]] = {}
    for arm in run.arms:
        record = run.manifest.arms[arm]
        model = record.settings.get("model")
        model = model if isinstance(model, Mapping) else {}
        if record.ledger.tying != "none":
            notes.append(
                f"{arm}: the shared matrix takes the rate and decay of the role "
                f"`{model.get('tied_role', 'head')}` (`model.tied_role`)."
            )
        deviation = f"{initial_deviation(model, record.ledger):.4g}"
        deviations.setdefault(deviation, []).append(arm)
    for deviation, arms in deviations.items():
        notes.append(
            f"Embedding and head are drawn with standard deviation {deviation} ({', '.join(arms)})."
        )
    return tuple(notes)


def initial_deviation(model: Mapping[str, Any], ledger: LedgerRecord) -> float:
    """Return the standard deviation of embedding and head: set, or min(0.02, 2.5 / d_model)."""
    configured = model.get("embedding_std")
    if isinstance(configured, int | float):
        return float(configured)
    return min(0.02, 2.5 / ledger.d_model)


def saving_note(run: RunRecords, arm: str, baseline: str) -> str:
    """Print the difference in parameters, and check it against V x d where only the tie differs.

    Raises:
        DamagedRecord: The ledgers break the identity, so no table is printed from them.
    """
    arms = run.manifest.arms
    expected = expected_saving(run, arm, baseline)
    saved = arms[baseline].ledger.total - arms[arm].ledger.total
    if expected is None:
        return (
            f"{baseline} - {arm} = {saved:+,} parameters; "
            "the arms differ in more than the tie, so no formula is checked."
        )
    if saved != expected:
        raise DamagedRecord(
            f"{run.folder / 'manifest.json'}: arms.{arm}.ledger.total: {baseline} - {arm} is "
            f"{saved:,} parameters, but the tie alone makes {expected:,}",
            "Restore the file from a copy, or start the run afresh with --fresh.",
        )
    ledger = arms[arm].ledger
    times = "2 x " if abs(expected) == 2 * ledger.vocab_size * ledger.d_model else ""
    product = f"{times}V x d = {times}{ledger.vocab_size:,} x {ledger.d_model:,}"
    first, second = (baseline, arm) if expected >= 0 else (arm, baseline)
    return f"{first} - {second} = {abs(saved):,} parameters, exactly {product} = {abs(expected):,}."


def expected_saving(run: RunRecords, arm: str, baseline: str) -> int | None:
    """Return what the tie must save (negative: cost) going from the baseline to the arm.

    None where the arms differ in anything but which matrices are shared.
    """
    one, other = run.manifest.arms[baseline], run.manifest.arms[arm]
    if differing_settings(one.settings, other.settings) != (TIE,):
        return None
    saved = [MATRICES_SAVED.get(record.ledger.tying) for record in (one, other)]
    if saved[0] is None or saved[1] is None:
        return None
    return (saved[1] - saved[0]) * other.ledger.vocab_size * other.ledger.d_model


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
