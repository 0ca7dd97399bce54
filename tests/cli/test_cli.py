"""What a person types: help, configs by name, one-line errors, a whole run, stops and resumes."""

import gc
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from nulltext import imports
from nulltext.cli import main
from nulltext.cli.fit import FitCLI
from nulltext.cli.parser import explain
from nulltext.cli.words import find_config, find_configs
from nulltext.errors import UserError
from nulltext.inversion.file import Inversion

ROOT = Path(__file__).parents[2]
FIT_CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.yaml") if "bench" not in path.name)
FAMILIES = {
    "sd21": "tiny_sd_v",
    "sdxl": "tiny_sdxl",
    "sd3": "tiny_sd3",
    "flux": "tiny_flux",
    "chroma": "tiny_chroma",
}
"""The tiny model of a config by the beginning of its name."""


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A working folder with a picture that says what it shows."""
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x010E] = "a photo of a sheep"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((40, 48)).save("sheep.jpg", exif=exif)
    return tmp_path


def fit(tiny_sd, *words):
    short = ["--model.steps", "3", "--data.batch_size", "1"]
    return main(["fit", "--model.pretrained", str(tiny_sd), *short, *words])


def errors(capsys):
    """The one line on standard error."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("nulltext: error: ")
    return lines[0]


def test_help_and_version_import_no_torch_and_are_fast():
    for words, expected in (
        (["--help"], "python main.py fit --config nulltext.yaml"),
        (["--version"], "nulltext 0."),
    ):
        started = time.perf_counter()
        code = (
            f"import sys; sys.argv = ['main.py', *{words!r}]; from nulltext.cli import main; code = main(); "
        )
        check = "assert 'torch' not in sys.modules and code == 0"
        done = subprocess.run(
            [sys.executable, "-c", code + check], capture_output=True, text=True, check=True
        )
        assert expected in done.stdout
        assert time.perf_counter() - started < 0.5


def test_fit_help_shows_our_options_first_and_names_the_trainers(capsys):
    assert main(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 120
    assert text.index("--data.image") < text.index("--model.steps") < text.index("--trainer.precision")
    assert "--trainer.overfit_batches" not in text


@pytest.mark.parametrize("words", [[], ["--model.method", "negative_prompt"]])
def test_fit_help_is_that_of_the_parser_that_reads_the_options(words, capsys):
    assert main(["fit", *words, "--help"]) == 0
    quick = capsys.readouterr().out
    with pytest.raises(SystemExit):
        FitCLI([*words, "--help"])
    assert quick == capsys.readouterr().out
    assert ("--model.corrections" in quick) == bool(words)


@pytest.mark.parametrize("verb", ["fit", "edit", "test", "check", "app"])
def test_help_imports_none_of_the_large_libraries(verb):
    code = f"""
import sys
from nulltext.cli import main
assert main([{verb!r}, "--help"]) == 0
large = {{"lightning", "torchmetrics", "diffusers", "transformers", "matplotlib", "gradio"}} & set(sys.modules)
assert not large, large
"""
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)


def test_the_garbage_collector_rests_during_imports_and_forgets_them_on_the_command_line_alone(monkeypatch):
    frozen = gc.get_freeze_count()
    with imports.no_collection():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == frozen
    monkeypatch.setattr(imports, "one_command", True)
    try:
        with imports.no_collection():
            pass
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()


def test_print_config_is_complete(capsys):
    assert main(["fit", "--config", "nulltext", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["pretrained"] == "farmyard"
    assert {"precision", "accelerator", "default_root_dir"} <= config["trainer"].keys()


def test_configs_are_found_by_name(room):
    shipped = ROOT / "configs" / "nulltext.yaml"
    assert find_config("nulltext.yaml") == find_config("nulltext") == shipped
    (room / "configs").mkdir()
    (room / "configs" / "nulltext.yaml").write_text("model: {steps: 3}\n")
    assert find_config("nulltext") == Path("configs/nulltext.yaml")
    (room / "nulltext.yaml").write_text("model: {steps: 4}\n")
    assert find_config("nulltext") == Path("nulltext.yaml")
    assert find_configs(["--config=paper", "-c", "sd15"])[1::2] == [
        str(ROOT / "configs" / name) for name in ("paper.yaml", "sd15.yaml")
    ]
    with pytest.raises(UserError, match=r"no config nix .*paper\.yaml"):
        find_config("nix")


@pytest.mark.parametrize("name", FIT_CONFIGS)
def test_every_config_runs(name, room, request):
    tiny = next((model for start, model in FAMILIES.items() if name.startswith(start)), "tiny_sd")
    folder = request.getfixturevalue(tiny)
    options = ["--model.pretrained", str(folder), "--model.steps", "2", "--data.image", "sheep.jpg"]
    assert main(["fit", "--config", name, *options]) == 0
    facts = json.loads(Path("lightning_logs/version_0/sheep/metrics.json").read_text())
    config = yaml.safe_load((ROOT / "configs" / name).read_text())
    for key in config["model"].keys() & facts["settings"].keys() - {"pretrained", "steps"}:
        assert facts["settings"][key] == config["model"][key]
    assert facts["settings"]["precision"] == config.get("trainer", {}).get("precision", "32-true")


def test_a_run_leaves_its_folder_and_says_what_came_out(room, tiny_sd, capsys):
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--data.crop", "none") == 0
    said = capsys.readouterr().out.strip().splitlines()
    run = room / "lightning_logs" / "version_0"
    assert {path.name for path in run.iterdir() if "tfevents" not in path.name} == {
        "config.yaml",
        "metrics.csv",
        "checkpoints",
        "sheep",
    }
    assert {path.name for path in (run / "sheep").iterdir()} == {
        "inversion.safetensors",
        "original.png",
        "vae.png",
        "ddim.png",
        "reconstruction.png",
        "report.png",
        "metrics.json",
    }
    assert list(run.glob("events.out.tfevents.*")) and (run / "checkpoints" / "last.ckpt").is_file()
    numbers = json.loads((run / "sheep" / "metrics.json").read_text())
    assert "VAE bound" in said[-1] and "python main.py edit --inversion lightning_logs/version_0" in said[-1]
    assert f"{numbers['psnr_null_text']:.2f} dB" in said[-1]
    assert numbers["settings"]["size"] == [36, 30]  # 48 x 40 at about 32 x 32 pixels, multiples of 2
    assert Image.open(run / "sheep" / "original.png").size == (30, 36)


def test_its_own_config_does_the_same_run_again(room, tiny_sd):
    assert fit(tiny_sd, "--data.image", "sheep.jpg") == 0
    assert main(["fit", "--config", "lightning_logs/version_0/config.yaml"]) == 0
    first, second = (load_file(f"lightning_logs/version_{n}/sheep/inversion.safetensors") for n in (0, 1))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_config_may_stand_before_the_verb(room, tiny_sd):
    Path("mine.yaml").write_text("model: {steps: 2}\ndata: {image: sheep.jpg}\n")
    assert main(["--config", "mine", "fit", "--model.pretrained", str(tiny_sd)]) == 0
    assert len(load_file("lightning_logs/version_0/sheep/inversion.safetensors")["null_embeddings"]) == 2


@pytest.mark.parametrize(
    "words, message",
    [
        (["fti"], "did you mean fit"),
        (["--steps", "3"], "belongs after a verb"),
        (["fit", "--config", "nix"], "no config nix"),
        (["fit", "--config"], "needs a name"),
        (["fit", "--model.stepz", "3"], "did you mean --model.steps"),
        (["fit", "--steps", "3"], "did you mean --model.steps"),
        (["fit", "--model.steps", "many"], "--model.steps: Expected an int. Got value: many"),
        (["fit", "stray"], "--data.image stray"),
        (["fit", "--data.image"], "--data.image needs a value, such as --data.image sheep.jpg"),
        (
            ["fit", "--data.size", "[1, 2, 3]", "--data.image", "sheep.jpg"],
            "size '[1, 2, 3]' is not understood",
        ),
        (["fit"], "which picture"),
        (["fit", "--data.image", "nix.jpg"], "no such picture: nix.jpg"),
        (["fit", "--data.image", "sheep.jpg", "--model.steps", "0"], "between 1 and 1000"),
        (["fit", "--data.image", "sheep.jpg", "--model.steps", "1001"], "between 1 and 1000"),
        (["fit", "--data.image", "sheep.jpg", "--trainer.precision", "bf16-true"], "bf16-mixed"),
        (["fit", "--data.image", "sheep.jpg", "--trainer.precision", "16-true"], "16-mixed"),
        (["fit", "--data.image", "sheep.jpg", "--ckpt_path", "last"], "no run to resume"),
        (["fit", "--data.image", "sheep.jpg", "--ckpt_path", "nix.ckpt"], "no checkpoint nix.ckpt"),
        (["fit", "--data.image", "sheep.jpg", "--ckpt_path", "sheep.jpg"], "damaged or no checkpoint"),
        (["fit", "--data.image", "sheep.jpg", "--trainer.accelerator", "abacus"], "abacus"),
        (["fit", "--data.image", "sheep.jpg", "--model.pretrained", "."], "model_index.json"),
        (["fit", "--data.image", "sheep.jpg", "--model.init", "nix.safetensors"], "nix.safetensors"),
    ],
)
def test_a_mistake_is_one_line_and_code_2_and_leaves_nothing(words, message, room, capsys):
    assert main(words) == 2
    assert message in errors(capsys)
    assert os.listdir(room) == ["sheep.jpg"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("model:\n  stepz: 3\n", "did you mean --model.steps"),
        ("model: [\n", "parsing"),
        ("- 1\n- 2\n", "holds no settings"),
        ("model:\n  steps: three\n", "Got value: three"),
        ("", "holds no settings"),
    ],
)
def test_a_wrong_yaml_is_one_line(text, message, room, capsys):
    Path("wrong.yaml").write_text(text)
    assert main(["fit", "--config", "wrong"]) == 2
    assert message in errors(capsys)


def test_an_unwritable_folder_is_one_line(room, tiny_sd, capsys):
    (room / "file").write_text("in the way")
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--trainer.default_root_dir", str(room / "file")) == 2
    assert "--trainer.default_root_dir" in errors(capsys)


def test_a_damaged_checkpoint_and_a_foreign_one_are_refused(room, tiny_sd, capsys):
    torch.save({"state_dict": {}, "epoch": 3}, "foreign.ckpt")
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--ckpt_path", "foreign.ckpt") == 2
    assert "no checkpoint" in errors(capsys)
    Path("half.ckpt").write_bytes(Path("foreign.ckpt").read_bytes()[:-200])
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--ckpt_path", "half.ckpt") == 2
    assert "damaged" in errors(capsys)


def test_a_checkpoint_that_runs_code_runs_none(room, tiny_sd, capsys):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, ("owned",)

    Path("evil.ckpt").write_bytes(pickle.dumps({"state_dict": Evil(), "nulltext": 1, "loops": 1}))
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--ckpt_path", "evil.ckpt") == 2
    assert "damaged or no checkpoint" in errors(capsys) and not Path("owned").exists()


def test_several_pictures_with_a_broken_one_end_with_code_1(room, tiny_sd, capsys):
    Path("broken.jpg").write_bytes(b"no picture")
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "broken.jpg") == 1
    out = capsys.readouterr().out
    assert "skipped broken.jpg: is not a picture" in out
    assert Path("lightning_logs/version_0/sheep/inversion.safetensors").is_file()


def test_empty_prompt_and_guidance_1_are_allowed_and_said(room, tiny_sd, capsys):
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--data.prompt", "") == 0
    assert "nothing to guide" in capsys.readouterr().out
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--model.guidance_scale", "1", "--model.start", "0") == 0
    assert "stay as they start" in capsys.readouterr().out
    learned = load_file("lightning_logs/version_1/sheep/inversion.safetensors")["null_embeddings"]
    assert torch.equal(learned, learned[:1].expand_as(learned))


def start(tiny_sd, room, *words):
    command = [sys.executable, str(ROOT / "main.py"), "fit", "--model.pretrained", str(tiny_sd)]
    options = ["--data.image", "sheep.jpg", "--model.steps", "400", "--curves.images_every", "0"]
    return subprocess.Popen(
        [*command, *options, *words], cwd=room, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_how_to_go_on_and_its_exit_code_says_why(number, code, room, tiny_sd):
    run = start(tiny_sd, room)
    checkpoint = room / "lightning_logs/version_0/checkpoints/last.ckpt"
    until = time.monotonic() + 300
    while not checkpoint.is_file() and time.monotonic() < until:
        time.sleep(0.05)
    run.send_signal(number)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == code, said
    assert "--ckpt_path lightning_logs/version_0/checkpoints/last.ckpt" in said
    cursor = int(torch.load(checkpoint, weights_only=True)["state_dict"]["cursor"])
    assert 0 < cursor < 400


def test_last_takes_up_the_run_in_its_own_folder_to_the_same_bits(room, tiny_sd, monkeypatch):
    from nulltext.training.curves import Curves

    assert fit(tiny_sd, "--data.image", "sheep.jpg") == 0
    whole = load_file("lightning_logs/version_0/sheep/inversion.safetensors")

    class Crash(Exception):
        pass

    def crash(self, trainer, pl_module, *_):
        if pl_module.record.step == 1:
            raise Crash

    with monkeypatch.context() as broken, pytest.raises(Crash):
        broken.setattr(Curves, "on_train_batch_end", crash)
        fit(tiny_sd, "--data.image", "sheep.jpg")
    assert not Path("lightning_logs/version_1/sheep").exists()
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--ckpt_path", "last") == 0
    assert sorted(os.listdir("lightning_logs")) == ["version_0", "version_1"]
    resumed = load_file("lightning_logs/version_1/sheep/inversion.safetensors")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_finished_run_has_nothing_left_to_do(room, tiny_sd, capsys):
    assert fit(tiny_sd, "--data.image", "sheep.jpg") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("lightning_logs").rglob("*.png")}
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--ckpt_path", "lightning_logs/version_0") == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in Path("lightning_logs").rglob("*.png")}


def test_a_run_that_its_trainer_ends_early_says_how_to_go_on(room, tiny_sd, capsys):
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--trainer.limit_train_batches", "2") == 0
    said = capsys.readouterr().out
    assert "--ckpt_path lightning_logs/version_0/checkpoints/last.ckpt" in said and "finished" not in said
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--trainer.fast_dev_run", "true") == 0


def config_of(run=0):
    return yaml.safe_load(Path(f"lightning_logs/version_{run}/config.yaml").read_text())


def test_device_and_precision_are_short_for_the_trainers(room, tiny_sd):
    words = ["--data.image", "sheep.jpg", "--trainer.precision", "16-mixed", "--precision", "bf16"]
    assert fit(tiny_sd, *words, "--device", "cpu") == 0
    config = config_of()
    assert config["trainer"]["precision"] == "bf16-mixed" and config["trainer"]["accelerator"] == "cpu"
    assert config["precision"] is None and config["device"] is None
    facts = json.loads(Path("lightning_logs/version_0/sheep/metrics.json").read_text())
    assert facts["settings"]["precision"] == "bf16-mixed"
    Path("mine.yaml").write_text("precision: 32\ndevice: auto\n")
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--config", "mine") == 0
    assert config_of(1)["trainer"]["precision"] == "32-true"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--device", "cuda:7"], "device cuda:7 is not available here"),
        (["--precision", "bf16-true"], "use bf16-mixed"),
        (["--model.method", "null_txt"], "null_txt"),
        (["--model.method", "ddim", "--model.inner_steps", "3"], "unknown option --model.inner_steps"),
        (["--data.size", "32,48,64"], "size '32,48,64' is not understood"),
    ],
)
def test_a_wrong_place_or_method_is_one_line(words, message, room, capsys):
    assert main(["fit", "--data.image", "sheep.jpg", *words]) == 2
    assert message in errors(capsys)
    assert os.listdir(room) == ["sheep.jpg"]


def test_a_size_is_two_numbers_with_a_comma(room, tiny_sd):
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--data.size", "32,24") == 0
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--data.size=[24, 32]") == 0
    for number, size in enumerate(((32, 24), (24, 32))):
        assert (
            Inversion.load(Path(f"lightning_logs/version_{number}/sheep/inversion.safetensors")).size == size
        )


@pytest.mark.parametrize("method", ["ddim", "negative_prompt", "direct"])
def test_another_method_has_its_own_options_and_leaves_its_inversion(method, room, tiny_sd, capsys):
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--model.method", method) == 0
    assert Inversion.load(Path("lightning_logs/version_0/sheep/inversion.safetensors")).method == method
    capsys.readouterr()
    assert main(["fit", "--config", "lightning_logs/version_0/config.yaml", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["method"] == method


def test_the_first_line_comes_before_the_libraries_and_names_the_model(room):
    for words, expected in (
        (["fit", "--data.image", "none.png", "--model.pretrained", "elsewhere"], "the model elsewhere"),
        (["fit", "--data.image", "none.png"], "the model farmyard"),
        (
            ["test", "--config", "pie_bench.yaml", "--data.folder", "nix"],
            "the model CompVis/stable-diffusion-v1-4",
        ),
        (["edit", "--inversion", "nix", "--prompt", "x"], "the inversion nix"),
    ):
        started = time.perf_counter()
        command = [sys.executable, str(ROOT / "main.py"), *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
            assert run.stdout.readline() == f"nulltext: loading {expected}\n"
            assert time.perf_counter() - started < 1
            run.kill()


def test_a_logger_whose_package_is_missing_is_one_line(room, tiny_sd, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    words = ["--data.image", "sheep.jpg", "--trainer.logger", "lightning.pytorch.loggers.WandbLogger"]
    assert fit(tiny_sd, *words) == 2
    assert "package that is missing" in (line := errors(capsys)) and "wandb" in line


def test_a_trial_run_is_not_called_stopped(room, tiny_sd, capsys):
    assert fit(tiny_sd, "--data.image", "sheep.jpg", "--trainer.fast_dev_run", "true") == 0
    assert "--ckpt_path" not in capsys.readouterr().out


def test_a_model_that_fails_to_load_leaves_no_run_folder(room, tiny_sd, tmp_path_factory, capsys):
    broken = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(tiny_sd, broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensors[name] for name in sorted(tensors)[1:]}, weights)
    assert fit(broken, "--data.image", "sheep.jpg") == 2
    errors(capsys)
    assert os.listdir(room) == ["sheep.jpg"]


def test_the_last_line_has_the_pictures_own_prompt_quoted_for_the_shell(room, tiny_sd, capsys):
    prompt = "a sheep's \N{SHEEP} barn"
    (room / "sheep.jpg").rename("\N{SHEEP} [1].jpg")
    assert fit(tiny_sd, "--data.image", "\N{SHEEP} [1].jpg", "--data.prompt", prompt) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    words = shlex.split(last[last.index("main.py") :])
    assert words[1:] == ["edit", "--inversion", "lightning_logs/version_0", "--prompt", prompt]
    assert "change words of the prompt" in last
    assert main(words[1:]) == 0


def test_explain_speaks_the_command_lines_words():
    union = (
        'Parser key "data.size":\n  Does not validate against any of the Union subtypes\n  Subtypes: '
        "[<class 'int'>, tuple[int, int], <class 'NoneType'>]\n  Errors:\n    - no\n  Given value type: "
        "<class 'list'>\n  Given value: [1]"
    )
    assert explain(union, []) == "--data.size: Expected one of int, tuple[int, int], null. Got value: [1]"
    assert (
        explain("unrecognized arguments: --nix 3", []) == "unknown option --nix; --help lists those there are"
    )
    assert not re.search(r"\n", explain("one\ntwo", []))
