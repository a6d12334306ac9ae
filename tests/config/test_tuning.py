"""`tune:` in an experiment: its settings and their names, and every search that is refused."""

import pytest

from tests.config.conftest import VALID
from tyro_cli.config.studies import load_study
from tyro_cli.config.tuning import MOST_SETTINGS, grid_settings, in_words, named_setting
from tyro_cli.errors import ConfigurationError

RATE = "training.optimizer.learning_rate"
HEAD = "training.optimizer.roles.head.rate"
GRID = f"  grid:\n    {RATE}: [1e-4, 3e-4, 1e-3]\n"
SEEDS = "  seeds: 100-101\n"
LINE = VALID.count("\n") + 1
TUNED = VALID + "tune:\n" + GRID + SEEDS


def values(loaded):
    return [tuple(setting.values.values()) for setting in grid_settings(loaded.experiment)]


def test_every_combination_is_a_setting_the_first_key_slowest(load):
    loaded = load(TUNED.replace("1e-3]\n", f"1e-3]\n    {HEAD}: [0.5, 1]\n"))
    assert values(loaded) == [(r, m) for r in (1e-4, 3e-4, 1e-3) for m in (0.5, 1.0)]
    assert loaded.experiment.tune.seeds == (100, 101)
    assert loaded.experiment.tune.shared == "own"
    assert loaded.experiment.tune.budget is None


def test_the_experiments_own_setting_is_named_so_and_others_by_what_they_change(load):
    names = [setting.name for setting in grid_settings(load(TUNED).experiment)]
    assert names[1] == "own"
    assert len(set(names)) == 3
    own = {RATE: 3e-4, HEAD: 1.0}
    # A key that is added later leaves the old trials what they were.
    assert named_setting({RATE: 1e-4, HEAD: 1.0}, own).name == names[0]
    assert named_setting({HEAD: 1.0, RATE: 1e-4}, own).name == names[0]
    assert named_setting({RATE: 1e-4, HEAD: 2.0}, own).name != names[0]


def test_a_setting_in_words():
    assert in_words({RATE: 1e-3, HEAD: 0.5}) == "learning_rate 0.001, head.rate 0.5"


def test_an_experiment_without_a_search_has_none(load):
    assert load().experiment.tune is None


def test_the_command_line_lays_a_search_over_the_files(load):
    loaded = load(TUNED, [f"tune.grid.{RATE}=[1e-2, 2e-2]", "tune.shared=baseline-best"])
    assert values(loaded) == [(1e-2,), (2e-2,)]
    assert loaded.experiment.tune.shared == "baseline-best"


def test_a_budget_on_the_command_line_replaces_the_files(load):
    loaded = load(TUNED + "  budget: {steps: 5}\n", ["tune.budget.tokens=640"])
    assert loaded.experiment.tune.budget.tokens == 640
    assert loaded.experiment.tune.budget.steps is None


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        (RATE, "training.optimizer.learning_rat", "2:5", "did you mean 'training.optimizer.lea"),
        (RATE, "training.optimizer.weight_decay", "2:5", "must be one of training.optimizer.lea"),
        (RATE, "model.d_model", "2:5", "must be one of training.optimizer.learning_rate"),
        ("[1e-4, 3e-4, 1e-3]", "[]", "2:5", "holds no value; a search needs two or more"),
        ("[1e-4, 3e-4, 1e-3]", "[1e-4]", "2:5", "holds one value; a search needs two or more"),
        ("[1e-4, 3e-4, 1e-3]", "1e-4", "2:39", "must be a list, not 0.0001"),
        ("3e-4, 1e-3]", "fast]", "2:46", "must be a number, not the text 'fast'"),
        ("3e-4, 1e-3]", "1e-4]", "2:46", "0.0001 stands twice"),
        ("3e-4, 1e-3]", "0]", "2:46", "must be greater than 0, not 0"),
        ("3e-4, 1e-3]", "1000]", "2:46", "must be at most 100, not 1000"),
        (GRID, "  grid: {}\n", "1:3", "tune.grid: is empty; it needs at least one entry"),
        (GRID, "", "0:1", "tune.grid: is missing"),
        ("100-101", "1-3", "3:10", "1 is a seed of the contrasts too; trials run at seeds that"),
        ("100-101", "[]", "3:3", "tune.seeds: needs at least one seed"),
        (SEEDS, "", "0:1", "tune.seeds: is missing"),
        (SEEDS, SEEDS + "  shared: best\n", "4:11", "must be own or baseline-best, not the text"),
        (SEEDS, SEEDS + "  budgett: {steps: 1}\n", "4:3", "unknown key; did you mean 'budget'?"),
        (SEEDS, SEEDS + "  budget: {steps: 1, tokens: 9}\n", "4:3", "found tokens and steps"),
        (SEEDS, SEEDS + "  budget: {steps: 0}\n", "4:19", "must be at least 1, not 0"),
    ],
)
def test_a_search_that_is_wrong_is_refused_at_its_place(problems, old, new, place, message):
    assert old in TUNED
    said = problems(TUNED.replace(old, new))
    line, column = map(int, place.split(":"))
    assert f"tiny.yaml:{LINE + line}:{column}: " in said
    assert message in said


def test_every_problem_of_a_search_is_said_at_once(problems):
    said = problems(TUNED.replace("1e-4, 3e-4, 1e-3", "-1, 1, 1").replace("100-101", "0-1"))
    for part in ("[0]: must be gr", "[2]: 1 stands twice", "0, 1 are seeds of"):
        assert part in said


def test_a_grid_with_too_many_settings_is_refused(problems):
    roles = ("embedding", "head", "matrices", "vectors")
    keys = "".join(
        f"    training.optimizer.roles.{role}.{kind}: [0.5, 1]\n"
        for role in roles
        for kind in ("rate", "decay")
    )
    said = problems(TUNED.replace(GRID, f"  grid:\n{keys}"))
    assert f"tune.grid: holds 256 combinations, the most is {MOST_SETTINGS}" in said


@pytest.mark.parametrize(
    ("arm", "key", "shown"),
    [
        ("{training: {optimizer: {learning_rate: 1e-3}}}", RATE, "0.001"),
        ("{training: {optimizer: {roles: {head: {rate: 2}}}}}", HEAD, "2"),
    ],
)
def test_an_arm_that_sets_what_is_searched_is_refused(problems, arm, key, shown):
    text = TUNED.replace("untied: {}", f"untied: {arm}").replace(f"{RATE}:", f"{key}:")
    message = f"tune.grid.{key}: the arm 'untied' sets this key itself ({shown}); take it out"
    assert message in problems(text)


@pytest.mark.parametrize("key", [RATE, "training.optimizer"])
def test_a_factor_over_what_is_searched_is_refused(load, tmp_path, key):
    load(TUNED)
    study = tmp_path / "study.yaml"
    study.write_text(f"name: s\nexperiment: tiny.yaml\nfactors:\n  rate: {{{key}: [1e-3, 2e-3]}}\n")
    with pytest.raises(ConfigurationError, match=f"tune: of the experiment searches {RATE}"):
        load_study(study)


def test_arms_cannot_be_named_like_the_folders_of_a_search(problems):
    for name in ("trials", "tuned", "probes.json"):
        said = problems(VALID.replace("  tied:", f"  {name}:"))
        assert f"arms.{name}: is the name of something else in a run folder" in said
