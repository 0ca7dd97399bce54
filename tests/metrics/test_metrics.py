"""Each metric against a value worked out by hand, or against an independent implementation."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nulltext.errors import UserError
from nulltext.metrics import (
    METRICS,
    PSNR_CEILING,
    Metric,
    MetricOptions,
    Reference,
    Suite,
    load_metrics,
    mse,
    psnr,
    ssim,
)
from nulltext.metrics.networks import CLIP_MEAN, CLIP_STD, ClipScorer, StructureScorer, fit, normalise

NO_NETWORKS = MetricOptions(clip=None)
PIXEL = {"psnr", "ssim", "mse"}


def pictures(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_and_mse_of_a_constant_difference():
    grey = torch.full((2, 3, 16, 16), 0.5)
    shifted = grey + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert mse(shifted, grey).tolist() == pytest.approx([1e-2, 1e-4], rel=1e-4)
    assert psnr(shifted, grey).tolist() == pytest.approx([20, 40], abs=1e-3)


def test_identical_pictures_get_the_ceiling_not_infinity():
    picture = pictures(0, 1, 3, 16, 16)
    assert psnr(picture, picture).item() == PSNR_CEILING
    assert ssim(picture, picture).item() == pytest.approx(1, abs=1e-6)
    assert mse(picture, picture).item() == 0


def test_ssim_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pictures(1, 2, 3, 40, 48), pictures(2, 2, 3, 40, 48)
    b = 0.7 * a + 0.3 * b
    for batch in (
        a,
        b,
    ):  # a flat frame as wide as the window: the libraries differ only in how they mirror the edge
        batch[..., :10, :], batch[..., -10:, :], batch[..., :, :10], batch[..., :, -10:] = 0.5, 0.5, 0.5, 0.5
    expected = []
    for x, y in zip(a, b, strict=True):
        _, full = metrics.structural_similarity(
            x.permute(1, 2, 0).double().numpy(),
            y.permute(1, 2, 0).double().numpy(),
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        expected.append(full.mean())
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-5)


def background(outputs, source, mask):
    """The four values of the background, by name; mask (1, H, W)."""
    scores = [
        {
            name: METRICS[name]()(output[None], Reference(picture, mask=cover))
            for name in ("background_psnr", "background_mse", "background_ssim", "background_psnr_outside")
        }
        for output, picture, cover in zip(outputs, source, mask, strict=True)
    ]
    return {name: torch.cat([score[name] for score in scores]) for name in scores[0]}


def test_background_is_measured_over_the_whole_picture_as_pie_bench_does():
    source = torch.full((1, 3, 16, 16), 0.5)
    output = source + 0.1
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1  # half of the picture is edited
    values = background(output, source, mask)
    assert values["background_mse"].item() == pytest.approx(0.5e-2, rel=1e-4)
    assert values["background_psnr"].item() == pytest.approx(20 + 10 * math.log10(2), abs=1e-3)
    assert values["background_psnr_outside"].item() == pytest.approx(20, abs=1e-3)
    expected = ssim(output * (1 - mask), source * (1 - mask))
    assert values["background_ssim"].item() == expected.item()


def test_what_happens_under_the_mask_does_not_count():
    source, other = pictures(3, 1, 3, 24, 24), pictures(4, 1, 3, 24, 24)
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., 4:20, 4:20] = 1
    values = background(source * (1 - mask) + other * mask, source, mask)
    assert values["background_psnr"].item() == PSNR_CEILING
    assert values["background_psnr_outside"].item() == PSNR_CEILING
    assert values["background_ssim"].item() == pytest.approx(1, abs=1e-6)


def test_a_mask_without_background_gives_nan_for_that_picture_only():
    source, output = pictures(5, 2, 3, 16, 16), pictures(6, 2, 3, 16, 16)
    mask = torch.stack([torch.ones(1, 16, 16), torch.zeros(1, 16, 16)])
    for name, value in background(output, source, mask).items():
        assert value.isnan().tolist() == [True, False], name


def test_psnr_over_a_mask_counts_only_the_pixels_it_is_given():
    a, b = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    b[0, :, 0, 0] = 0.1
    where = torch.zeros(1, 1, 4, 4)
    where[0, 0, 0, 0] = 1
    assert psnr(a, b, where).item() == pytest.approx(20, abs=1e-3)
    assert psnr(a, b, 1 - where).item() == PSNR_CEILING
    assert psnr(a, b, 0 * where).isnan().item()


def test_the_mean_of_a_table_is_the_mean_of_the_pictures_psnr():
    a = torch.zeros(2, 3, 16, 16)
    b = torch.tensor([0.1, 1.0]).view(2, 1, 1, 1).expand_as(a)
    assert psnr(a, b).tolist() == pytest.approx([20, 0], abs=1e-3)
    assert psnr(a, b).mean() != pytest.approx(-10 * math.log10(mse(a, b).mean()), abs=1)


# ------------------------------------------------------------------------------------------------ CLIP


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A random CLIP, 32 x 32 pixels, and a tokenizer of single letters in the folder beside it."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=12).save_pretrained(
        folder / "tokenizer"
    )
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    config = CLIPConfig(
        text_config={**small, **ends, "vocab_size": len(words), "max_position_embeddings": 12},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder / "clip")
    return folder / "clip"


@pytest.fixture(scope="module")
def clip(clip_folder):
    return ClipScorer.from_pretrained(str(clip_folder))


def test_clip_text_and_image_cosine_agree_with_the_models_own_forward(clip):
    picture = (pictures(7, 1, 3, 32, 32) * 255).round() / 255
    tokens = clip.tokenizer(["a b c"], return_tensors="pt")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    with torch.no_grad():
        out = clip.model(input_ids=tokens.input_ids, pixel_values=(picture - mean) / std)
    expected = out.logits_per_image.item() / clip.model.logit_scale.exp().item()  # the plain cosine
    ours = (clip.image_features(picture) @ clip.text_features(["a b c"]).T).item()
    assert ours == pytest.approx(expected, abs=1e-5)


def test_clip_resizes_as_the_stock_processor_does(clip):
    from PIL import Image
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    picture = (pictures(8, 1, 3, 70, 96) * 255).round() / 255
    image = Image.fromarray((picture[0].permute(1, 2, 0) * 255).round().byte().numpy())
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    stock = torch.as_tensor(np.asarray(processor(image)["pixel_values"][0]))
    ours = normalise(fit(picture, 32), CLIP_MEAN, CLIP_STD)[0]
    assert (ours - stock).abs().max() < 2.1 / 255 / min(
        CLIP_STD
    )  # two levels of 255: PIL works in fixed point


def test_clip_cuts_long_prompts(clip):
    long = clip.text_features(["a b c d e f g h i j k l m n o p"])
    assert torch.equal(long, clip.text_features(["a b c d e f g h i j k l m n o q"]))


def test_clip_reads_the_pixel_statistics_of_the_folder(clip_folder, tmp_path):
    import shutil

    shutil.copytree(clip_folder.parent, tmp_path / "copy")
    (tmp_path / "copy" / "clip" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}'
    )
    assert ClipScorer.from_pretrained(str(tmp_path / "copy" / "clip")).mean == (0.5, 0.5, 0.5)


# ------------------------------------------------------------------------------------------------ structure


@pytest.fixture(scope="module")
def structure():
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    return StructureScorer(ViTModel(config, add_pooling_layer=False), "random", size=32)


def test_structure_distance_by_hand(structure):
    a, b = pictures(9, 1, 3, 32, 32), pictures(10, 1, 3, 32, 32)

    def similarity(picture, peak):
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        with torch.no_grad():
            states = structure.model((picture * peak - mean) / std, output_hidden_states=True).hidden_states[
                -2
            ][0]
            layer = structure.model.layers[-1]
            keys = layer.attention.k_proj(layer.layernorm_before(states))  # (17, 16): heads side by side
        assert keys.shape == (17, 16)
        return torch.tensor([[torch.cosine_similarity(x, y, dim=0) for y in keys] for x in keys])

    for published, peak in ((True, 255), (False, 1)):
        expected = (similarity(a, peak) - similarity(b, peak)).square().mean().item()
        assert structure.distance(a, b, published=published).item() == pytest.approx(expected, rel=1e-3)
    assert structure.distance(a, a, published=True).item() == 0


def test_the_published_structure_distance_is_not_the_corrected_one(structure):
    a, b = pictures(11, 1, 3, 32, 32), pictures(12, 1, 3, 32, 32)
    published, corrected = (structure.distance(a, b, published=p).item() for p in (True, False))
    assert published != pytest.approx(corrected, rel=0.05)


# ------------------------------------------------------------------------------------------------ the suite


def test_the_suite_gives_every_metric_it_can_and_names_the_others(clip_folder, structure, monkeypatch):
    monkeypatch.setattr(
        "torchmetrics.image.lpip._TORCHVISION_AVAILABLE", False
    )  # as if it were not installed
    suite = load_metrics(MetricOptions(str(clip_folder), "/no/such/folder", "squeeze"))
    clip = suite.networks["clip"]
    assert "structure_distance" in suite.absent and "/no/such/folder" in suite.absent["structure_distance"]
    assert "LPIPS model 'squeeze' could not be loaded" in suite.absent["background_lpips"]
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    reference = Reference(pictures(13, 3, 32, 32), "a b", "a c", mask, truth=pictures(14, 3, 32, 32))
    outputs = pictures(15, 2, 3, 32, 32)
    scores = suite.score(outputs, reference)
    assert set(scores[0]) | set(suite.absent) == set(METRICS)
    assert not set(scores[0]) & set(suite.absent)
    target, image = clip.text_features(["a c"])[0], clip.image_features(outputs)[1]
    assert scores[1]["clip_text_target"] == pytest.approx((target @ image).item(), abs=1e-6)
    assert scores[1]["clip_whole"] == pytest.approx(max(0, 100 * (target @ image).item()), abs=1e-4)
    edited = clip.image_features((outputs * mask)[1:])[0]
    assert scores[1]["clip_edited"] == pytest.approx(max(0, 100 * (target @ edited).item()), abs=1e-4)
    truth = clip.image_features(reference.truth[None])[0]
    assert scores[1]["clip_image_target"] == pytest.approx((truth @ image).item(), abs=1e-6)
    moved = image - clip.image_features(reference.source[None])[0]
    wanted = target - clip.text_features(["a b"])[0]
    cosine = torch.cosine_similarity(moved, wanted, dim=0).item()
    assert scores[1]["clip_direction"] == pytest.approx(cosine, abs=1e-5)
    before, after = (clip.image_features((x * (1 - mask))[None])[0] for x in (reference.source, outputs[1]))
    assert scores[1]["leakage"] == pytest.approx(100 * (target @ (after - before)).item(), abs=1e-4)
    assert scores[1]["counterfactual_psnr"] == pytest.approx(
        psnr(outputs[1:], reference.truth[None]).item(), abs=1e-4
    )
    suite.metrics.append(METRICS["structure_distance"](structure))
    assert suite.score(outputs, reference)[0]["structure_distance"] > 0


def with_clip(clip):
    return Suite([metric(clip) for metric in METRICS.values() if metric.network == "clip"])


def test_clip_scores_of_known_cosines():
    cosines = {"source": 0.25, "target": -0.5}
    image = torch.tensor([1.0, 0.0])
    text = {c: torch.tensor([v, math.sqrt(1 - v * v)]) for c, v in cosines.items()}
    clip = SimpleNamespace(
        image_features=lambda pictures: image.expand(len(pictures), 2) if pictures.dim() == 4 else image,
        text_features=lambda prompts: torch.stack([text[prompt] for prompt in prompts]),
    )
    picture = pictures(22, 3, 16, 16)
    (scores,) = with_clip(clip).score(picture[None], Reference(picture, "source", "target"))
    assert scores["clip_text_source"] == pytest.approx(0.25)
    assert scores["clip_text_target"] == pytest.approx(-0.5)
    assert scores["clip_whole"] == 0  # PIE-Bench's score knows no negative cosine
    assert scores["clip_image_source"] == pytest.approx(1)
    (scores,) = with_clip(clip).score(picture[None], Reference(picture, "target", "source"))
    assert scores["clip_whole"] == pytest.approx(25)


def test_features_that_several_metrics_use_are_computed_once(clip, monkeypatch):
    seen = []
    monkeypatch.setattr("nulltext.metrics.networks.fit", lambda batch, size: seen.append(len(batch)) or batch)
    reference = Reference(pictures(23, 3, 32, 32), "a", "b", truth=pictures(24, 3, 32, 32))
    with_clip(clip).score(pictures(25, 2, 3, 32, 32), reference)
    assert sorted(seen) == [1, 1, 2]  # source, truth, outputs


def test_lpips_sees_the_background_alone_in_its_own_range(monkeypatch):
    seen = []

    class Network(torch.nn.Module):
        def forward(self, a, b):
            seen.extend([a, b])
            return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setattr(
        "torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity",
        lambda net_type: SimpleNamespace(net=Network()),
    )
    suite = load_metrics(MetricOptions(clip=None, lpips="squeeze"))
    source, output = torch.zeros(3, 16, 16), torch.ones(1, 3, 16, 16)
    mask = torch.zeros(1, 16, 16)
    mask[:, :, :4] = 1  # a quarter
    (scores,) = suite.score(output, Reference(source, "a", "b", mask))
    assert scores["background_lpips"] == pytest.approx(0.75 * 2)
    assert (seen[0].min(), seen[0].max()) == (-1, 1) and seen[1].max() == -1
    (scores,) = suite.score(output, Reference(source, "a", "b", torch.ones(1, 16, 16)))
    assert math.isnan(scores["background_lpips"])


def test_without_mask_and_truth_their_metrics_are_left_out():
    reference = Reference(pictures(16, 3, 16, 16), "a", "b")
    assert set(load_metrics(NO_NETWORKS).score(pictures(17, 1, 3, 16, 16), reference)[0]) == PIXEL


def test_without_a_target_prompt_a_reconstruction_alone_is_scored(clip):
    (scores,) = with_clip(clip).score(pictures(26, 1, 3, 32, 32), Reference(pictures(27, 3, 32, 32), "a"))
    assert set(scores) == {"clip_image_source", "clip_text_source"}


def test_no_named_models_is_a_reason_too():
    absent = load_metrics(NO_NETWORKS).absent
    assert "metrics.clip" in absent["clip_whole"] and "metrics.dino" in absent["structure_distance_corrected"]


def test_what_stays_inside_the_mask_does_not_leak(clip):
    source, mask = pictures(28, 3, 32, 32), torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    output = source * (1 - mask) + pictures(29, 3, 32, 32) * mask
    (scores,) = with_clip(clip).score(output[None], Reference(source, "a", "b", mask))
    assert scores["leakage"] == pytest.approx(0, abs=1e-4)
    (scores,) = with_clip(clip).score(output[None], Reference(source, "a", "b", torch.ones(1, 32, 32)))
    assert math.isnan(scores["leakage"])


def test_networks_are_named_by_their_weights_too(clip_folder, tmp_path):
    import shutil

    from transformers import CLIPModel

    shutil.copytree(clip_folder.parent, tmp_path / "copy")
    places = [str(clip_folder), str(tmp_path / "copy" / "clip")]
    first, same = (load_metrics(MetricOptions(clip=place)).names["clip"] for place in places)
    other = CLIPModel.from_pretrained(places[1])
    torch.nn.init.normal_(other.text_projection.weight)
    other.save_pretrained(places[1])
    changed = load_metrics(MetricOptions(clip=places[1])).names["clip"]
    assert first.startswith(f"{places[0]} (") and changed.startswith(f"{places[1]} (")
    assert first[-10:] == same[-10:] != changed[-10:]


def test_outputs_of_another_size_are_refused():
    with pytest.raises(UserError, match="16"):
        load_metrics(NO_NETWORKS).score(pictures(18, 1, 3, 24, 24), Reference(pictures(19, 3, 16, 16), "a"))


def test_no_edited_part_makes_clip_edited_nan(clip):
    reference = Reference(pictures(20, 3, 32, 32), "a", "b", mask=torch.zeros(1, 32, 32))
    assert math.isnan(with_clip(clip).score(pictures(21, 1, 3, 32, 32), reference)[0]["clip_edited"])


# ------------------------------------------------------------------------------------------------ the type


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_is(name):
    metric = METRICS[name]()
    assert metric.name == name and metric.title and metric.better in ("higher", "lower")
    assert metric.definition.endswith(".") and "\n" not in metric.definition
    assert metric.requires <= {"target_prompt", "mask", "truth", "target"}


@pytest.mark.parametrize(
    ("name", "heading", "printed"),
    [
        ("psnr", "PSNR, dB", "0.12"),
        ("mse", "MSE x1e4", "1234.57"),
        ("background_ssim", "Background SSIM x1e2", "12.35"),
        ("background_lpips", "Background LPIPS x1e3", "123.46"),
        ("clip_text_target", "CLIP img2text target", "0.1235"),
    ],
)
def test_headings_and_numbers_of_a_table(name, heading, printed):
    metric = METRICS[name]()
    assert (metric.heading, metric.format(0.1234567)) == (heading, printed)


def test_a_strangers_metric_is_named_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(
        "from nulltext.metrics import Metric\n\n\n"
        "class Brightness(Metric):\n"
        '    """Mean of the output."""\n\n'
        '    name, title = "brightness", "Brightness"\n\n'
        "    def __call__(self, outputs, reference):\n"
        "        return outputs.flatten(1).mean(1)\n\n\n"
        "class Other:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    suite = load_metrics(MetricOptions(clip=None, own=["stranger.Brightness"]))
    scores = suite.score(torch.full((1, 3, 16, 16), 0.25), Reference(torch.zeros(3, 16, 16)))
    assert scores[0]["brightness"] == 0.25
    assert isinstance(suite.metrics[-1], Metric) and suite.metrics[-1].definition == "Mean of the output."
    for path, said in (
        ("stranger.Gone", "stranger.Gone"),
        ("no.such.Metric", "no.such"),
        ("nothing", "import path"),
        ("stranger.Other", "derive"),
    ):
        with pytest.raises(UserError, match=said) as raised:
            load_metrics(MetricOptions(clip=None, own=[path]))
        assert "\n" not in str(raised.value)
