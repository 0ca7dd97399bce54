"""The farmyard's training, part by part: order, schedules, losses, words, files."""

import json
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import nn

from nulltext.errors import UserError
from nulltext.farmyard.__main__ import main
from nulltext.farmyard.recipe.data.cache import cached, draw_seed
from nulltext.farmyard.recipe.data.contrasts import contrasts
from nulltext.farmyard.recipe.data.order import Mixed, Order, Stacked
from nulltext.farmyard.recipe.data.stage_data import StageData
from nulltext.farmyard.recipe.data.textures import fractal, photo_like
from nulltext.farmyard.recipe.data.tokenizer import MAX_TOKENS, captions_of, train_tokenizer
from nulltext.farmyard.recipe.stages.clip import contrastive_loss
from nulltext.farmyard.recipe.stages.flow import RepeatedRow, Shape, flow_times, make_transformer
from nulltext.farmyard.recipe.stages.group_norm import FastGroupNorm
from nulltext.farmyard.recipe.stages.training import MovingAverage, warm_flat_cosine
from nulltext.farmyard.recipe.stages.unet import min_snr_weight, stratified_timesteps
from nulltext.farmyard.recipe.train import train
from nulltext.farmyard.world import HELD_OUT_SEEDS, SHIPPED, caption, random_scene, replace
from nulltext.farmyard.world.captions import vocabulary
from nulltext.models.shipped import check_shipped
from nulltext.models.vocabulary import unknown_words

ROOT = Path(__file__).parents[2]
SHEEP_SEED = 1_531_884
TEXTS = captions_of(SHIPPED)


draw_128 = partial(draw_seed, size=128)


def order_from(step, **kwargs):
    return Order(**{"size": 10, "batch_size": 4, "batches": 5, "seed": 0, "step": lambda: step} | kwargs)


def test_every_item_comes_once_before_any_comes_twice():
    cards = [index for first in (0, 5) for batch in order_from(first) for index in batch]
    for deck in range(4):
        assert sorted(cards[10 * deck : 10 * deck + 10]) == list(range(10))


def test_stacked_arrays_are_one_array():
    parts = [np.arange(12, dtype=np.uint8).reshape(-1, 2), np.arange(20, 26, dtype=np.uint8).reshape(-1, 2)]
    stacked, whole = Stacked(*parts), np.concatenate(parts)
    assert len(stacked) == 9
    for indices in (range(9), [8, 0, 5, 6, 6]):
        assert np.array_equal(stacked[indices], whole[list(indices)])


def test_the_order_depends_on_seed_and_step_alone():
    assert list(order_from(0))[2:] == list(order_from(2))[:3]
    assert list(order_from(0)) != list(order_from(0, seed=1))


def test_the_scenes_of_a_contrast_differ_in_one_thing_alone_and_in_every_value_of_it():
    world = SHIPPED
    scenes, groups = contrasts(world, 6, ["animal", "hat"])
    assert [group.start for group in groups[1:]] == [group.stop for group in groups[:-1]]
    assert groups[-1].stop == len(scenes)
    for group, field in zip(groups, ["animal", "hat"] * 3, strict=True):
        alike = [scenes[i] for i in group]
        assert tuple(getattr(scene, field) for scene in alike) == world.choices[field]
        assert len({replace(scene, **{field: world.choices[field][0]}) for scene in alike}) == 1


def test_part_of_a_contrastive_batch_comes_in_groups():
    groups = [range(40, 44), range(44, 52), range(52, 57)]
    for batch in Mixed(groups, 40, batch_size=32, batches=20, seed=0, step=lambda: 0, grouped=0.5):
        assert len(batch) == 32
        assert all(index >= 40 for index in batch[:16]) and all(index < 40 for index in batch[16:])
        first = next(group for group in groups if batch[0] in group)
        assert batch[: len(first)] == list(first)


def test_a_stage_must_say_what_its_training_sees():
    with pytest.raises(TypeError, match="make_rows"):
        StageData()


@pytest.mark.parametrize("stage", ["vae", "clip", "unet", "flow"])
def test_every_stages_help_names_the_options_of_its_data(stage, capsys):
    with pytest.raises(SystemExit):
        train(["--config", str(ROOT / "configs" / "farmyard" / "128" / f"{stage}.yaml"), "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for option in (
        "scenes: Number of",
        "batch_size: Pictures in",
        "steps_per_epoch: Batches in",
        "seed: Seed of",
    ):
        name, words = option.split(": ")
        assert f"--data.{name}" in said and words in said
    assert ("--data.photo_like" in said) == (stage == "vae")
    assert ("--data.alike" in said) == (stage == "clip")


def test_the_learning_rate_rises_stays_and_falls():
    factor = [warm_flat_cosine(step, 100, warm_up=10, flat=0.5, floor=0.02) for step in range(101)]
    assert factor[0] == pytest.approx(0.1)
    assert factor[10:51] == [1.0] * 41
    assert all(a >= b for a, b in pairwise(factor[50:]))
    assert factor[75] == pytest.approx(0.51)
    assert factor[100] == pytest.approx(0.02)


def test_without_shared_texts_the_contrastive_loss_is_clips():
    generator = torch.Generator().manual_seed(0)
    image, text = (nn.functional.normalize(torch.randn(6, 8, generator=generator), dim=-1) for _ in range(2))
    logits = 7 * image @ text.T
    own = torch.arange(6)
    clip = (nn.functional.cross_entropy(logits, own) + nn.functional.cross_entropy(logits.T, own)) / 2
    assert torch.allclose(contrastive_loss(image, text, own, torch.tensor(7.0)), clip)


def test_pictures_that_share_a_text_are_no_negatives_of_each_other():
    axes = torch.eye(4)
    own = torch.tensor([0, 0, 1, 2])
    image = axes[own]
    loss = contrastive_loss(image, axes[:3], own, torch.tensor(50.0))
    assert loss == pytest.approx(np.log(2) / 6, abs=1e-6)  # one text of three is shared by two pictures


def test_min_snr_weighs_down_only_levels_with_little_noise():
    snr = torch.tensor([0.01, 1.0, 5.0, 50.0])
    assert torch.allclose(min_snr_weight(snr / (1 + snr), gamma=5.0), torch.tensor([1.0, 1.0, 1.0, 0.1]))


def test_timesteps_of_a_batch_cover_all_levels_evenly():
    t = stratified_timesteps(10, 1000, torch.Generator().manual_seed(0))
    assert sorted((t // 100).tolist()) == list(range(10))


def test_half_of_the_flows_times_are_even_and_half_in_the_middle():
    even, middle = (flow_times(4000, share, torch.Generator().manual_seed(0)) for share in (1.0, 0.0))
    assert torch.histc(even, 10, 0, 1).tolist() == pytest.approx([400] * 10, abs=1)
    assert float(middle.min()) > 0 and float(middle.max()) < 1
    normal = torch.logit(middle.double())
    assert float(normal.mean()) == pytest.approx(0, abs=0.05)
    assert float(normal.std()) == pytest.approx(1, abs=0.05)
    mixed = flow_times(4000, 0.5, torch.Generator().manual_seed(0))
    assert float(middle.std()) < float(mixed.std()) < float(even.std())


@torch.no_grad()
def test_one_row_that_counts_as_many_is_that_many_rows():
    torch.manual_seed(0)
    transformer = make_transformer(4, Shape(layers=3, heads=2, head_width=8), text_width=8)
    z, pooled, text = torch.randn(2, 4, 16, 16), torch.randn(2, 16), torch.randn(2, 5, 16)

    def velocity(rows):
        states = torch.cat([text, torch.zeros(2, rows, 16)], dim=1)
        times = torch.tensor([300.0, 700.0])
        return transformer(z, encoder_hidden_states=states, pooled_projections=pooled, timestep=times).sample

    many, none = velocity(256), velocity(0)
    transformer.set_attn_processor(attention := RepeatedRow())
    assert torch.allclose(velocity(0), none, atol=1e-5)
    attention.times = 256
    assert torch.allclose(velocity(1), many, atol=1e-5)
    assert not torch.allclose(many, none, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 16, 6, 5), (1, 8, 2, 2)])
def test_the_fast_group_norm_is_group_norm_forward_and_backward(shape):
    torch.manual_seed(0)
    plain = nn.GroupNorm(4, shape[1], dtype=torch.float64)
    nn.init.normal_(plain.weight), nn.init.normal_(plain.bias)
    fast = FastGroupNorm(4, shape[1], dtype=torch.float64)
    fast.load_state_dict(plain.state_dict())
    x = torch.randn(shape, dtype=torch.float64) * 3 + 5
    outer = torch.randn(shape, dtype=torch.float64)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [norm(each) for norm, each in zip((plain, fast), inputs, strict=True)]
    for output in outputs:
        output.backward(outer)
    assert torch.allclose(*outputs, atol=1e-12)
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-12)
    assert torch.allclose(plain.weight.grad, fast.weight.grad, atol=1e-11)
    assert torch.allclose(plain.bias.grad, fast.bias.grad, atol=1e-11)


def test_the_moving_average_of_constant_weights_is_the_weights_and_returns_to_them():
    layer = nn.Linear(3, 3)
    average = MovingAverage(layer, decay=0.9)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    for _ in range(200):
        average.update(layer)
    average.copy_to(layer)
    assert torch.allclose(layer.weight, before + 1, atol=1e-5)


def test_every_word_of_the_world_is_one_token_and_any_text_can_be_read():
    most = MAX_TOKENS
    tokenizer = train_tokenizer(TEXTS, most)
    for word in vocabulary(TEXTS):
        assert len(tokenizer.tokenize(word)) == 1, word
    longest = max(TEXTS, key=lambda text: len(text.split()))
    assert len(longest.split()) <= most - 2
    ids = tokenizer(longest, padding="max_length").input_ids
    assert len(ids) == most
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    read = tokenizer.decode(tokenizer("a Zébra 🦓").input_ids, skip_special_tokens=True)
    assert read.strip() == "a zébra 🦓"
    assert tokenizer.eos_token_id != 2


def test_the_same_texts_give_the_same_tokenizer():
    one, other = train_tokenizer(TEXTS, 24), train_tokenizer(sorted(TEXTS, reverse=True), 24)
    assert one.get_vocab() == other.get_vocab()


def test_unknown_words_are_named_once():
    known = frozenset(vocabulary(TEXTS))
    assert unknown_words("a photo of a Zebra, a zebra next to a tree!", known) == ["zebra"]
    assert unknown_words(caption(random_scene(0)), known) == []


def test_amplitudes_of_fractal_noise_fall_with_frequency():
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None, :]).ravel()[1:]
    for slope in (0.5, 1.0, 2.0):
        noises = [fractal(np.random.default_rng(k), 64, slope) for k in range(40)]
        amplitude = sum(np.abs(np.fft.fft2(noise)) for noise in noises).ravel()[1:]
        fitted, _ = np.polyfit(np.log(frequency), np.log(amplitude), 1)
        assert fitted == pytest.approx(-slope, abs=0.02)
    assert np.array_equal(photo_like(5), photo_like(5))


def test_a_cache_that_is_no_longer_true_is_drawn_again(tmp_path):
    path = tmp_path / "scenes.npy"
    first = np.array(cached(path, draw_128, range(4)))
    assert np.array_equal(first[2], draw_128(2))
    np.save(path, first[::-1])
    assert np.array_equal(cached(path, draw_128, range(4)), first)
    assert np.array_equal(cached(path, draw_128, range(3)), first[:3])


def test_draw_writes_an_imagefolder_of_held_out_scenes(tmp_path):
    assert main(["draw", "--n", "3", str(tmp_path)]) == 0
    rows = [json.loads(row) for row in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [caption(random_scene(seed)) for seed in HELD_OUT_SEEDS[:3]]
    assert all((tmp_path / row["file_name"]).is_file() for row in rows)


def test_mistakes_end_in_one_line(tmp_path, capsys):
    assert main(["draw", "--n", "0", str(tmp_path)]) == 2
    assert main(["train", "--config", str(tmp_path / "none.yaml")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("nulltext: error: ") for line in lines)


def test_damaged_and_missing_weights_are_named_with_the_cure(tmp_path):
    with pytest.raises(UserError, match=r"missing.*python -m nulltext\.farmyard train"):
        check_shipped(tmp_path)
    (tmp_path / "sha256.json").write_text(json.dumps({"a.safetensors": "0" * 64}))
    with pytest.raises(UserError, match="lack"):
        check_shipped(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="damaged"):
        check_shipped(tmp_path)


def test_the_picture_at_the_root_is_a_held_out_sheep_that_carries_its_caption(tmp_path):
    scene = random_scene(SHEEP_SEED)
    assert scene.animal == "sheep" and SHEEP_SEED in HELD_OUT_SEEDS
    with Image.open(ROOT / "sheep.jpg") as picture:
        assert picture.getexif()[ExifTags.Base.ImageDescription] == caption(scene)
        shipped = np.asarray(picture, dtype=float)
    assert main(["draw", str(tmp_path / "again.jpg"), "--seed", str(SHEEP_SEED), "--size", "512"]) == 0
    with Image.open(tmp_path / "again.jpg") as picture:
        assert np.abs(np.asarray(picture, dtype=float) - shipped).mean() < 1  # of 255, whichever JPEG library
