"""Files that are pictures, files that are more than one, and files that are none."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from drawn import gradient, read, saved
from PIL import Image

import nulltext.data.decode as decoding
from nulltext.data.decode import decode, jpeg_scans, open_bounded
from nulltext.data.find import find_pictures
from nulltext.data.picture import read_picture
from nulltext.errors import UserError

CASES = Path(__file__).parent / "cases"
RNG = np.random.default_rng(0)


def jpeg(**options):
    stream = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(stream, "JPEG", **options)
    return stream.getvalue()


def png_header(width, height):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(50_000, 50_000))
    with pytest.raises(UserError, match="max_pixels"):
        read(bomb)


def test_broken_files_are_one_line_each(tmp_path):
    whole = jpeg()
    cases = {
        "none.png": None,
        "words.jpg": b"these are words",
        "empty.png": b"",
        "half.jpg": whole[: len(whole) // 2],
        "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "x" * 300 + ".png": None,
        "null\0.png": None,
    }
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            read(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="1 x 1 pixels"):
        read(saved(Image.new("RGB", (1, 1)), tmp_path / "dot.png"))
    with pytest.raises(UserError, match="folder, not a picture"):
        read(tmp_path)
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"link\.png is a link to a file that is not there"):
        read(tmp_path / "link.png")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>", "a web page saved under a picture's name"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"8BPS\0\1", "project; export it as PNG"),
        (b"\xff\x0a\xff\xff", "JPEG XL; save it as JPEG"),
        (b"\0\0\0\x18ftypcrx \0\0", "a camera's raw file"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42", "a video"),
        (b"<svg xmlns='x'>", "vectors"),
    ],
)
def test_what_is_not_a_picture_is_named_for_what_it_is(content, words, tmp_path):
    (tmp_path / "x.jpg").write_bytes(content.ljust(64, b"\0"))
    with pytest.raises(UserError, match=rf"x\.jpg: is not a picture that can be read, but .*{words}"):
        decode(tmp_path / "x.jpg")


def test_a_raw_file_that_looks_like_tiff_is_not_read_as_its_preview(tmp_path):
    path = saved(gradient(32, 32), tmp_path / "raw.dng", format="TIFF", tiffinfo={254: 1})
    with pytest.raises(UserError, match="a camera's raw file; export it as JPEG"):
        decode(path)


VIDEO = b"\0\0\0\x18ftypmp42" + (b"\xff\xda\x00\x08\xff\xd8\xff\xc0" + bytes(range(256))) * 4000


@pytest.mark.parametrize("trailer", [VIDEO, b"\xff\xda" * 500_000, jpeg() * 40, b"\0" * 1000])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_motion_photo_is_the_photo_before_its_video(trailer, progressive, tmp_path):
    photo = jpeg(progressive=progressive, quality=95)
    path, plain = tmp_path / "PXL_0001.MP.jpg", tmp_path / "plain.jpg"
    path.write_bytes(photo + trailer)
    plain.write_bytes(photo)
    bound = 64 * 64  # at which every scan beyond twelve would be refused
    motion = np.asarray(decode(path, max(bound, 1_000_000))[0])
    assert np.array_equal(motion, np.asarray(decode(plain)[0]))
    assert jpeg_scans(photo + trailer, 10**9) == jpeg_scans(photo, 10**9) <= 12


def test_scans_are_counted_in_both_views_of_a_stereo_photo():
    """MPO is JPEG twice; its first view is read, and a bomb in it refused."""
    stream = io.BytesIO()
    views = [Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(2)]
    views[0].save(stream, "MPO", save_all=True, append_images=views[1:])
    image = open_bounded(stream.getvalue())
    assert image.format == "MPO" and image.size == (64, 64)

    stream = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(
        stream, "MPO", save_all=True, append_images=views[1:], progressive=True
    )
    content = stream.getvalue()
    end = content.index(b"\xff\xd9", content.index(b"\xff\xda"))
    scan = content.rindex(b"\xff\xda", 0, end)
    with pytest.raises(UserError, match="so many scans"):
        open_bounded(content[:end] + content[scan:end] * 5000 + content[end:])


def test_heic_is_read_or_says_what_to_install_and_never_vanishes_from_a_folder(tmp_path, monkeypatch):
    (tmp_path / "IMG_0001.heic").write_bytes((CASES / "IMG_0001.heic").read_bytes())
    saved(gradient(32, 32), tmp_path / "sheep.png")
    rows, _ = find_pictures([tmp_path])
    assert [row.path.name for row in rows] == ["IMG_0001.heic", "sheep.png"]
    monkeypatch.setattr(decoding, "_heif", lambda: False)
    with pytest.raises(
        UserError, match=r"IMG_0001\.heic: is HEIC, .*pip install pillow-heif, or save .* as JPEG"
    ):
        decode(rows[0].path)
    monkeypatch.undo()
    if decoding._heif():
        assert min(decode(rows[0].path)[0].size) >= 16


def test_files_named_otherwise_are_found_and_read(tmp_path):
    whole = (CASES / "sheep.jfif").read_bytes()
    for name in ("sheep.jfif", "sheep.JPG", "sheep.jpg_large", "sheep.pjpeg", "sheep"):
        (tmp_path / name).write_bytes(whole)
    for name in ("notes.txt", "README", "clip.mp4", ".hidden.jpg", "sheep.json"):
        (tmp_path / name).write_text("no picture")
    for name in ("DSC1.ARW", "sheep.psd", "sheep.jxl"):
        (tmp_path / name).write_bytes(b"8BPS")
    rows, broken = find_pictures([tmp_path])
    assert not broken
    names = {"sheep", "sheep.JPG", "sheep.jfif", "sheep.jpg_large", "sheep.pjpeg"}
    unread = {"DSC1.ARW", "sheep.psd", "sheep.jxl"}
    assert {row.path.name for row in rows} == names | unread
    for row in rows:
        if row.path.name in names:
            assert read_picture(row.path, prompt="x").placement.original == (128, 128)
        else:
            with pytest.raises(UserError, match="not a picture that can be read"):
                decode(row.path)
