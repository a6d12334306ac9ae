"""What a manifest says of its surroundings."""

from tyro_cli.experiments.environment import describe_environment
from tyro_cli.storage.files import encode_json


def test_a_word_that_is_no_unicode_can_stand_in_a_manifest():
    """Linux hands a file name that is not UTF-8 over as lone surrogates."""
    command = describe_environment(["wtie", "caf\udce9.yaml"], "cpu")["command"]
    assert command == ["wtie", "caf\\xe9.yaml"]
    encode_json({"command": command}).encode("utf-8")
