"""Animations of one photo, made by `faceage age --animate`."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import faceage
from faceage.cli.animate import parse_span
from faceage.errors import AgeError
from faceage.imaging.photos import is_own_result
from faceage.video.animation import HOLD, MAX_SIDE, RATE

FACE = (slice(60, 180), slice(170, 280))  # of the portrait


def read_pictures(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """The frames of a GIF or WebP, and their durations in milliseconds."""
    frames, durations = [], []
    with Image.open(path) as image:
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
            durations.append(image.info["duration"])
    return frames, durations


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_an_animated_picture(
    run, tiny_weights: Path, portrait_png: Path, portrait: np.ndarray, suffix: str, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # not installed
    out = portrait_png.with_name(f"moving{suffix}")
    command = ("age", portrait_png, "--weights", tiny_weights, "--animate", "5-11", "--out", out)
    answer = run(*command)
    assert (answer.code, answer.lines) == (0, [str(out)]), answer.err
    frames, durations = read_pictures(out)
    assert sum(durations) == pytest.approx(1000 * (2 * HOLD + 2) / RATE, rel=0.05)
    assert all(frame.shape == portrait.shape for frame in frames)
    aged = faceage.load(tiny_weights, device="cpu").age(portrait, [5, 11])
    for frame, expected in zip((frames[0], frames[-1]), aged, strict=True):
        assert np.abs(frame - expected.pixels)[FACE].mean() < 6
    assert (
        np.abs(frames[0] - frames[-1])[FACE].mean()
        > 2 * np.abs(frames[0] - frames[-1])[300:].mean()
    )
    with Image.open(out) as image:
        assert image.info["loop"] == 0
    assert is_own_result(out)
    # It is not overwritten unless asked to.
    before = out.read_bytes()
    assert run(*command).code == 1
    assert out.read_bytes() == before
    assert run(*command, "--skip-existing").code == 0
    assert out.read_bytes() == before
    out.write_bytes(b"old")
    assert run(*command, "--force").code == 0
    assert out.read_bytes() == before


def test_a_video_of_one_photo(run, tiny_weights: Path, portrait_png: Path) -> None:
    av = pytest.importorskip("av", reason="the extra video is not installed")
    odd = Image.open(portrait_png).crop((0, 0, 511, 401))
    odd.save(portrait_png)
    answer = run("age", portrait_png, "--weights", tiny_weights, "--animate", "5-10")
    assert answer.code == 0, answer.err
    result = portrait_png.with_name("me.age5-10.mp4")
    assert answer.lines == [str(result)]
    with av.open(str(result)) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.pix_fmt) == (RATE, "yuv420p")
        assert container.metadata["comment"].startswith("Synthetic image made by faceage")
        assert "age=5 to 10" in container.metadata["comment"]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    # 5, 7, 9 and 10 years
    assert len(frames) == 2 * HOLD + 2
    assert frames[0].shape == (400, 510, 3)


def test_a_video_without_pyav_names_the_choices(
    run, snapshot, tiny_weights: Path, portrait_png: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    before = snapshot(portrait_png.parent)
    answer = run("age", portrait_png, "--weights", tiny_weights, "--animate", "5-85")
    assert answer.code == 2
    assert answer.errors == [
        "error: Video needs PyAV. Install it: pip install 'faceage[video]', "
        "or write an animated picture: --out animation.webp"
    ]
    assert snapshot(portrait_png.parent) == before


def test_the_chosen_face_alone_ages(run, tiny_weights: Path, couple: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.webp"
    answer = run(
        *("age", couple, "--weights", tiny_weights, "--animate", "10-60:50"),
        *("--face", 2, "--out", out),
    )
    assert answer.code == 0, answer.err
    frames, _ = read_pictures(out)
    change = np.abs(frames[0] - frames[-1]).mean(2)
    small, large = change[:, : change.shape[1] * 2 // 5], change[:, change.shape[1] * 2 // 5 :]
    assert small.max() > 8 > 4 > large.max()


def test_large_transparent_photos_in_another_colour_space(
    run, tiny_weights: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    photo = Image.fromarray(portrait).resize((1600, 1600))
    photo.putalpha(Image.new("L", photo.size, 255))
    photo.paste((0, 0, 0, 0), (0, 1400, 1600, 1600))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save(tmp_path / "me.png", icc_profile=profile)
    out = tmp_path / "me.webp"
    answer = run(
        "age", tmp_path / "me.png", "--weights", tiny_weights, "--animate", "5-7", "--out", out
    )
    assert answer.code == 0, answer.err
    frames, _ = read_pictures(out)
    assert frames[0].shape == (MAX_SIDE, MAX_SIDE, 3)
    assert frames[0][-100:].min() > 245
    small = np.asarray(Image.fromarray(portrait).resize((MAX_SIDE, MAX_SIDE)))
    assert np.abs(frames[0] - small)[600:1000].mean() < 4


def test_spans() -> None:
    assert parse_span("5-9") == [5, 7, 9]
    assert parse_span("5-10") == [5, 7, 9, 10]
    assert parse_span("0-100:50") == [0, 50, 100]
    for text in ("5", "5,70", "70-5", "5-101", "old", "5-85:0", ""):
        with pytest.raises(AgeError):
            parse_span(text)


def test_options_that_exclude_each_other(
    run, snapshot, astronaut: Path, couple: Path, tmp_path: Path
) -> None:
    def refuse(*options: object) -> str:
        answer = run("age", astronaut, "--out", tmp_path, *options)
        assert answer.code == 2
        assert len(answer.errors) == 1
        return answer.err

    assert "--animate 5-85" in refuse()
    assert "--to" in refuse("--to", 5, "--animate", "5-85")
    assert "--sheet" in refuse("--sheet", "--animate", "5-85")
    assert ".png" in refuse("--animate", "5-85", "--out", tmp_path / "me.png")
    assert "5,70" in refuse("--animate", "5,70")
    two = run("age", astronaut, couple, "--animate", "5-9", "--out", tmp_path / "a.gif")
    assert two.code == 2
    assert "several results" in two.err
    assert snapshot(tmp_path) == {}
