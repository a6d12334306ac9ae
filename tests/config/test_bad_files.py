"""Every kind of file that cannot be an experiment: the message, the place, and no traceback."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.config.conftest import VALID
from tyro_cli.config.loading import load_experiment
from tyro_cli.errors import ConfigurationError

Load = Callable[..., object]
Problems = Callable[..., str]

GOLDEN_TEXT = """\
name: two words
task: language-modelling
data:
  corpus: kjv
  tokenizer: {kind: bpe, vocab_size: 100}
  context_length: 32
  vocab_size: 512
model:
  d_model: 16
  num_layer: 1
  num_heads: "2"
  dropout: 1.5
training:
  budget: {steps: 10, tokens: 5}
  batch_tokens: 65
  batch_tokens: 64
  optimizer: {learning_rate: 3e-x}
evaluation:
arms:
  untied: {}
  tied: {model: {tying: inout}}
  wide: {model: {tying: in-out}, match: {parameters_of: untide, by: dff}}
baseline: tide
seeds: [0, 0]
allow_differences: [training.optimizer.learning_rat]
"""

GOLDEN_MESSAGE = """\
tiny.yaml:1:7: name: the name 'two words' has a character that is not allowed; use letters, \
digits, '.', '_' and '-', and begin with anything but a dot
    1 | name: two words
      |       ^^^^^^^^^
tiny.yaml:2:7: task: must be language-modeling or translation, not the text 'language-modelling'; \
did you mean 'language-modeling'?
    2 | task: language-modelling
      |       ^^^^^^^^^^^^^^^^^^
tiny.yaml:5:38: data.tokenizer.vocab_size: must be at least 258 for bpe (256 bytes, <eos> and what \
is learned), not 100
    5 |   tokenizer: {kind: bpe, vocab_size: 100}
      |                                      ^^^
tiny.yaml:7:3: data.vocab_size: unknown key here; did you mean 'data.tokenizer.vocab_size'?
    7 |   vocab_size: 512
      |   ^^^^^^^^^^
tiny.yaml:8:1: model.num_layers: is missing
    8 | model:
      | ^^^^^
tiny.yaml:10:3: model.num_layer: unknown key; did you mean 'num_layers'?
   10 |   num_layer: 1
      |   ^^^^^^^^^
tiny.yaml:11:14: model.num_heads: must be a whole number, not the text '2'
   11 |   num_heads: "2"
      |              ^^^
tiny.yaml:12:12: model.dropout: must be less than 1, not 1.5
   12 |   dropout: 1.5
      |            ^^^
tiny.yaml:14:3: training.budget: exactly one of tokens, epochs, steps; found tokens and steps
   14 |   budget: {steps: 10, tokens: 5}
      |   ^^^^^^
tiny.yaml:15:17: training.batch_tokens: 65 is not a multiple of data.context_length (32); 64 is
   15 |   batch_tokens: 65
      |                 ^^
tiny.yaml:16:3: training.batch_tokens: the key stands twice; the first one is in line 15
   16 |   batch_tokens: 64
      |   ^^^^^^^^^^^^
tiny.yaml:17:30: training.optimizer.learning_rate: must be a number, not the text '3e-x'
   17 |   optimizer: {learning_rate: 3e-x}
      |                              ^^^^
tiny.yaml:18:1: evaluation: is an empty section; write its keys below it, indented, or take the \
line out
   18 | evaluation:
      | ^^^^^^^^^^
tiny.yaml:21:25: arms.tied.model.tying: must be one of none, in-out, three-way, \
not the text 'inout'; did you mean 'in-out'?
   21 |   tied: {model: {tying: inout}}
      |                         ^^^^^
tiny.yaml:22:57: arms.wide.match.parameters_of: there is no arm 'untide'; did you mean 'untied'?
   22 |   wide: {model: {tying: in-out}, match: {parameters_of: untide, by: dff}}
      |                                                         ^^^^^^
tiny.yaml:22:69: arms.wide.match.by: must be one of d_ff, d_model, num_layers, not the text 'dff'; \
did you mean 'd_ff'?
   22 |   wide: {model: {tying: in-out}, match: {parameters_of: untide, by: dff}}
      |                                                                     ^^^
tiny.yaml:23:11: baseline: there is no arm 'tide'; did you mean 'tied'?
   23 | baseline: tide
      |           ^^^^
tiny.yaml:24:1: seeds: the seed 0 stands twice
   24 | seeds: [0, 0]
      | ^^^^^
tiny.yaml:25:21: allow_differences[0]: there is no key 'training.optimizer.learning_rat'; did you \
mean 'training.optimizer.learning_rate'?
   25 | allow_differences: [training.optimizer.learning_rat]
      |                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"""


def test_all_problems_are_shown_at_once_with_line_and_caret(problems: Problems) -> None:
    assert problems(GOLDEN_TEXT) == GOLDEN_MESSAGE


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "  d_model: 16",
            "  d_modle: 16",
            "tiny.yaml:9:3: model.d_modle: unknown key; did you mean 'd_model'?",
        ),
        (
            "seeds: [0, 1]",
            "seeds: [0, 1]\nmarjin: 2",
            "tiny.yaml:21:1: marjin: unknown key",
        ),
        (
            "num_layers: 1",
            "num_layers: true",
            "tiny.yaml:10:15: model.num_layers: must be a whole number, not true",
        ),
        (
            "num_layers: 1",
            "num_layers: 1.5",
            "tiny.yaml:10:15: model.num_layers: must be a whole number, not 1.5",
        ),
        (
            "corpus: kjv",
            "corpus: 5",
            "tiny.yaml:5:11: data.corpus: must be text, not 5; put it in quotes",
        ),
        (
            "corpus: kjv",
            'corpus: ""',
            "tiny.yaml:5:11: data.corpus: is empty text",
        ),
        (
            "context_length: 32",
            "context_length: 32\n  splits: {test: ../../etc/passwd}",
            "tiny.yaml:8:18: data.splits.test: must be a name without folders",
        ),
        (
            "  budget: {steps: 10}",
            "  budget: {steps: 10}\n  deterministic: yes",
            "tiny.yaml:14:18: training.deterministic: must be true or false, not the text 'yes'",
        ),
        (
            "num_layers: 1",
            "num_layers: -1",
            "tiny.yaml:10:15: model.num_layers: must be at least 0, not -1",
        ),
        (
            "3e-4",
            "0",
            "tiny.yaml:15:30: training.optimizer.learning_rate: must be greater than 0, not 0",
        ),
        (
            "3e-4",
            ".nan",
            "tiny.yaml:15:30: training.optimizer.learning_rate: must be a finite number, not nan",
        ),
        (
            "3e-4",
            "1e999",
            "tiny.yaml:15:30: training.optimizer.learning_rate: must be a finite number, not inf",
        ),
        (
            "num_heads: 2",
            "num_heads: 3",
            "tiny.yaml:11:14: model.num_heads: 3 heads do not divide d_model 16; 2 would",
        ),
        (
            "num_heads: 2",
            "num_heads: 16",
            "tiny.yaml:11:14: model.num_heads: the head size d_model / num_heads = 1 must be even",
        ),
        (
            "batch_tokens: 64",
            "batch_tokens: 60",
            "tiny.yaml:14:17: training.batch_tokens: 60 is not a multiple of data.context_length "
            "(32); 64 is",
        ),
        (
            "batch_tokens: 64",
            "batch_tokens: 96\n  micro_batch_tokens: 64",
            "tiny.yaml:15:23: training.micro_batch_tokens: 64 does not divide "
            "training.batch_tokens (96)",
        ),
        (
            "arms:",
            "evaluation: {stride: 33}\narms:",
            "tiny.yaml:16:22: evaluation.stride: 33 is more than data.context_length (32)",
        ),
        (
            "  batch_tokens: 64",
            "  batch_tokens: 64\n  batch_tokens: 128",
            "tiny.yaml:15:3: training.batch_tokens: the key stands twice; the first one is in "
            "line 14",
        ),
        (
            "  tied: {model",
            "  untied: {model",
            "tiny.yaml:18:3: arms.untied: the key stands twice; the first one is in line 17",
        ),
        ("  budget: {steps: 10}", "  budget: {}", "training.budget: exactly one of tokens"),
        ("  budget: {steps: 10}", "  budget:", "tiny.yaml:13:3: training.budget: is an empty sec"),
        (
            "baseline: untied",
            "baseline: united",
            "tiny.yaml:19:11: baseline: there is no arm 'united'; did you mean 'untied'?",
        ),
        (
            "baseline: untied",
            "baseline: zzz",
            "baseline: there is no arm 'zzz'; the arms are: untied, tied",
        ),
        ("name: tiny", "name: ../tiny", "tiny.yaml:2:7: name: the name '../tiny'"),
        ("name: tiny", "name: a..b", "tiny.yaml:2:7: name: the name 'a..b' has two dots in a row"),
        ("name: tiny", "name: a/b", "tiny.yaml:2:7: name: the name 'a/b'"),
        ("name: tiny", "name: .hidden", "tiny.yaml:2:7: name: the name '.hidden' starts with"),
        ("name: tiny", "name: 2024", "name: must be text, not 2024; put it in quotes"),
        ("name: tiny", "name:", "tiny.yaml:2:1: name: is empty; it must be text"),
        ("  tied: {", "  ../tied: {", "tiny.yaml:18:3: arms.../tied: the name '../tied'"),
        ("  tied: {", "  a\\b: {", "tiny.yaml:18:3: arms.a\\b: the name"),
        ("  tied: {", "  Tables: {", "arms.Tables: is the name of something else in a run folder"),
        ("  tied: {", "  UNTIED: {", "differs from the arm 'untied' by upper and lower case alone"),
        ("  untied: {}", "  untied:", "tiny.yaml:17:3: arms.untied: is an empty arm; write {}"),
        (
            "arms:\n  untied: {}\n  tied: {model: {tying: in-out}}",
            "arms: {}",
            "arms: is empty; it needs at least one entry",
        ),
        ("seeds: [0, 1]", "seeds: []", "seeds: needs at least one seed"),
        ("seeds: [0, 1]", "seeds: [-1]", "tiny.yaml:20:9: seeds[0]: must be at least 0, not -1"),
        ("seeds: [0, 1]", "seeds: [true]", "seeds[0]: must be a whole number, not true"),
        ("seeds: [0, 1]", "seeds: 3", "seeds: must be a list: [3] for that seed alone"),
        ("seeds: [0, 1]", "seeds: 3-1", "seeds: the range 3-1 of seeds runs backwards"),
        ("[0, 1]", "[0, 1]\nallow_differences: model", "allow_differences: must be a list"),
        ("kind: bpe, vocab_size: 512", "kind: bpe", "vocab_size: is missing; the tokenizer bpe"),
        ("bpe, vocab_size: 512", "byte, vocab_size: 256", "must be 257 or absent for byte"),
        ("kind: bpe", "kind: bpee", "must be one of bpe, unigram, word, byte, not the text 'bpee'"),
        ("name: tiny\n", "", "tiny.yaml:2:1: name: is missing"),
        ("name: tiny", "name: !!python/name:os.system x", "name: the tag !!python/name:os.system"),
        ("[0, 1]", "!!python/object/apply:os.system [touch x]", "seeds: the tag !!python/object"),
        ("  budget:", "\tbudget:", "tiny.yaml:13:1: a tab stands here; YAML is indented with"),
        ("name: tiny", "name:\ttiny\n\tx", "a tab stands here"),
        ("name: tiny", "name: 'tiny", "not YAML: found unexpected end of stream"),
        ("name: tiny", "name: @tiny", "put the value in quotes"),
        ("name: tiny", "name: a: b", "tiny.yaml:2:8: not YAML: mapping values are not allowed"),
        ("name: tiny", 'name: "\\UFFFFFFFF"', "a \\U escape names a character beyond Unicode"),
        ("name: tiny", "name: " + "n" * 92, "name: has 92 characters; at most 91 are allowed"),
        ("name: tiny", "name: a\x1bb", "tiny.yaml:2:8: the character U+001B is not allowed"),
        ("name: tiny", 'name: "a\\eb"', "name: the name 'a\\x1bb' has a character"),
        ("name: tiny", "name: *nobody", "there is no anchor &nobody above this alias"),
        ("name: tiny", "name: &a [*a]", "the value of &a holds itself"),
        ("name: tiny", "<<: {a: 1}\nname: tiny", "merge keys are not supported"),
        ("name: tiny", "? [a]\n: b\nname: tiny", "a key must be a word"),
        ("baseline:", "---\nbaseline:", "a second document starts here"),
    ],
)
def test_a_bad_file_is_refused(
    problems: Problems, valid: str, old: str, new: str, expected: str
) -> None:
    assert old in valid
    assert expected in problems(valid.replace(old, new, 1))


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null\n", "---\n..."])
def test_an_empty_file_says_so(problems: Problems, text: str) -> None:
    assert problems(text) == "tiny.yaml: is empty: it holds no key"


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "5\n"])
def test_a_file_without_keys_says_so(problems: Problems, text: str) -> None:
    assert "tiny.yaml:1:1: the file must hold keys (name: and others)" in problems(text)


STUDY = """\
name: sizes
experiment: tiny.yaml
factors: {width: {model.d_model: [8, 16]}}
"""
IS_A_STUDY = """\
tiny.yaml:3:1: factors: the file is a study, not an experiment
    3 | factors: {width: {model.d_model: [8, 16]}}
      | ^^^^^^^"""


def test_a_study_in_an_experiments_place_gets_one_error(problems: Problems) -> None:
    assert problems(STUDY) == IS_A_STUDY
    assert problems(STUDY, ["seeds=0-2"]) == IS_A_STUDY
    assert problems(STUDY + "arms: {tied: {}}\n") == IS_A_STUDY


def test_a_study_that_is_extended_is_named_itself(problems: Problems) -> None:
    Path("sizes.yaml").write_text(STUDY)
    message = problems("extends: sizes.yaml\nseeds: [0]\n")
    assert message == IS_A_STUDY.replace("tiny.yaml:", "sizes.yaml:")


@pytest.mark.parametrize("key", ["factors: {}", "experiment: x.yaml"])
def test_one_key_of_a_study_is_an_unknown_key(problems: Problems, valid: str, key: str) -> None:
    assert "unknown key" in problems(f"{valid}{key}\n")


def test_text_that_is_not_utf8_names_the_byte(problems: Problems) -> None:
    message = problems(b"name: tiny\n# caf\xe9\n")
    assert message == "tiny.yaml:2: is not UTF-8 text: byte 0xe9 at byte offset 16"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_of_other_systems_are_read(
    load: Load, problems: Problems, valid: str, newline: str
) -> None:
    text = "\ufeff" + valid.replace("\n", newline)
    load(text)
    message = problems(text.replace("num_heads: 2", "num_heads: x"))
    assert message.split("\n")[1:] == [
        "   11 |   num_heads: x",
        "      |              ^",
    ]


def _alias_bomb() -> str:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    return "\n".join(levels)


def _deep_alias_chain() -> str:
    """Anchors that each nest 60 deep around the one before: deep without being written deep."""
    levels = ["a0: &a0 x"]
    levels += [f"a{n}: &a{n} {'[' * 60}*a{n - 1}{']' * 60}" for n in range(1, 30)]
    return "\n".join(levels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: " + "[" * 10_000 + "]" * 10_000, "nested deeper than 100 levels"),
        ("a: " + "[" * 10_000, "nested deeper than 100 levels"),
        ("a: " + "{a: " * 10_000, "nested deeper than 100 levels"),
        ("".join(f"{' ' * n}a:\n" for n in range(1_000)), "nested deeper than 100 levels"),
        ("- " * 10_000, "nested deeper than 100 levels"),
        (_alias_bomb(), "more than 5000 values"),
        (_deep_alias_chain(), "nested deeper than 100 levels"),
        ("a: [" + "1," * 30_000 + "]", "more than 5000 values"),
        ("name: x\n" + "#" * 10_000_000, "is larger than 1024 KiB"),
        ("name: " + "x" * 900_000, "has 900000 characters"),
        ("name: [" + "\x00", "the character U+0000 is not allowed"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_hostile_file_is_refused_soon(problems: Problems, text: str, expected: str) -> None:
    start = time.process_time()
    message = problems(text)
    assert expected in message
    assert len(message) < 20_000
    assert time.process_time() - start < 10  # not a timing: without bounds this never ends


def test_a_long_line_is_shown_around_the_caret(problems: Problems, valid: str) -> None:
    message = problems(valid.replace("corpus: kjv", f"corpus: {'x' * 500}, format: odd"))
    message = problems(
        valid.replace("{kind: bpe, vocab_size: 512}", f"{{kind: {'x' * 300}, vocab_size: 2}}")
    )
    lines = message.split("\n")
    assert all(len(line) < 200 for line in lines)
    caret_line = next(line for line in reversed(lines) if "^" in line)
    shown_line = lines[lines.index(caret_line) - 1]
    assert shown_line[caret_line.index("^")] == "2"


def test_the_caret_stands_under_the_value_behind_wide_characters(
    problems: Problems, valid: str
) -> None:
    text = valid.replace("{kind: bpe, vocab_size: 512}", "{kind: bpe, 語: 1, vocab_size: 512}")
    lines = problems(text).split("\n")
    assert lines[0].startswith("tiny.yaml:6:26: data.tokenizer.語: unknown key")
    assert lines[2] == "      |                          ^^"


def test_many_problems_are_counted_not_listed(problems: Problems, valid: str) -> None:
    message = problems(valid + "".join(f"key{n}: 1\n" for n in range(200)))
    assert message.endswith("... and 150 more problems")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "is a folder, not a file"),
        (lambda path: os.mkfifo(path), "is not a regular file"),
    ],
    ids=["missing", "folder", "pipe"],
)
def test_a_path_that_is_no_file(
    tmp_path: Path, make: Callable[[Path], None], expected: str
) -> None:
    path = tmp_path / "x.yaml"
    make(path)
    with pytest.raises(ConfigurationError, match=expected):
        load_experiment(path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\x00b"], ids=["too long", "NUL"])
def test_a_path_that_no_file_can_have(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_experiment(Path(name))


_WORDS = [
    "null",
    "1e5",
    "-1",
    "arms",
    "match",
    "model",
    "untied",
    ".inf",
    "...",
    "---\n",
    "é",
    "🙂",
]
_MARKS = [
    "\n",
    "  ",
    "\t",
    ":",
    ": ",
    "- ",
    "? ",
    ", ",
    "&a ",
    "*a",
    "!!int ",
    ">\n",
    "<<",
    *"[]{}'\"#%@~\0",
]
_FRAGMENTS = st.sampled_from(_WORDS + _MARKS)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(cuts=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 12), _FRAGMENTS), max_size=5))
def test_no_damage_to_a_file_makes_anything_but_a_configuration_error(
    load: Load, valid: str, cuts: list[tuple[int, int, str]]
) -> None:
    text = valid
    for position, length, fragment in cuts:
        text = text[:position] + fragment + text[position + length :]
    try:
        load(text)
    except ConfigurationError as error:
        assert error.message.startswith(("tiny.yaml:", "tiny.yaml: "))


def test_an_empty_section_is_said_once_and_not_for_every_arm(problems: Problems) -> None:
    text = VALID[: VALID.index("model:")] + "model:\n" + VALID[VALID.index("training:") :]
    found = problems(text)
    assert "model: is an empty section" in found
    assert "arms." not in found
