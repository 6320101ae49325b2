"""Reading and writing clips, and the part of `faceage age` that changes them."""

import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import faceage
from faceage.errors import NoFaceError, PhotoError

av = pytest.importorskip("av", reason="the extra video is not installed")

from faceage.video.clips import age_clip  # noqa: E402
from faceage.video.containers import VideoClip, read_frames  # noqa: E402

FRAMES, RATE = 14, Fraction(25)


def write_clip(path: Path, frames: list[np.ndarray], times: list[int], sound: bool = True) -> Path:
    """A clip with a tone; times in units of 1/25 s."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = 1 / RATE
        if sound:
            tone = container.add_stream("aac", rate=16000)
        for time, pixels in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, 1 / RATE
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound:
            for start in range(0, 16000 * len(frames) // 25, 1024):
                wave = 0.2 * np.sin(np.arange(start, start + 1024) / 6)[None].astype(np.float32)
                block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                block.sample_rate, block.pts = 16000, start
                container.mux(tone.encode(block))
            container.mux(tone.encode(None))
    return path


@pytest.fixture(scope="module")
def portraits(portrait: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(portrait[:256, 90 + t : 410 + t]) for t in range(FRAMES)]


@pytest.fixture(scope="module")
def clip(portraits: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    times = [t + (t > 6) for t in range(FRAMES)]  # a frame is missing
    return write_clip(tmp_path_factory.mktemp("clip") / "me.mp4", portraits, times)


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.dts is not None]


def seconds(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
        return [float(frame.pts * base) for frame in container.decode(video=0)]


def test_read_frames(clip: Path, portraits: list[np.ndarray]) -> None:
    frames = list(read_frames(clip))
    assert len(frames) == VideoClip(clip).count() == FRAMES
    for (_, found), expected in zip(frames, portraits, strict=True):
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() < 6


def test_age_clip_keeps_times_and_sound(
    run, clip: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    answer = run("age", clip, "--weights", tiny_weights, "--to", "5,70", "--out", tmp_path)
    assert answer.code == 0, answer.err
    files = [tmp_path / "me.age05.mp4", tmp_path / "me.age70.mp4"]
    assert answer.lines == [str(file) for file in files]
    for file in files:
        assert seconds(file) == pytest.approx(seconds(clip), abs=0.001)
        assert sound_packets(file) == sound_packets(clip)
        with av.open(str(file)) as container:
            assert container.metadata["comment"].startswith("Synthetic image made by faceage")
    before, young, old = ([p for _, p in read_frames(file)] for file in (clip, *files))
    for a, b, c in zip(before, young, old, strict=True):
        assert np.abs(a.astype(int) - b)[60:180, 100:220].mean() > 1
        assert np.abs(a[:, :20].astype(int) - c[:, :20]).mean() < 4  # background
    # Existing clips are kept, and --skip-existing does not make them again.
    assert run("age", clip, "--weights", tiny_weights, "--to", 5, "--out", tmp_path).code == 1
    times = files[0].stat().st_mtime_ns
    again = ("--to", 5, "--out", tmp_path, "--skip-existing")
    assert run("age", clip, "--weights", tiny_weights, *again).code == 0
    assert files[0].stat().st_mtime_ns == times


def test_clips_and_photos_in_one_command(
    run, clip: Path, tiny_weights: Path, astronaut: Path, tmp_path: Path
) -> None:
    answer = run(
        *("age", astronaut, clip, "--weights", tiny_weights, "--to", 70, "--out", tmp_path),
    )
    assert answer.code == 0, answer.err
    results = [tmp_path / "astronaut.age70.jpg", tmp_path / "me.age70.mp4"]
    assert sorted(answer.lines) == [str(path) for path in results]
    assert sorted(tmp_path.iterdir()) == results


def test_no_clip_is_overwritten(run, snapshot, clip: Path, tiny_weights: Path, tmp_path) -> None:
    first, second = tmp_path / "a" / "me.mp4", tmp_path / "b" / "me.mp4"
    for path in (first, second):
        path.parent.mkdir()
        path.write_bytes(clip.read_bytes())
    common = ("--weights", tiny_weights, "--to", 70, "--force", "--out")
    before = snapshot(tmp_path)
    answer = run("age", first, *common, first)
    assert answer.code == 1
    assert "itself one of the clips" in answer.err
    assert snapshot(tmp_path) == before
    answer = run("age", first, second, *common, tmp_path / "out")
    assert answer.code == 1
    assert answer.lines == [str(tmp_path / "out" / "me.age70.mp4")]
    assert f"also that of {first}" in answer.err


def test_an_interrupted_clip_leaves_nothing(clip: Path, tiny_weights: Path, tmp_path: Path) -> None:
    ager = faceage.load(tiny_weights, device="cpu")

    def stop(count: int) -> None:
        steps.append(count)
        if len(steps) > FRAMES + 3:
            raise KeyboardInterrupt

    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        age_clip(ager, clip, {70.0: tmp_path / "old.mp4"}, report=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_is_completed_by_the_next(
    run, clip: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    program = """
import os, signal, sys
import faceage
from faceage.video.clips import age_clip
from pathlib import Path

def kill(count):
    kill.calls += count
    if kill.calls > 2.5 * FRAMES:  # during the second result
        os.kill(os.getpid(), signal.SIGKILL)

kill.calls = 0
clip, weights, folder = map(Path, sys.argv[1:])
files = {5.0: folder / "me.age05.mp4", 70.0: folder / "me.age70.mp4"}
age_clip(faceage.load(weights, device="cpu"), clip, files, report=kill)
"""
    program = program.replace("FRAMES", str(FRAMES))
    arguments = [sys.executable, "-c", program, clip, tiny_weights, tmp_path]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    first, second = tmp_path / "me.age05.mp4", tmp_path / "me.age70.mp4"
    assert len(list(read_frames(first))) == FRAMES
    assert not second.exists()
    before = first.stat().st_mtime_ns
    answer = run(
        *("age", clip, "--weights", tiny_weights, "--to", "5,70"),
        *("--out", tmp_path, "--skip-existing"),
    )
    assert (answer.code, answer.lines) == (0, [str(second)])
    assert len(list(read_frames(second))) == FRAMES
    assert first.stat().st_mtime_ns == before


def test_clips_without_sound_or_with_odd_sides(
    portraits: list[np.ndarray], tiny_weights: Path, tmp_path: Path
) -> None:
    odd = [np.ascontiguousarray(p[:255, :319]) for p in portraits[:4]]
    clip = tmp_path / "odd.mkv"
    with av.open(str(clip), "w") as container:
        video = container.add_stream("libx264", rate=RATE)
        video.height, video.width, video.pix_fmt = 255, 319, "yuv444p"
        for pixels in odd:
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
    age_clip(faceage.load(tiny_weights, device="cpu"), clip, {70.0: tmp_path / "old.mkv"})
    assert [p.shape for _, p in read_frames(tmp_path / "old.mkv")] == [(255, 319, 3)] * 4


def test_clips_that_are_refused(run, clip: Path, tiny_weights: Path, tmp_path: Path) -> None:
    ager = faceage.load(tiny_weights, device="cpu")
    empty = write_clip(tmp_path / "grey.mp4", [np.full((96, 96, 3), 90, np.uint8)] * 3, [0, 1, 2])
    with pytest.raises(NoFaceError, match=r"grey\.mp4"):
        age_clip(ager, empty, {70.0: tmp_path / "old.mp4"})
    with pytest.raises(NoFaceError, match="no face 2"):
        age_clip(ager, clip, {70.0: tmp_path / "old.mp4"}, faces=(2,))
    (tmp_path / "text.mp4").write_text("no clip")
    with pytest.raises(PhotoError, match=r"text\.mp4"):
        list(read_frames(tmp_path / "text.mp4"))
    common = ("--weights", tiny_weights, "--to", "5,70")
    missing = run("age", tmp_path / "none.mp4", *common)
    assert missing.code == 1
    assert "No such clip" in missing.err
    assert run("age", clip, *common, "--sheet").code == 2
    assert run("age", clip, *common, "--shards", 2, "--out", tmp_path).code == 2
    one = ("--weights", tiny_weights, "--to", 70, "--out")
    assert run("age", clip, *common, "--out", tmp_path / "one.mp4").code == 2
    assert run("age", clip, tmp_path / "me.jpg", *one, tmp_path / "one.mp4").code == 2
    assert ".jpg" in run("age", clip, *one, tmp_path / "one.jpg").err
    assert not (tmp_path / "old.mp4").exists()
