"""Seeds as text: `0-4`, `0,2,5-7`.

The same notation is read from `--seeds`, from `seeds=...` and from the file. The order written is
kept, a seed stands once, and the count is bounded, so `0-2000000000` costs nothing.
"""

import re
from collections.abc import Iterable

from tyro_cli.errors import UsageError

LARGEST_SEED = 2**31 - 1
MOST_SEEDS = 10_000

_PART = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?", re.ASCII)
_REMEDY = "write whole numbers and ranges, for example 0-4 or 0,2,5-7"


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read seeds written as numbers and inclusive ranges, in the order written.

    Args:
        text: For example `0-4` or `0,2,5-7`.

    Returns:
        The distinct seeds.

    Raises:
        UsageError: The text is not such a list, a range runs backwards, or `check_seeds` refuses.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise UsageError(f"cannot read seeds from {text[:60]!r}", _REMEDY)
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise UsageError(f"the range {part.strip()} of seeds runs backwards", _REMEDY)
        if len(seeds) + last - first + 1 > MOST_SEEDS:
            raise UsageError(f"more than {MOST_SEEDS} seeds in {text[:60]!r}", _REMEDY)
        seeds.extend(range(first, last + 1))
    return check_seeds(seeds)


def check_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Return the seeds as a tuple, after checking that there are some, distinct and in range.

    Raises:
        UsageError: There is none or too many, one stands twice, or one is out of range.
    """
    checked = tuple(seeds)
    if not checked:
        raise UsageError("needs at least one seed", _REMEDY)
    if len(checked) > MOST_SEEDS:
        raise UsageError(f"more than {MOST_SEEDS} seeds", _REMEDY)
    seen: set[int] = set()
    for seed in checked:
        if not 0 <= seed <= LARGEST_SEED:
            raise UsageError(f"the seed {seed} is not between 0 and {LARGEST_SEED}", _REMEDY)
        if seed in seen:
            raise UsageError(f"the seed {seed} stands twice", _REMEDY)
        seen.add(seed)
    return checked
