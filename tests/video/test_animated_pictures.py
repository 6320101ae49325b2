"""Animated GIF and WebP as clips."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceage.errors import PhotoError
from faceage.imaging.animations import is_animation, read_animation, read_animation_info
from faceage.imaging.photos import is_own_result

DURATIONS = [80, 120, 200, 80, 80]  # milliseconds
HEAD = (slice(60, 180), slice(100, 220))
CORNER = (slice(0, 40), slice(0, 40))


@pytest.fixture
def frames(portrait: np.ndarray) -> list[Image.Image]:
    """The portrait, panned; one corner is transparent."""
    images = []
    for t in range(len(DURATIONS)):
        image = Image.fromarray(np.ascontiguousarray(portrait[:256, 90 + 2 * t : 410 + 2 * t]))
        image.putalpha(255)
        image.paste((0, 0, 0, 0), (0, 0, 40, 40))
        images.append(image)
    return images


def save(frames: list[Image.Image], path: Path, **options: object) -> Path:
    more = {"disposal": 2} if path.suffix == ".gif" else {"lossless": True}
    options = {"duration": DURATIONS, **more, **options}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("loop", [None, 0, 3])
def test_frames_times_repetitions_and_transparency_are_kept(
    run, tiny_weights: Path, frames, tmp_path: Path, suffix: str, loop: int | None, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # not needed
    loops = {} if loop is None else {"loop": loop}
    path = save(frames, tmp_path / f"me{suffix}", **loops)
    answer = run("age", path, "--weights", tiny_weights, "--to", 70)
    assert (answer.code, answer.err) == (0, "")
    result = tmp_path / f"me.age70{suffix}"
    assert answer.lines == [str(result)]
    assert is_own_result(result)
    with Image.open(path) as before, Image.open(result) as after:
        assert after.info.get("loop") == before.info.get("loop")
    before, after = list(read_animation(path)), list(read_animation(result))
    assert [frame.seconds for frame in after] == [t / 1000 for t in DURATIONS]
    for a, b in zip(before, after, strict=True):
        assert b.pixels.shape == a.pixels.shape == (256, 320, 3)
        assert (b.alpha[CORNER] == 0).all()
        assert (b.alpha[50:] == 255).all()
        difference = np.abs(a.pixels.astype(int) - b.pixels)
        assert difference[HEAD].mean() > 2
        background = difference[60:, :20]
        assert background.max() == 0 if suffix == ".webp" else background.mean() < 6


def test_a_photo_does_not_overwrite_an_animation(
    run, tiny_weights: Path, frames, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    animation = save(frames, tmp_path / "a" / "me.webp")
    photo = tmp_path / "b" / "me.webp"
    frames[0].save(photo, lossless=True)
    out = tmp_path / "out"
    command = ("age", animation, photo, "--weights", tiny_weights, "--to", 70, "--force")
    answer = run(*command, "--out", out)
    assert (answer.code, answer.lines) == (1, [str(out / "me.age70.webp")])
    assert f"{photo}: its result {out / 'me.age70.webp'} is also that of {animation}" in answer.err
    assert is_animation(out / "me.age70.webp")


def test_formats_are_converted(run, tiny_weights: Path, frames, tmp_path: Path) -> None:
    path = save(frames, tmp_path / "me.gif")
    command = ("age", path, "--weights", tiny_weights, "--to", 70, "--out")
    assert run(*command, tmp_path / "old.webp").code == 0
    assert read_animation_info(tmp_path / "old.webp").plays == 1
    assert len(list(read_animation(tmp_path / "old.webp"))) == len(DURATIONS)
    refused = run(*command, tmp_path / "old.mp4")
    assert refused.code == 2
    assert ".gif, .webp" in refused.err


def test_animations_in_a_folder_beside_photos(
    run, tiny_weights: Path, frames, portrait: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save(frames, folder / "moving.webp")
    Image.fromarray(portrait).save(folder / "still.webp")
    out = tmp_path / "out"
    command = ("age", folder, "--weights", tiny_weights, "--to", 70, "--out", out)
    answer = run(*command)
    assert (answer.code, answer.err) == (0, "")
    assert is_animation(out / "moving.age70.webp")
    assert (out / "still.age70.webp").exists()
    assert not is_animation(out / "still.age70.webp")
    assert run(*command).code == 1
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.webp")}
    assert run(*command, "--skip-existing").code == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.webp")} == times


def test_a_crop_is_made_of_the_first_frame(run, tiny_weights: Path, frames, tmp_path: Path) -> None:
    path = save(frames, tmp_path / "me.gif")
    answer = run("age", path, "--weights", tiny_weights, "--to", 70, "--crop")
    assert answer.code == 0
    assert "only the first is used" in answer.err
    assert answer.lines == [str(tmp_path / "me.age70.png")]


def test_damaged_animations(run, snapshot, tiny_weights: Path, frames, tmp_path: Path) -> None:
    path = save(frames, tmp_path / "me.webp")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = snapshot(tmp_path)
    answer = run("age", path, "--weights", tiny_weights, "--to", 70)
    assert answer.code == 1
    assert "damaged" in answer.err
    assert snapshot(tmp_path) == before
    with pytest.raises(PhotoError):
        list(read_animation(path))
    assert not is_animation(tmp_path / "none.gif")
    (tmp_path / "text.gif").write_text("no picture")
    assert not is_animation(tmp_path / "text.gif")
