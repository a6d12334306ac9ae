"""Seeds written as text."""

import pytest

from tyro_cli.config.seeds import LARGEST_SEED, parse_seeds
from tyro_cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0", (0,)),
        ("0-4", (0, 1, 2, 3, 4)),
        ("0,2,5-7", (0, 2, 5, 6, 7)),
        (" 3 , 1 ", (3, 1)),
        ("7-7", (7,)),
        (f"{LARGEST_SEED}", (LARGEST_SEED,)),
    ],
)
def test_numbers_and_ranges_in_the_order_written(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read seeds from ''"),
        ("a", "cannot read seeds from 'a'"),
        ("1,,2", "cannot read seeds"),
        ("1-", "cannot read seeds"),
        ("-1", "cannot read seeds"),
        ("1.5", "cannot read seeds"),
        ("٣", "cannot read seeds"),
        ("4-0", "the range 4-0 of seeds runs backwards"),
        ("0-2,1", "the seed 1 stands twice"),
        (f"{LARGEST_SEED + 1}", "is not between 0 and"),
        ("0-2147483647", "more than 10000 seeds"),
        ("9" * 5000, "cannot read seeds"),
    ],
)
def test_what_is_no_list_of_seeds(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_seeds(text)
    assert message in caught.value.message
    assert caught.value.exit_code == 2
