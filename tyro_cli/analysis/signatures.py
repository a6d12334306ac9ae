"""Which numbers may stand beside each other: those with one signature, metric by metric.

Invariant: two numbers of one metric are comparable only if the lines that say how they were
computed (text, words, tokenizer, context, stride, precision, protocol) are equal to the letter.
Comparing anyway is the user's explicit wish (`force`), and is said beside the numbers.
"""

from collections.abc import Mapping, Sequence

from tyro_cli.analysis.formats import CellResult, Split
from tyro_cli.errors import RunFolderError

Signatures = Mapping[str, str]
"""For each label of a number (an arm, or a run and an arm) the signature it was computed under."""


def signatures_of(results: Mapping[str, CellResult], split: Split, metric: str) -> dict[str, str]:
    """Return the signature of one metric of one split for each labelled result."""
    return {label: result.signature(split, metric) for label, result in results.items()}


def mixed_signatures(signatures: Signatures) -> str:
    """Return in which field two of the signatures differ first, or "" where all are equal."""
    labels = list(signatures)
    for label in labels[1:]:
        first, other = signatures[labels[0]], signatures[label]
        if first != other:
            return f"{_difference(first, other)} ({labels[0]}: {first}; {label}: {other})"
    if labels and not signatures[labels[0]]:
        return "none is recorded"
    return ""


def refuse_mixed_signatures(metric: str, signatures: Signatures, *, force: bool = False) -> str:
    """Refuse to set numbers of different signature beside each other.

    Args:
        metric: What the numbers measure.
        signatures: The signature of each number, by its label.
        force: Compare anyway.

    Returns:
        "" where all signatures are equal; with `force`, a warning to print beside the numbers.

    Raises:
        RunFolderError: Signatures differ, and `force` is not set.
    """
    difference = mixed_signatures(signatures)
    if not difference:
        return ""
    if force:
        return f"Forced: {metric} has different signatures: {difference}"
    raise RunFolderError(
        f"{metric} was not computed in one way: {difference}",
        "Compare runs with one evaluation, name a metric they share with --metric "
        "(bits_per_byte compares across tokenizers), or insist with --force.",
    )


def withheld_metrics(
    results: Mapping[str, CellResult], metrics: Sequence[str], between: str, *, force: bool = False
) -> tuple[set[str], list[str]]:
    """Find the metrics whose test numbers may not stand in one column, and say why.

    Args:
        results: Every result of the table, by its label.
        metrics: The metrics of the columns.
        between: What the numbers of a column belong to, for the note: `runs` or `points`.
        force: Leave nothing out, and say that.

    Returns:
        The metrics to leave out, and a note for each that does not compare.
    """
    withheld: set[str] = set()
    notes = []
    for metric in metrics:
        difference = mixed_signatures(signatures_of(results, "test", metric))
        if results and difference:
            said = "Forced" if force else "Left out"
            notes.append(f"{said}: {metric} does not compare between {between}: {difference}.")
            withheld |= set() if force else {metric}
    return withheld, notes


def _difference(first: str, other: str) -> str:
    if not first or not other:
        return "a signature is missing"
    one, two = _fields(first), _fields(other)
    names = [name for name in [*one, *two] if one.get(name) != two.get(name)]
    return f"the signatures differ in {', '.join(dict.fromkeys(names))}"


def _fields(signature: str) -> dict[str, str]:
    name, *fields = signature.split("|")
    return {"metric": name, **{key: value for key, _, value in (f.partition(":") for f in fields)}}
