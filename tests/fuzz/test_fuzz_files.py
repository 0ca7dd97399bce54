"""Artifacts, checkpoints, configs and benchmarks' lists that nobody vouches for."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import struct
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nulltext.cli import main
from nulltext.cli.words import check_config
from nulltext.errors import UserError
from nulltext.evaluation import DataOptions, open_benchmark
from nulltext.inversion.file import Inversion
from nulltext.runs.checkpoints import read_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from forms import either_works_or_says_why, forms, mangled, nested

ROOM = Path(tempfile.mkdtemp(prefix="nulltext_fuzz_"))


@pytest.fixture(scope="module", autouse=True)
def room() -> object:
    yield
    for path in sorted(ROOM.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    ROOM.rmdir()


def _inversion() -> bytes:
    path = ROOM / "original.safetensors"
    Inversion(
        null_embeddings=torch.zeros(4, 7, 5),
        noise=torch.zeros(4, 6, 6),
        prompt="a sheep",
        guidance_scale=7.5,
        model="farmyard",
        fingerprint="f" * 64,
        scheduler={"beta_start": 0.00085},
        timesteps=[751, 501, 251, 1],
        size=(24, 24),
        settings={"steps": 4},
    ).save(path)
    return path.read_bytes()


def _checkpoint() -> dict[str, Any]:
    return {
        "state_dict": {
            "cursor": torch.tensor(2),
            "z": torch.zeros(1, 4, 6, 6),
            "null.0": torch.zeros(1, 7, 5),
        },
        "loops": {"fit_loop": {"state_dict": {}}},
        "epoch": 0,
        "nulltext": {
            "pictures": [
                {"name": "a", "sha256": "0" * 64, "prompt": "x", "size": [24, 24], "crop": "center"}
            ],
            "model": "farmyard",
            "fingerprint": "f" * 64,
            "settings": {"steps": 4},
            "memory": {},
            "cost": {"inner_steps": 3},
        },
    }


def _saved(checkpoint: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    return stream.getvalue()


INVERSION, CHECKPOINT = _inversion(), _saved(_checkpoint())


def _an_artifact(content: bytes) -> None:
    path = ROOM / "inversion.safetensors"
    path.write_bytes(content)
    inversion = either_works_or_says_why(lambda: Inversion.load(path))
    if inversion is not None:
        assert inversion.null_embeddings.isfinite().all() and len(inversion.timesteps) == inversion.steps
        assert inversion.fixed_point_iterations in range(101)


def _an_artifact_that_says(facts: dict[str, Any], drop: bool) -> None:
    path = ROOM / "inversion.safetensors"
    path.write_bytes(INVERSION)
    header = INVERSION[8 : 8 + struct.unpack("<Q", INVERSION[:8])[0]]
    said = json.loads(json.loads(header)["__metadata__"]["nulltext"])
    said = {key: value for key, value in said.items() if key not in facts} if drop else {**said, **facts}
    save_file(load_file(path), path, metadata={"nulltext": json.dumps(said)})
    inversion = either_works_or_says_why(lambda: Inversion.load(path))
    if inversion is not None:
        assert inversion.fixed_point_iterations in range(101)


def _a_checkpoint(content: bytes) -> None:
    path = ROOM / "last.ckpt"
    path.write_bytes(content)
    either_works_or_says_why(lambda: read_checkpoint(path))


def _a_checkpoint_that_says(where: str, key: str, value: Any) -> None:
    checkpoint = _checkpoint()
    (checkpoint if where == "top" else checkpoint[where])[key] = value
    _a_checkpoint(_saved(checkpoint))


def _a_config(content: Any, raw: str) -> None:
    import yaml

    path = ROOM / "config.yaml"
    text = raw or yaml.safe_dump(content, allow_unicode=False)
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    either_works_or_says_why(lambda: check_config(path))


def _a_benchmark(entries: dict[str, Any]) -> None:
    folder = ROOM / "pie"
    (folder / "annotation_images").mkdir(parents=True, exist_ok=True)
    (folder / "mapping_file.json").write_text(json.dumps(entries))
    found = either_works_or_says_why(lambda: open_benchmark(DataOptions("pie_bench", folder)))
    for task in found.tasks if found else []:
        assert "/" not in task.name and task.image.resolve().is_relative_to(folder.resolve())


_said = st.sampled_from(
    [*json.loads(json.dumps(list(Inversion.__dataclass_fields__))), "format_version", "other"]
)
_pie_keys = st.sampled_from(
    ["image_path", "original_prompt", "editing_prompt", "mask", "blended_word", "editing_type_id", "x"]
)
_yaml_text = st.text(alphabet="a:&*[]{}!-?|>'\"%@ \n\t#,0", max_size=60)

test_artifacts, test_many_artifacts = forms(_an_artifact, 80, 1500, content=mangled(st.just(INVERSION)))
test_artifacts_that_say_so, test_many_artifacts_that_say_so = forms(
    _an_artifact_that_says,
    60,
    500,
    facts=st.dictionaries(_said, nested, min_size=1, max_size=3),
    drop=st.booleans(),
)
test_checkpoints, test_many_checkpoints = forms(_a_checkpoint, 60, 1000, content=mangled(st.just(CHECKPOINT)))
test_checkpoints_that_say_so, test_many_checkpoints_that_say_so = forms(
    _a_checkpoint_that_says,
    40,
    500,
    where=st.sampled_from(["top", "nulltext", "state_dict"]),
    key=st.sampled_from([*_checkpoint()["nulltext"], "nulltext", "loops", "state_dict", "z"]),
    value=nested,
)
test_configs, test_many_configs = forms(_a_config, 60, 1000, content=nested, raw=st.just("") | _yaml_text)
test_benchmark_lists, test_many_benchmark_lists = forms(
    _a_benchmark,
    30,
    500,
    entries=st.dictionaries(st.text(max_size=8), st.dictionaries(_pie_keys, nested) | nested, max_size=3),
)


class Evil:
    """A pickle that leaves a mark when it is loaded."""

    def __reduce__(self) -> Any:
        return os.mkdir, (str(ROOM / "executed"),)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    return str(caught.value)


def test_a_checkpoint_runs_no_code() -> None:
    path = ROOM / "evil.ckpt"
    checkpoint = _checkpoint()
    checkpoint["nulltext"]["settings"] = {"steps": Evil()}
    path.write_bytes(_saved(checkpoint))
    assert "damaged or no checkpoint" in refused(path)
    path.write_bytes(pickle.dumps(Evil()))
    assert "damaged or no checkpoint" in refused(path)
    assert not (ROOM / "executed").exists()


def test_a_checkpoint_that_would_unfold_is_refused() -> None:
    path = ROOM / "bomb.ckpt"
    with (
        zipfile.ZipFile(io.BytesIO(CHECKPOINT)) as whole,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))
        packed.writestr("archive/data/99", b"\0" * 10_000_000)
    assert path.stat().st_size < 100_000
    assert "not as torch writes" in refused(path)


def test_a_checkpoint_of_tensors_without_end_is_refused() -> None:
    path = ROOM / "wide.ckpt"
    checkpoint = _checkpoint()
    checkpoint["state_dict"]["z"] = torch.zeros(1).expand(1_000_000, 1_000_000)
    path.write_bytes(_saved(checkpoint))
    assert "damaged or no checkpoint" in refused(path)


def test_an_artifact_that_claims_terabytes_is_refused_by_its_header() -> None:
    path = ROOM / "huge.safetensors"
    for length in (2**62, 2**33, 100):
        path.write_bytes(struct.pack("<Q", length) + b"{}")
        with pytest.raises(UserError, match="damaged or not an inversion"):
            Inversion.load(path)
    shape = [10**6, 10**6, 10**3]
    header = json.dumps({"noise": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * 10**15]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UserError, match="damaged or not an inversion"):
        Inversion.load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('!!python/object/apply:os.system ["touch executed"]', "python"),
        ("a: &a [1, 1, 1, 1]\n" + "".join(
            f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in itertools.pairwise("abcdefghij")
        ), "unfolds"),
        ("a: &a [*a]", "unfolds"),
        ("[" * 10_000, "nested too deeply"),
        ("data: {image: [}", "no YAML"),
        ("model: {stepz: 3}", "stepz"),
        ("model: {steps: many}", "steps"),
        ("model: {steps: 10000000000000000000000}", "steps"),
        ("trainer: {strategy: ddp}", "mix the gradients"),
        ("- 1\n- 2", "config"),
        ("data: {image: /dev/zero}", "/dev/zero"),
    ],
)  # fmt: skip
def test_a_config_ends_in_one_line(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.yaml").write_text(text)
    more = [] if "image" in text else ["--data.image", "none.png"]
    code = either_works_or_says_why(lambda: main(["fit", "--config", "hostile.yaml", *more]))
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and said in lines[0], lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.yaml"]


def test_a_name_that_is_no_text_and_one_that_commands_the_terminal_are_printed_safely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (b"\xff\xfe.png", b"\x1b[2J.png"):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
        assert main(["fit", "--data.image", path, "--data.prompt", "x"]) == 2
        line = capsys.readouterr().err
        assert "\x1b" not in line and line.count("\n") == 1


def test_a_model_that_brings_code_is_refused(tiny_sd: Path, tmp_path: Path) -> None:
    from nulltext.models.loading import check_model

    index = json.loads((tiny_sd / "model_index.json").read_text())
    for name, value in (
        ("unet", ["my_unet", "Net"]),
        ("_class_name", ["x", "Y"]),
        ("../x", ["diffusers", "A"]),
    ):
        (tmp_path / "model_index.json").write_text(json.dumps({**index, name: value}))
        with pytest.raises(UserError):
            check_model(str(tmp_path))
