"""The words of a command line, as shells and people give them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nulltext.cli.main import main, printable
from nulltext.cli.words import Listed, find_value, gather, hashed, tidy
from nulltext.errors import UserError

ROOT = Path(__file__).parents[2]
IMAGES = Listed("--data.image", "sheep.jpg")
PROMPTS = Listed("--prompt", "'a horse'", greedy=False)
METHODS = Listed("--methods", "ddim,null_text", commas=True)
SHEEP = "a sheep \N{SHEEP} on \N{FIRE}"


def test_several_words_become_one_list():
    assert gather(["--a", "1", "--data.image", "x.png", "y z.png", "--b"], IMAGES) == [
        "--a",
        "1",
        "--b",
        '--data.image=["x.png", "y z.png"]',
    ]
    assert gather(["--data.image=null", "--data.image", "1"], IMAGES) == ['--data.image=["null", "1"]']


def test_an_option_that_may_be_given_many_times_takes_one_word_each():
    words = ["--prompt", "a horse", "--prompt=a cow", "rest"]
    assert gather(words, PROMPTS) == ["rest", '--prompt=["a horse", "a cow"]']


def test_a_list_with_commas_in_any_spelling():
    for words in (
        ["--methods", "ddim,null_text"],
        ["--methods", "ddim", "null_text"],
        ["--methods=ddim, null_text"],
        ["--methods", "[ddim,null_text]"],
    ):
        assert gather(words, METHODS) == ['--methods=["ddim", "null_text"]']


@pytest.mark.parametrize("words", [["--prompt"], ["--prompt", "--kind", "plain"]])
def test_an_option_without_its_value_is_the_users_error(words):
    with pytest.raises(UserError, match="--prompt needs a value, such as --prompt 'a horse'"):
        gather(words, PROMPTS)


def test_characters_beyond_the_basic_plane_arrive_whole():
    (word,) = gather(["--prompt", SHEEP], PROMPTS)
    assert yaml.safe_load(word.removeprefix("--prompt=")) == [SHEEP]
    halves = SHEEP.encode("utf-16-le").decode("utf-16-le", "surrogatepass")
    pairs = json.loads(json.dumps(SHEEP).replace("\\ud83d\\udc11", "\\ud83d X").replace(" X", "\\udc11"))
    assert tidy([halves, pairs]) == [SHEEP, SHEEP]
    assert tidy(["\ud83d\udc11", "\udcff"]) == ["\N{SHEEP}", "\udcff"]


def test_a_prompt_with_emoji_and_what_else_yaml_might_read_as_its_own(capsys):
    for prompt in (
        SHEEP,
        "a sheep: white",
        "[a|b] sheep",
        "123",
        "{a}",
        "- a sheep",
        "a 'sheep'",
    ):
        assert main(["fit", "--data.prompt", prompt, "--print_config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["data"]["prompt"] == prompt


def test_words_that_a_locale_without_utf8_could_not_read_are_read_all_the_same():
    code = "import sys; sys.argv[0] = 'main.py'; from nulltext.cli import main; sys.exit(main())"
    script = ROOT / "main.py"
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    environment = {**plain, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    for command in ([sys.executable, str(script)], [sys.executable, "-c", code]):
        words = [*command, "fit", "--data.prompt", SHEEP, "--print_config"]
        done = subprocess.run(words, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert yaml.safe_load(done.stdout)["data"]["prompt"] == SHEEP


def test_the_home_folder_is_found_after_an_equals_sign_too():
    home = os.path.expanduser("~")
    assert tidy(["--data.image=~/a.jpg", "~/b.jpg", "~", "a ~/c", "--prompt", "~ sheep"]) == [
        f"--data.image={home}/a.jpg",
        f"{home}/b.jpg",
        "~",
        "a ~/c",
        "--prompt",
        "~ sheep",
    ]


def test_a_value_is_found_in_words_and_configs_the_last_one_first(tmp_path):
    (tmp_path / "a.yaml").write_text("model: {method: ddim, steps: 3}\n")
    (tmp_path / "b.yaml").write_text("data: {prompt: x}\n")
    config, other = ["--config", str(tmp_path / "a.yaml")], ["--config", str(tmp_path / "b.yaml")]
    assert find_value(["--model.method", "direct"], "model.method") == "direct"
    assert find_value(["--model.method=direct", *config], "model.method") == "ddim"
    assert find_value([*config, *other, "--model.method=direct"], "model.method") == "direct"
    assert find_value([*config, *other], "model.method") == "ddim"
    assert find_value([*other, "--config", str(tmp_path / "none.yaml")], "model.method") is None
    assert find_value(["--model.method"], "model.method") is None


def test_an_error_is_one_line_that_commands_no_terminal():
    assert printable("one\ntwo \x1b[2J \u202e \N{FAMILY} \U0001f468\u200d\U0001f469") == (
        "one two ?[2J ? \N{FAMILY} \U0001f468\u200d\U0001f469"
    )


def test_a_prompt_that_begins_with_a_hash_is_no_comment():
    prompt = "# 1 sheep \U0001f411"
    assert hashed(["--data.prompt", prompt], "--data.prompt") == prompt
    assert hashed(["--data.prompt=a", f"--data.prompt={prompt}"], "--data.prompt") == prompt
    assert hashed(["--data.prompt", "a sheep", "--data.image", "#1.png"], "--data.prompt") is None
