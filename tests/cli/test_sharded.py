"""Commands in shards: the same results as without, by any engine, also after kills."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

import faceage
from faceage.cli.output_formats import CSV_COLUMNS
from faceage.scale.tars import add_member

ROOT = Path(faceage.__file__).parents[1]

pytest.importorskip("pyarrow", reason="needs the extra scale")
pytest.importorskip("webdataset", reason="needs the extra scale")


@pytest.fixture
def photos(tmp_path: Path, astronaut: Path, couple: Path) -> Path:
    """A tree of three photos with faces, and one that cannot be read."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(astronaut, folder / "a.jpg")
    shutil.copy(couple, folder / "b.c.png")
    (folder / "broken.jpg").write_bytes(b"no photo")
    shutil.copy(astronaut, folder / "sub" / "a.jpg")
    return folder


def relative(files: dict[str, str], folder: Path) -> dict[str, str]:
    return {str(Path(name).relative_to(folder)): value for name, value in files.items()}


def read_tars(folder: Path) -> dict[str, bytes]:
    members = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                members[member.name] = archive.extractfile(member).read()
    return members


def test_parquet_has_the_rows_of_the_csv(run, photos, tiny_weights, tmp_path) -> None:
    import pyarrow.parquet

    out = tmp_path / "out"
    model = ["--weights", tiny_weights, "-r"]
    answer = run("predict", photos, *model, "--out", out, "--shards", 2, "--workers", 1)
    assert answer.code == 1
    files = [out / "predictions" / f"0000{i}-of-00002.parquet" for i in (1, 2)]
    assert answer.lines == [str(file) for file in files]
    table = pyarrow.parquet.read_table(out / "predictions")
    assert tuple(table.column_names) == CSV_COLUMNS
    printed = list(csv.DictReader(run("predict", photos, *model, "--csv").out.splitlines()))
    rows = table.to_pylist()
    assert len(rows) == len(printed) == 5
    for row, text in zip(rows, printed, strict=True):
        assert {k: "" if v is None else str(v) for k, v in row.items()} == text
    failures = list(csv.DictReader((out / "failures.csv").read_text().splitlines()))
    assert [row["file"] for row in failures] == [str(photos / "broken.jpg")]
    assert answer.err.startswith("Failed photos: 1, listed in ")


def test_tars_have_the_files_of_age_and_align(run, photos, tiny_weights, tmp_path) -> None:
    options = ["-r", "--workers", 1, "--shards", 2]
    model = ["--weights", tiny_weights, "--to", "5,70"]
    run("age", photos, *model, "--out", tmp_path / "files", "-r")
    assert run("age", photos, *model, *options, "--out", tmp_path / "out").code == 1
    members = read_tars(tmp_path / "out" / "pictures")
    expected = {
        str(path.relative_to(tmp_path / "files")).replace("b.c.", "b_c."): path.read_bytes()
        for path in (tmp_path / "files").rglob("*.age*")
    }
    assert {k: v for k, v in members.items() if not k.endswith(".json")} == expected
    described = json.loads(members["b_c.json"])
    assert described["photo"] == str(photos / "b.c.png")
    assert [face["face"] for face in described["faces"]] == [1, 2]

    run("align", photos, "-r", "--out", tmp_path / "crops", "--size", 64)
    run("align", photos, *options, "--out", tmp_path / "shards", "--size", 64)
    members = read_tars(tmp_path / "shards" / "crops")
    listed = {row["file"]: row for row in csv.DictReader((tmp_path / "crops/faces.csv").open())}
    pictures = {name: data for name, data in members.items() if name.endswith(".png")}
    assert len(pictures) == len(listed) == 4
    for name in listed:
        assert pictures[name.replace("b.c.", "b_c.")] == (tmp_path / "crops" / name).read_bytes()


def test_tar_shards_as_input(run, photos, tiny_weights, tmp_path) -> None:
    import pyarrow.parquet

    for number, names in enumerate((["a.jpg", "b.c.png"], ["broken.jpg", "sub/a.jpg"])):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for name in names:
                add_member(archive, name, (photos / name).read_bytes())
                add_member(archive, Path(name).with_suffix(".json").as_posix(), b"{}")
    model = ["--weights", tiny_weights, "--out"]
    answer = run("predict", tmp_path / "*.tar", *model, tmp_path / "tars", "--workers", 1)
    assert answer.code == 1
    run("predict", photos, "-r", *model, tmp_path / "photos-out", "--shards", 2, "--workers", 1)
    one, two = (
        pyarrow.parquet.read_table(tmp_path / name / "predictions").to_pylist()
        for name in ("tars", "photos-out")
    )
    assert [row["file"] for row in one] == [
        "a.jpg",
        "b.c.png",
        "b.c.png",
        "broken.jpg",
        "sub/a.jpg",
    ]
    assert [{**r, "file": "", "error": ""} for r in one] == [
        {**r, "file": "", "error": ""} for r in two
    ]
    assert one[3]["error"].startswith("broken.jpg is not an image")

    (tmp_path / "1.tar").write_bytes((tmp_path / "1.tar").read_bytes()[:700])
    answer = run("predict", tmp_path / "*.tar", *model, tmp_path / "cut", "--workers", 1)
    assert answer.code == 1
    assert "error: shard 2/2: Cannot read the shard" in answer.err
    names = [path.name for path in (tmp_path / "cut" / "predictions").iterdir()]
    assert names == ["00001-of-00002.parquet"]


def test_single_shards_make_the_same_files(run, photos, tiny_weights, tmp_path, snapshot) -> None:
    command = ["predict", photos, "--weights", tiny_weights, "--workers", 1, "--out"]
    run(*command, tmp_path / "all", "--shards", 3)
    for shard in ("3/3", "1/3", "2/3"):
        run(*command, tmp_path / "each", "--shard", shard)
    expected = relative(snapshot(tmp_path / "all"), tmp_path / "all")
    assert relative(snapshot(tmp_path / "each"), tmp_path / "each") == expected
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("*.parquet")}
    answer = run(*command, tmp_path / "all", "--shards", 3)
    assert answer.errors[0] == "note: 3 of 3 shards are complete already."
    assert answer.code == 1  # as at the first time: one photo failed
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_photos_or_options_are_refused(run, photos, tiny_weights, tmp_path, snapshot) -> None:
    out = tmp_path / "out"
    command = ["predict", photos, "--weights", tiny_weights, "--out", out, "--shards", 2]
    run(*command, "--workers", 1)
    before = snapshot(out)
    answer = run(*command, "--face", "largest")
    assert (answer.code, len(answer.errors)) == (1, 1)
    assert "results of another run; it differs in face." in answer.err
    shutil.copy(photos / "a.jpg", photos / "new.jpg")
    assert "differs in names_sha256, photos." in run(*command).err
    assert snapshot(out) == before
    assert run(*command, "--force", "--workers", 1).code == 1
    assert snapshot(out) != before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shard", "5/4"], "Cannot read the shard '5/4'"),
        (["--shard", "1/4", "--shards", "3"], "is not one of"),
        (["--address", "auto"], "Add --engine ray"),
        (["--shards", "99"], "only 3 photos for 99 shards"),
        (["--json"], "exclude each other"),
    ],
)
def test_bad_shard_options(run, photos, tiny_weights, tmp_path, options, says) -> None:
    out = tmp_path / "out"
    answer = run("predict", photos, "--weights", tiny_weights, "--out", out, *options)
    assert (answer.code, len(answer.errors)) == (2, 1)
    assert says in answer.err
    assert not out.exists()


def test_shards_need_a_folder(run, photos, tiny_weights) -> None:
    for command in (["predict", photos], ["age", photos, "--to", "5"]):
        answer = run(*command, "--weights", tiny_weights, "--shard", "1/2")
        assert (answer.code, len(answer.errors)) == (2, 1)
        assert "Add --out DIR" in answer.err


def test_missing_libraries_are_one_line(run, photos, tiny_weights, tmp_path, monkeypatch) -> None:
    command = ["predict", photos, "--weights", tiny_weights, "--out", tmp_path / "out"]
    monkeypatch.setitem(sys.modules, "ray", None)
    answer = run(*command, "--engine", "ray")
    assert answer.code == 2
    assert "pip install 'faceage[ray]'" in answer.err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'faceage[scale]'" in run(*command, "--workers", 1).err


def start(command: list[object]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "faceage", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.slow
def test_worker_processes_end_with_the_program(photos, tiny_weights, tmp_path) -> None:
    for number in range(30):
        shutil.copy(photos / "a.jpg", photos / f"{number}.jpg")
    options = ["--weights", tiny_weights, "--out", tmp_path / "out", "--shards", 2, "--workers", 2]
    for how, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = start(["predict", photos, *options])
        while not list((tmp_path / "out").rglob("*.tmp")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(how)
        assert process.wait(timeout=60) == code
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # until no process of its group is left
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.2)
        else:
            pytest.fail("a worker process is still running")
        shutil.rmtree(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_runs_end_in_the_same_files(
    run, photos, tiny_weights, tmp_path, snapshot, workers: int
) -> None:
    command = ["age", photos, "-r", "--to", "5,70", "--weights", tiny_weights, "--out"]
    run(*command, tmp_path / "quiet", "--shards", 4, "--workers", 1)
    begin = time.monotonic()
    options = ["--shards", 4, "--workers", workers]
    start([*command, tmp_path / "timed", *options]).wait()
    duration = time.monotonic() - begin
    generator = random.Random(workers)
    for _ in range(10):
        process = start([*command, tmp_path / "killed", *options])
        time.sleep(generator.uniform(0.3, 1) * duration)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    start([*command, tmp_path / "killed", *options]).wait()
    expected = relative(snapshot(tmp_path / "quiet"), tmp_path / "quiet")
    for name in ("timed", "killed"):
        assert relative(snapshot(tmp_path / name), tmp_path / name) == expected


@pytest.mark.slow
def test_ray_makes_the_same_files_though_a_worker_is_killed(
    run, photos, tiny_weights, tmp_path, snapshot
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    command = ["age", photos, "-r", "--to", "5,70", "--weights", tiny_weights, "--shards", 4]
    run(*command, "--out", tmp_path / "local", "--workers", 1)
    # Every worker of Ray calls this at its start: the first photo of all kills its worker.
    (tmp_path / "killer.py").write_text(
        "import os, signal\n"
        "from pathlib import Path\n"
        "from faceage.cli.age import AgeTask\n"
        "def set_up():\n"
        "    work = AgeTask.work\n"
        "    def kill_once(self, *arguments):\n"
        f"        flag = Path({str(tmp_path / 'killed')!r})\n"
        "        if not flag.exists():\n"
        "            flag.touch()\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return work(self, *arguments)\n"
        "    AgeTask.work = kill_once\n"
    )
    (tmp_path / "program.py").write_text(
        "import functools, ray\n"
        "from faceage.cli import main\n"
        "environment = {'worker_process_setup_hook': 'killer.set_up'}\n"
        "ray.init = functools.partial(ray.init, runtime_env=environment)\n"
        "main()\n"
    )
    arguments = [*command, "--out", tmp_path / "ray", "--engine", "ray", "--workers", 2]
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )
    assert done.returncode == 1, done.stderr[-2000:]  # one photo of the folder cannot be read
    assert (tmp_path / "killed").exists()
    expected = relative(snapshot(tmp_path / "local"), tmp_path / "local")
    assert relative(snapshot(tmp_path / "ray"), tmp_path / "ray") == expected
