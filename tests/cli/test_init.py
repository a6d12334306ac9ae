"""`wtie init` writes a configuration that works as it is, and never over a file."""

import pytest

from tyro_cli.config.loading import load_experiment


def test_the_file_loads(wtie, in_empty_folder):
    result = wtie("init", "new/folder")
    path = in_empty_folder / "new" / "folder" / "wtie.yaml"
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "wrote new/folder/wtie.yaml"
    loaded = load_experiment(path)
    assert list(loaded.arms) == ["untied", "tied"]
    assert loaded.experiment.seeds == (0, 1, 2)


def test_what_is_commented_out_loads_too(wtie, in_empty_folder):
    wtie("init")
    path = in_empty_folder / "wtie.yaml"
    text = path.read_text()
    for line in ("splits:", "tied-wide:"):
        assert f"# {line}" in text
        text = text.replace(f"# {line}", line)
    path.write_text(text)
    loaded = load_experiment(path)
    assert loaded.arms["tied-wide"].match is not None
    assert loaded.experiment.data.splits.valid == "dev"


def test_nothing_is_written_over(wtie, in_empty_folder):
    path = in_empty_folder / "wtie.yaml"
    path.write_text("mine")
    result = wtie("init")
    assert result.exit_code == 2
    assert path.read_text() == "mine"


def test_not_through_a_dangling_link_either(wtie, in_empty_folder):
    (in_empty_folder / "wtie.yaml").symlink_to(in_empty_folder / "elsewhere")
    assert wtie("init").exit_code == 2
    assert not (in_empty_folder / "elsewhere").exists()


def test_a_folder_that_cannot_be(wtie, in_empty_folder):
    (in_empty_folder / "file").write_text("")
    result = wtie("init", "file/below")
    assert result.exit_code == 1
    assert "file/below" in result.stderr
    assert "bug" not in result.stderr


@pytest.mark.parametrize("word", ["Question:", "Cost:", "tying", "margin"])
def test_the_file_explains_itself(wtie, in_empty_folder, word):
    wtie("init")
    assert word in (in_empty_folder / "wtie.yaml").read_text()
