"""The JSON Schema of an experiment file, for editors: completion, hover text, checks while typing.

It is generated from `schema`, so it cannot drift from what is accepted. Whatever an editor refuses,
the loader refuses; rules over several keys are the loader's alone. Arms, and files that extend
another one, may leave any key out, so both use partial copies of the sections.
"""

import copy
from typing import Any

from tyro_cli.config.schema import Experiment, Match

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PARTIAL = "Partial"
_ARM_SECTIONS = ("data", "model", "training", "evaluation")


def experiment_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an experiment file."""
    full = Experiment.model_json_schema()
    definitions: dict[str, Any] = full.pop("$defs")
    match = Match.model_json_schema()
    definitions["Match"] = match
    definitions["Experiment"] = full
    for name in [name for name in definitions if name != "Match"]:
        definitions[name + _PARTIAL] = _partial(definitions[name])
    partial = definitions["Experiment" + _PARTIAL]
    definitions["Arm"] = {
        "type": "object",
        "description": "What the arm changes in the base; {} is the base as it stands.",
        "additionalProperties": False,
        "properties": {
            **{key: copy.deepcopy(partial["properties"][key]) for key in _ARM_SECTIONS},
            "match": {
                "$ref": "#/$defs/Match",
                "description": "Solve one model key for the parameter count of another arm.",
            },
        },
    }
    arm_name = {key: full["properties"]["name"][key] for key in ("pattern", "maxLength")}
    for experiment in (full, partial):
        experiment["properties"]["arms"]["additionalProperties"] = {"$ref": "#/$defs/Arm"}
        experiment["properties"]["arms"].pop("patternProperties", None)
        experiment["properties"]["arms"]["propertyNames"] = copy.deepcopy(arm_name)
    partial["properties"]["extends"] = {
        "type": "string",
        "minLength": 1,
        "description": "The file, relative to this one, whose keys this file starts from: maps "
        "are merged, everything else is replaced.",
    }
    return {
        "$schema": _DIALECT,
        "title": "wtie experiment",
        "description": "One experiment file of wtie: a base configuration, its arms, its seeds.",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": {"$ref": "#/$defs/Experiment" + _PARTIAL},
        "else": {"$ref": "#/$defs/Experiment"},
        "$defs": {name: _on_one_line(definitions[name]) for name in sorted(definitions)},
    }


def _on_one_line(definition: Any) -> Any:
    """Return a copy whose descriptions have no line breaks."""
    if isinstance(definition, dict):
        return {
            key: " ".join(value.split())
            if key == "description" and isinstance(value, str)
            else _on_one_line(value)
            for key, value in definition.items()
        }
    if isinstance(definition, list):
        return [_on_one_line(item) for item in definition]
    return definition


def _partial(definition: Any) -> Any:
    """Return a copy without required keys and defaults, here and in every section below."""
    if isinstance(definition, dict):
        return {
            key: value + _PARTIAL if key == "$ref" else _partial(value)
            for key, value in definition.items()
            if not (key == "required" and isinstance(value, list)) and key != "default"
        }
    if isinstance(definition, list):
        return [_partial(item) for item in definition]
    return definition
