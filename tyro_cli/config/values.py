"""The kinds of values that the schema's fields hold, and how a validator refuses one.

Nothing is coerced: "128" is no number, true is no number, 1 is no boolean. A message completes the
sentence that the key begins (`seeds: needs at least one seed`); where the key stands is not known
here.
"""

from typing import Annotated, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field, Strict, WithJsonSchema
from pydantic_core import PydanticCustomError

from tyro_cli.config.seeds import LARGEST_SEED, check_seeds, parse_seeds
from tyro_cli.errors import UsageError
from tyro_cli.storage.names import MAX_NAME_LENGTH, check_name

LENGTH_OF_ID = len("-0123abcd")
"""What the name of a run's or study's folder has behind the name that the file gives."""


def refuse(problems: list[tuple[tuple[str, ...], str]]) -> None:
    """Raise the problems that concern several keys of one section, if there are any.

    Args:
        problems: For each problem the keys it concerns (dotted, below the section; the one to
            point at comes first) and what is wrong.
    """
    if problems:
        raise PydanticCustomError(
            "several_keys",
            "{summary}",
            {"summary": "; ".join(text for _, text in problems), "problems": problems},
        )


def refuse_value(message: str) -> NoReturn:
    """Raise what is wrong with one value."""
    raise PydanticCustomError("value", "{message}", {"message": message})


def _checked_text(value: str) -> str:
    if not value.strip():
        refuse_value("is empty text")
    if not value.isprintable():
        refuse_value("holds characters that cannot be printed")
    return value


def _checked_split_name(value: str) -> str:
    if "/" in value or "\\" in value or value.startswith("."):
        refuse_value(f"must be a name without folders, not {value!r}")
    return value


def _checked_name(value: str) -> str:
    try:
        return check_name(value, "the name")
    except UsageError as error:
        refuse_value(f"{error.message}; {error.remedy}" if error.remedy else error.message)


def _checked_folder_name(value: str) -> str:
    most = MAX_NAME_LENGTH - LENGTH_OF_ID
    if len(value) > most:
        refuse_value(
            f"has {len(value)} characters; at most {most} are allowed, as the folder's name has "
            f"{LENGTH_OF_ID} more"
        )
    return _checked_name(value)


def tuple_from_list(value: object) -> object:
    """Turn the list that YAML gives into a tuple; leave the rest to validation."""
    return tuple(value) if isinstance(value, list) else value


def _read_seeds(value: object) -> object:
    if isinstance(value, str):
        try:
            return parse_seeds(value)
        except UsageError as error:
            refuse_value(error.message)
    if isinstance(value, int) and not isinstance(value, bool):
        refuse_value(f"must be a list: [{value}] for that seed alone, 0-2 for three seeds")
    return tuple_from_list(value)


def _checked_seeds(values: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return check_seeds(values)
    except UsageError as error:
        refuse_value(error.message)


Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Truth = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), AfterValidator(_checked_text)]
SplitName = Annotated[Text, AfterValidator(_checked_split_name)]
Name = Annotated[
    str,
    Strict(),
    AfterValidator(_checked_name),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$",
            "maxLength": MAX_NAME_LENGTH,
        }
    ),
]
FolderName = Annotated[
    str,
    Strict(),
    AfterValidator(_checked_folder_name),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$",
            "maxLength": MAX_NAME_LENGTH - LENGTH_OF_ID,
        }
    ),
]
"""The first half of the name of a run's or a study's folder; the id follows."""
Probability = Annotated[Number, Field(ge=0.0, lt=1.0)]
Seeds = Annotated[
    tuple[Annotated[int, Strict(), Field(ge=0, le=LARGEST_SEED)], ...],
    BeforeValidator(_read_seeds),
    AfterValidator(_checked_seeds),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED},
                    "minItems": 1,
                    "uniqueItems": True,
                },
                {"type": "string", "pattern": r"^\s*\d+(-\d+)?(\s*,\s*\d+(-\d+)?)*\s*$"},
            ]
        }
    ),
]
