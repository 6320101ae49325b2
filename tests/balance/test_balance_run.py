"""A run: what is kept and dropped, the manifest, and that a killed run continues."""

import csv
import os
import pickle
import random
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from balance_stand_ins import LANDMARKS, make_balancer, make_dataset
from PIL import Image

from faceage.balance import folder as folder_module
from faceage.balance import run as run_module
from faceage.balance.run import Outcome, open_real
from faceage.data.datasets import open_dataset
from faceage.errors import ConfigError, DataError, FaceAgeError, OutputError
from faceage.imaging.photos import is_own_result
from faceage.scale.engines import Maker, ShardResult, ShardTask, run_in_processes

AGES = [1, 1, 5, 8, *range(21, 60)]  # 0-2: two pictures
NEEDS = {(0, ""): 4, (9, ""): 6}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", AGES)


def balance(data: Path, out: Path, needs: dict = NEEDS, **options: Any) -> Outcome:
    with folder_module.open_folder(out, {"needs": str(needs)}):
        return make_balancer(data, out, needs, **options).run()


def read_manifest(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_results_are_kept_dropped_and_replaced(data: Path, tmp_path: Path) -> None:
    outcome = balance(data, tmp_path / "out")
    assert outcome.made == [4, 0, 0, 0, 0, 0, 0, 0, 0, 6]
    assert outcome.missing == {}
    assert outcome.dropped["age"] > 0
    rows = [row for row in read_manifest(tmp_path / "out") if row["synthetic"] == "1"]
    kept = [row for row in rows if row["kept"] == "1"]
    assert len(kept) == 10
    assert Counter(row["why"].partition(":")[0] for row in rows) == {"": 10} | outcome.dropped
    for row in rows:
        level = int(row["source_age"])
        failed = level % 3 == 0 and abs(int(row["target_age"]) - float(row["judged_age"])) > 5
        assert failed == (row["kept"] == "0"), row
        assert (tmp_path / "out" / row["file"]).exists() == (row["kept"] == "1")


def test_the_folder_is_a_dataset(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    balance(data, out)
    train, test = (open_dataset(out, split) for split in ("train", "test"))
    assert len(train) == len(AGES) + 10
    assert Counter(sample.group for sample in train.samples)[9] == 6
    assert [train.read(sample).size for sample in train.samples] == [(32, 32)] * len(train)
    assert [(s.file, s.age) for s in test.samples] == [(f"real/{len(AGES)}.png", 50)]
    assert train.samples[0].landmarks == tuple(map(float, LANDMARKS.split()))


def test_results_are_labelled_with_the_judged_age(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    balance(data, out)
    for row in read_manifest(out):
        if row["synthetic"] == "1" and row["kept"] == "1":
            assert row["age"] == row["judged_age"].partition(".")[0]
            assert row["label"] == "estimated"
            assert row["set"] == "train"
            assert row["weights_sha256"] == "ab" * 32
            assert row["seed"] == "0"
            source = data / row["source_file"]
            assert Image.open(source).getpixel((0, 0))[0] == int(row["source_age"])
            assert row["person"] == row["source_file"]


def test_results_are_marked_as_synthetic(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    balance(data, out)
    pictures = list((out / "synthetic").iterdir())
    assert len(pictures) == 10
    assert all(map(is_own_result, pictures))
    assert not any(map(is_own_result, (out / "real").iterdir()))


def test_results_that_show_another_group_count_there(tmp_path: Path) -> None:
    """Results made for 70+ that are judged to be 67 fill the group 50-69."""

    class Young:
        name, highest = "young", 100.0

        def estimate(self, pixels: Any, face: Any) -> float:
            level = float(pixels.mean())
            return level - (25 if level < 70 else 4)

    data = make_dataset(tmp_path / "data", [31] * 20 + [71])  # all targets in 70+ are 71
    out = tmp_path / "out"
    with folder_module.open_folder(out, {}):
        outcome = make_balancer(data, out, {(8, ""): 2, (9, ""): 2}, Young()).run()
    assert outcome.made[8] == 2
    assert outcome.missing == {(9, ""): 2}
    rows = [row for row in read_manifest(out) if row["synthetic"] == "1"]
    kept = [(row["target_age"], row["age"]) for row in rows if row["kept"] == "1"]
    assert kept == [("71", "67")] * 2
    others = {row["why"] for row in rows if row["kept"] == "0" and row["target_age"] == "71"}
    assert others == {"full: no more pictures of 50-69 are needed"}


def test_a_group_is_given_up_after_so_many_tries(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", [30] * 40)  # all of these results fail
    outcome = balance(data, tmp_path / "out", {(9, ""): 5}, tries=3)
    assert outcome.missing == {(9, ""): 5}
    assert outcome.dropped == {"age": 15}
    assert len(open_dataset(tmp_path / "out")) == 40


def test_a_damaged_source_is_dropped_and_replaced(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", [61] * 4 + [31])
    for number in range(4):
        (data / f"{number}.png").write_bytes(b"no picture")
    outcome = balance(data, tmp_path / "out", {(9, ""): 1}, tries=9)
    assert outcome.made[9] == 1
    rows = [row for row in read_manifest(tmp_path / "out") if row["why"]]
    assert len(rows) == 4
    assert all(row["why"].startswith("source: Cannot read") for row in rows)


def test_held_out_people_are_never_sources(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", [31, 31])
    outcome = balance(data, tmp_path / "out", {(9, ""): 3}, tries=9)
    assert outcome.missing == {(9, ""): 1}
    sources = {row["source_file"] for row in read_manifest(tmp_path / "out") if row["source_file"]}
    assert sources == {"0.png", "1.png"}


def test_a_result_is_no_dataset_to_be_balanced(data: Path, tmp_path: Path) -> None:
    balance(data, tmp_path / "out")
    with pytest.raises(ConfigError, match="itself a result"):
        open_real(tmp_path / "out")


def test_a_finished_run_changes_nothing(data: Path, tmp_path: Path, snapshot: Any) -> None:
    first = balance(data, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    assert balance(data, tmp_path / "out") == first
    assert snapshot(tmp_path / "out") == before


def test_missing_pictures_are_made_again(data: Path, tmp_path: Path, snapshot: Any) -> None:
    out = tmp_path / "out"
    balance(data, out)
    before = snapshot(out)
    for path in list((out / "synthetic").iterdir())[:3]:
        path.unlink()
    (out / "real" / "0.png").unlink()
    (out / "manifest.csv").unlink()
    balance(data, out)
    assert snapshot(out) == before


def test_a_changed_picture_is_reported_and_kept(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    balance(data, out)
    path = sorted((out / "synthetic").iterdir())[0]
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="is not the picture that this run wrote"):
        balance(data, out)
    assert path.read_bytes() == b"mine"


def test_a_journal_of_another_plan_is_reported(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    balance(data, out)
    journal = out / "results.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[1:]))
    with pytest.raises(DataError, match="line 1, does not belong to this plan"):
        balance(data, out)
    journal.write_text("".join([*lines, lines[0]]))
    with pytest.raises(DataError, match=f"line {len(lines) + 1}, does not belong"):
        balance(data, out)


def run_backwards(maker: Maker, tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
    """An engine of one process that has copies of everything, and ends its last task first."""
    copy: Maker = pickle.loads(pickle.dumps(maker))
    for task in reversed(tasks):
        yield pickle.loads(pickle.dumps(copy.make(task, lambda: None)))


@pytest.mark.parametrize("engine", [run_backwards, partial(run_in_processes, workers=2)])
def test_every_engine_makes_the_same_files(
    data: Path, tmp_path: Path, snapshot: Any, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "FEW", 2)
    monkeypatch.setattr(run_module, "TASK", 3)
    if isinstance(engine, partial):
        engine = partial(engine, count=lambda done: None)
    outcome = balance(data, tmp_path / "here")
    assert balance(data, tmp_path / "there", engine=engine) == replace(
        outcome, manifest=tmp_path / "there" / "manifest.csv"
    )
    here, there = (relative(snapshot(tmp_path / n), tmp_path / n) for n in ("here", "there"))
    assert here == there


def test_an_interrupted_run_goes_on_with_an_engine(
    data: Path, tmp_path: Path, snapshot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "FEW", 2)
    quiet, halved = tmp_path / "quiet", tmp_path / "halved"
    balance(data, quiet)
    balance(data, halved)
    lines = (halved / "results.jsonl").read_text().splitlines(keepends=True)
    (halved / "results.jsonl").write_text("".join(lines[: len(lines) // 2]))
    balance(data, halved, engine=run_backwards)
    assert relative(snapshot(halved), halved) == relative(snapshot(quiet), quiet)


def test_an_error_of_a_process_is_reported(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "FEW", 2)

    def fail(maker: Maker, tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
        yield ShardResult(tasks[0].shard, error="The weights are damaged. Fetch them again.")

    with pytest.raises(FaceAgeError, match="The weights are damaged"):
        balance(data, tmp_path / "out", engine=fail)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_a_run_killed_at_random_ends_in_the_same_files(
    data: Path, tmp_path: Path, snapshot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills by SIGKILL before and after a picture is written, and within a journal's line."""
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    balance(data, quiet)
    chance = random.Random(0)
    kills = 0
    while kills < 20:
        steps = chance.randrange(1, 8)
        child = os.fork()
        if not child:
            try:
                _die_at_random(steps, monkeypatch)
                balance(data, killed)
            except BaseException:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):  # it came to its end: begin anew
            assert os.WEXITSTATUS(status) == 0
            assert relative(snapshot(killed), killed) == relative(snapshot(quiet), quiet)
            for path in sorted(killed.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        else:
            assert os.WTERMSIG(status) == signal.SIGKILL
            kills += 1
    balance(data, killed)
    assert relative(snapshot(killed), killed) == relative(snapshot(quiet), quiet)


def relative(files: dict[str, str], root: Path) -> dict[str, str]:
    return {str(Path(name).relative_to(root)): digest for name, digest in files.items()}


def _die_at_random(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process kill itself at one of the next steps of writing."""
    left = steps

    def step(part: Any = None) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            if part:
                part()
            os.kill(os.getpid(), signal.SIGKILL)

    append, rename = folder_module.Journal.append, Path.replace

    def append_or_die(self: Any, row: dict) -> None:
        def write_half() -> None:
            with self.path.open("ab") as file:
                file.write(b'{"source": 1, "gro')

        step(write_half)
        append(self, row)
        step()

    def rename_or_die(self: Path, target: Path) -> Path:
        step()  # the temporary file is written
        return rename(self, target)

    monkeypatch.setattr(folder_module.Journal, "append", append_or_die)
    monkeypatch.setattr(Path, "replace", rename_or_die)
