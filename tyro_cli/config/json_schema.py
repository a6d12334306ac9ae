"""The JSON Schemas of experiment and study files, for editors: completion, hover text, checks.

They are generated from `schema` and `studies`, so they cannot drift from what is accepted. Whatever
an editor refuses, the loader refuses (but for a level that a study excludes everywhere); rules over
several keys are the loader's alone. Arms, and files that extend another one, may leave any key out,
so both use partial copies of the sections.
"""

import copy
from typing import Any

from tyro_cli.config.messages import known_paths
from tyro_cli.config.schema import SECTIONS_OF_AN_ARM, Experiment, Match, Settings
from tyro_cli.config.studies import Study

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PARTIAL = "Partial"
_REFERENCE = "#/$defs/"


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
            **{key: copy.deepcopy(partial["properties"][key]) for key in SECTIONS_OF_AN_ARM},
            "match": {
                "$ref": "#/$defs/Match",
                "description": "Solve one model key for the parameter count of another arm.",
            },
        },
    }
    for experiment in (full, partial):
        _name_entries(experiment["properties"]["arms"], "Arm", full["properties"]["name"])
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


def study_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a study file.

    A level must be what its key may hold in an experiment; whether it fits the base is not asked.
    """
    experiment = Experiment.model_json_schema()
    definitions: dict[str, Any] = experiment["$defs"]
    varied = [
        key
        for key in known_paths(Settings)
        if "." in key and key.partition(".")[0] in SECTIONS_OF_AN_ARM
    ]
    factor = {
        "type": "object",
        "description": "The keys that the factor sets, each with a list of levels.",
        "additionalProperties": False,
        "minProperties": 1,
        "properties": {key: _levels(_schema_at(experiment, key)) for key in varied},
    }
    study = Study.model_json_schema()
    own = study.pop("$defs", {})
    properties = study["properties"]
    _name_entries(properties["factors"], "Factor", properties["name"])
    properties["exclude"]["items"]["minProperties"] = 1
    used = {name: definitions[name] for name in _used_by(factor, definitions, set())}
    named = {"Factor": factor, **own, **used}
    return {
        "$schema": _DIALECT,
        **_on_one_line(study | {"title": "wtie study"}),
        "$defs": {name: _on_one_line(one) for name, one in sorted(named.items())},
    }


def _levels(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a list of a key's values, under the key's own description."""
    told = {key: value for key, value in schema.items() if key == "description"}
    level = {key: schema[key] for key in schema if key not in ("description", "default", "title")}
    return {"type": "array", "minItems": 1, "items": level, **told}


def _schema_at(root: dict[str, Any], dotted: str) -> dict[str, Any]:
    """Return the schema of a key, through references and the alternatives to a section."""
    schema = root
    for part in dotted.split("."):
        options = (schema, *schema.get("anyOf", ()), *schema.get("oneOf", ()))
        reference = next((one["$ref"] for one in options if "$ref" in one), None)
        section = root["$defs"][reference.removeprefix(_REFERENCE)] if reference else schema
        schema = section["properties"][part]
    return schema


def _used_by(schema: Any, definitions: dict[str, Any], found: set[str]) -> set[str]:
    """Add to `found` the names of all definitions that a schema refers to, at any remove."""
    if isinstance(schema, dict):
        name = schema.get("$ref", "").removeprefix(_REFERENCE)
        if name and name not in found:
            found.add(name)
            _used_by(definitions[name], definitions, found)
    below = schema.values() if isinstance(schema, dict) else schema
    for one in below if isinstance(schema, dict | list) else ():
        _used_by(one, definitions, found)
    return found


def _name_entries(entries: dict[str, Any], definition: str, name: dict[str, Any]) -> None:
    """Say of a map that each of its keys is a name, and that each value fits the definition."""
    entries.pop("patternProperties", None)
    entries["additionalProperties"] = {"$ref": _REFERENCE + definition}
    entries["propertyNames"] = {key: name[key] for key in ("pattern", "maxLength")}


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
