"""Flow transformers through fit, an interruption, edit and test, square and not, in every precision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nulltext.cli import main
from nulltext.inversion import NullText
from nulltext.inversion.file import Inversion

PROMPT = "a photo of a cat"
SETTINGS = [
    "--model.steps",
    "4",
    "--model.inner_steps",
    "2",
    "--model.guidance_scale",
    "3",
    "--data.prompt",
    PROMPT,
]
RUN = Path("lightning_logs/version_0/cat")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a picture."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 48)).save("cat.png")
    return tmp_path


def _fit(folder: Path, *words: str) -> int:
    return main(["fit", "--model.pretrained", str(folder), "--data.image", "cat.png", *SETTINGS, *words])


def _read(name: str) -> Inversion:
    return Inversion.load(Path(name) / "inversion.safetensors")


@pytest.mark.parametrize("size", ["32", "24,32"])
@pytest.mark.parametrize("tokens", [[], ["--model.tokens", "4"]], ids=["all", "four"])
def test_an_interrupted_fit_goes_on_and_is_edited(
    tiny_flow: Path, room: Path, monkeypatch: pytest.MonkeyPatch, size: str, tokens: list[str]
) -> None:
    words = ["--data.size", size, *tokens]
    assert _fit(tiny_flow, *words) == 0
    whole, step = _read(str(RUN)), NullText.step

    def interrupted(self, model, state, i, on_inner_step=None):
        if i == 2:
            raise KeyboardInterrupt
        return step(self, model, state, i, on_inner_step)

    with monkeypatch.context() as patch:
        patch.setattr(NullText, "step", interrupted)
        assert _fit(tiny_flow, *words) == 130
    assert _fit(tiny_flow, *words, "--ckpt_path", "last") == 0
    resumed = _read("lightning_logs/version_1/cat")
    assert torch.equal(resumed.null_embeddings, whole.null_embeddings) and resumed.psnr == whole.psnr
    assert whole.kind == "flow" and whole.sigmas[0] == pytest.approx(0.97)
    edits = ["--inversion", str(RUN.parent), "--prompt", "a photo of a dog", "--kind", "plain", "--seed", "1"]
    assert main(["edit", *edits]) == 0
    assert list(RUN.glob("edits/*.png"))


def test_a_finished_picture_is_not_made_again(
    tiny_flow: Path, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(tiny_flow, "--data.size", "24,32") == 0
    before = (RUN / "inversion.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert _fit(tiny_flow, "--data.size", "24,32", "--ckpt_path", str(RUN.parent)) == 0
    assert (RUN / "inversion.safetensors").stat().st_mtime_ns == before
    assert "finished" in capsys.readouterr().out


def test_half_precision_fits_and_edits(tiny_flow: Path, room: Path) -> None:
    assert _fit(tiny_flow, "--data.size", "32", "--trainer.precision", "bf16-mixed") == 0
    made = _read(str(RUN))
    assert bool(made.null_embeddings.isfinite().all()) and made.settings["precision"] == "bf16-mixed"
    edits = ["--inversion", str(RUN.parent), "--prompt", "a photo of a dog", "--precision", "bf16-mixed"]
    assert main(["edit", *edits]) == 0


def test_methods_are_compared(tiny_flow: Path, room: Path) -> None:
    pictures = Path("pictures")
    pictures.mkdir()
    Image.open("cat.png").resize((32, 32)).save(pictures / "cat.png")
    row = {"file_name": "cat.png", "text": PROMPT, "target_prompt": "a photo of a dog"}
    (pictures / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    words = ["--model.pretrained", str(tiny_flow), "--model.steps", "3", "--data.folder", str(pictures)]
    words += ["--methods", "[ddim, null_text]", "--editing", "[prompt_to_prompt]", "--model.inner_steps", "1"]
    assert main(["test", *words, "--output", "out"]) == 0
    assert list(Path("out").rglob("*.csv")) or list(Path("out").rglob("*.json"))
