"""The shipped flow transformer: whole, trained, and served by every verb like its elder sister."""

from dataclasses import replace
from pathlib import Path

import pytest

from nulltext.cli.main import main
from nulltext.data import Frame
from nulltext.data.picture import Picture, picture_from
from nulltext.editing import Edit, edit
from nulltext.evaluation.selfcheck import UNTRAINED, network_error
from nulltext.farmyard.world import HELD_OUT_SEEDS, draw
from nulltext.farmyard.world.worlds import WORLD_128
from nulltext.inversion import METHODS
from nulltext.inversion.invert import invert
from nulltext.models import DiffusionModel, check_model, shipped

SCENE = WORLD_128.random_scene(HELD_OUT_SEEDS[77])


@pytest.fixture(scope="module")
def flow() -> DiffusionModel:
    return DiffusionModel.from_pretrained("farmyard-flow")


@pytest.fixture(scope="module")
def picture(flow) -> Picture:
    caption = WORLD_128.caption(SCENE)
    return picture_from(draw(SCENE, 128), Frame(size=flow.default_size), prompt=caption)


def test_it_is_whole_a_flow_and_knows_the_larger_world(flow):
    assert check_model("farmyard-flow") == shipped.PRETRAINED_FLOW
    assert (flow.kind, flow.default_size, flow.latent_channels) == ("flow", 128, 12)
    assert {"snowman", "night", "goose"} & set(flow.known_words or ())


def test_all_shipped_weights_together_are_small():
    folders = (shipped.PRETRAINED, shipped.PRETRAINED_FLOW)
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    assert size <= 60 * 2**20


def test_its_network_is_trained(flow, picture):
    assert network_error(flow, picture) < UNTRAINED / 2


@pytest.mark.parametrize(("start", "inner_steps", "gain"), [(0.0, 5, 3), (0.9, 2, 5)])
def test_guidance_leaves_the_picture_and_null_text_comes_back(flow, picture, start, inner_steps, gain):
    quick = {"steps": 8, "guidance_scale": 5.0}
    learned = METHODS["null_text"](**quick, inner_steps=inner_steps, start=start)
    far, near = (invert(flow, picture, method=method).psnr for method in (METHODS["ddim"](**quick), learned))
    assert near > far + gain


def test_an_edit_of_it_is_judged_by_the_clip_beside_it(flow, picture):
    inversion = invert(flow, picture, method=METHODS["negative_prompt"](steps=8, guidance_scale=5.0))
    target = WORLD_128.caption(replace(SCENE, animal="dog", colour="white"))
    (result,) = edit(flow, inversion, Edit(target, guidance_scale=3.0)).results
    assert 1 <= len(result.verdict) <= 2  # colour and animal, side by side or apart
    assert bool(result.picture.isfinite().all())


def test_fit_and_edit_take_it_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--help"]) == 0
    from nulltext.farmyard.__main__ import main as farmyard

    assert farmyard(["draw", "scene.jpg", "--world", "128"]) == 0
    quick = ["--model.steps", "4", "--model.inner_steps", "1", "--device", "cpu"]
    assert main(["fit", "--config", "flow.yaml", "--data.image", "scene.jpg", *quick]) == 0
    assert main(["edit", "--inversion", "lightning_logs/version_0", "--set", "at night"]) == 0
    assert "target prompt" in capsys.readouterr().out
    assert list(Path("lightning_logs/version_0/scene/edits").glob("*.png"))
