"""Batches: errors, exit codes, interruption."""

import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from faceage.cli.batch import load_ager, report_errors
from faceage.cli.inputs import Item


def test_a_batch_of_one_photo_prints_no_summary(capsys: pytest.CaptureFixture) -> None:
    item = Item(Path("a.jpg"), error="No such photo: a.jpg.")
    assert report_errors([item]) == 1
    assert capsys.readouterr().err == "error: No such photo: a.jpg.\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--to", "-3"], "-3"),
        (["--to", "500"], "500"),
        (["--to", "abc"], "abc"),
        (["--to", "30-20"], "30-20"),
        (["--to", "5,,70"], "''"),
        (["--to", "5", "--face", "first"], "first"),
        (["--to", "5", "--face", "0"], "'0'"),
        (["--to", "5", "--device", "abacus"], "abacus"),
        (["--to", "12.5000001,12.5000002"], "would both write"),
        (["--to", "5", "--force", "--skip-existing"], "exclude each other"),
    ],
)
def test_bad_option(run, snapshot, astronaut, tiny_weights, tmp_path, options, says) -> None:
    answer = run("age", astronaut, "--weights", tiny_weights, "--out", tmp_path, *options)
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert says in answer.err
    assert snapshot(tmp_path) == {}


def test_usage_errors(run, astronaut: Path) -> None:
    for arguments in (
        ["nonsuch"],
        ["age", astronaut],  # no --to
        ["predict"],
        ["predict", astronaut, "--nonsuch"],
        ["predict", astronaut, "--min-score", "2"],
        ["predict", astronaut, "--detector", "eyes"],
    ):
        answer = run(*arguments)
        assert answer.code == 2, arguments
        assert answer.out == ""
        assert answer.err != ""
    for pair in (("--json", "--csv"), ("--json", "--jsonl"), ("--jsonl", "--csv")):
        answer = run("predict", astronaut, *pair)
        assert (answer.code, len(answer.errors)) == (2, 1)
        assert "exclude each other" in answer.err


def test_a_bug_is_one_line_and_the_batch_goes_on(
    run, astronaut: Path, couple: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faceage.cli import predict as module

    predict_photo = module.predict_photo

    def buggy(ager, item, *rest):
        if item.path == astronaut:
            raise ZeroDivisionError("two\nlines")
        return predict_photo(ager, item, *rest)

    monkeypatch.setattr(module, "predict_photo", buggy)
    answer = run("predict", astronaut, couple, "--weights", tiny_weights, "--json")
    assert answer.code == 1
    assert len(answer.errors) == 2
    assert f"{astronaut}: ZeroDivisionError: two lines (set FACEAGE_DEBUG=1" in answer.err
    assert [row.get("face") for row in json.loads(answer.out)] == [None, 1, 2]


def test_a_bug_while_reading_ahead_is_that_photo_s_alone(
    run, astronaut: Path, couple: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faceage.cli import predict as module

    open_item = module.open_item

    def buggy(item):
        if item.path == couple:
            raise ZeroDivisionError("oops")
        return open_item(item)

    monkeypatch.setattr(module, "open_item", buggy)
    answer = run("predict", couple, astronaut, "--weights", tiny_weights, "--jsonl")
    assert answer.code == 1
    assert [json.loads(line).get("face") for line in answer.lines] == [None, 1]
    assert f"{couple}: ZeroDivisionError: oops" in answer.err


@pytest.mark.parametrize("style", ["--json", "--jsonl", "--csv"])
def test_rows_stand_in_the_order_of_the_input(
    run, astronaut: Path, couple: Path, tiny_weights: Path, tmp_path: Path, style: str
) -> None:
    photos = [tmp_path / "gone.jpg", astronaut, tmp_path / "no*.gif", couple, tmp_path / "text.png"]
    photos[-1].write_text("hello")
    answer = run("predict", *photos, "--weights", tiny_weights, style)
    assert answer.code == 1
    if style == "--csv":
        files = [row["file"] for row in csv.DictReader(io.StringIO(answer.out))]
    elif style == "--json":
        files = [row["file"] for row in json.loads(answer.out)]
    else:
        files = [json.loads(line)["file"] for line in answer.lines]
    assert files == [str(p) for p in (*photos[:4], couple, photos[4])]


@pytest.mark.parametrize("style", ["--json", "--jsonl", "--csv", "table"])
def test_an_interrupt_loses_no_result_that_is_done(
    run, astronaut: Path, couple: Path, tiny_weights: Path, monkeypatch, style: str
) -> None:
    from faceage.cli import predict as module

    predict_photo = module.predict_photo

    def interrupt(ager, item, *rest):
        if item.path == couple:
            raise KeyboardInterrupt
        return predict_photo(ager, item, *rest)

    monkeypatch.setattr(module, "predict_photo", interrupt)
    options = ["--weights", tiny_weights] + ([style] if style != "table" else [])
    answer = run("predict", astronaut, couple, *options)
    assert (answer.code, answer.err) == (130, "interrupted\n")
    if style == "--json":
        assert [row["file"] for row in json.loads(answer.out)] == [str(astronaut)]
    else:
        assert len([line for line in answer.lines if str(astronaut) in line]) == 1


def test_an_interrupted_align_has_a_csv_of_what_is_done(
    run, astronaut: Path, couple: Path, tmp_path: Path, monkeypatch
) -> None:
    from faceage.cli import align as module

    align_photo = module.align_photo

    def interrupt(item, *rest):
        if item.path == couple:
            raise KeyboardInterrupt
        return align_photo(item, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, "align_photo", interrupt)
        answer = run("align", astronaut, couple, "--out", tmp_path)
    assert (answer.code, answer.err) == (130, "interrupted\n")
    assert len((tmp_path / "faces.csv").read_text().splitlines()) == 2
    assert run("align", astronaut, couple, "--out", tmp_path, "--skip-existing").code == 0
    assert len((tmp_path / "faces.csv").read_text().splitlines()) == 4


def test_networks_use_one_thread(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = torch.get_num_threads()
    try:
        for variable, expected in ((None, 1), ("3", 3)):
            torch.set_num_threads(3)
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            if variable:
                monkeypatch.setenv("OMP_NUM_THREADS", variable)
            load_ager(str(tiny_weights), "cpu", "yunet", 0.6)
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(now)


def test_sigint_after_the_first_result(tiny_weights: Path, astronaut: Path, tmp_path: Path) -> None:
    """Once for real, with a signal to a process."""
    for i in range(60):
        (tmp_path / f"{i:02}.jpg").write_bytes(astronaut.read_bytes())
    command = [sys.executable, "-m", "faceage", "predict", str(tmp_path), "--jsonl"]
    with subprocess.Popen(
        [*command, "--weights", str(tiny_weights)], stdout=subprocess.PIPE, text=True
    ) as process:
        lines = [process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        lines += process.stdout.readlines()
    assert process.returncode == 130
    names = [Path(json.loads(line)["file"]).name for line in lines]
    assert 1 <= len(names) < 60
    assert names == [f"{i:02}.jpg" for i in range(len(names))]


def test_as_a_program(tiny_weights: Path, astronaut: Path, tmp_path: Path) -> None:
    """Once for real: exit codes and streams as a shell sees them."""
    command = [sys.executable, "-m", "faceage"]
    options = ["--weights", str(tiny_weights), "--json"]
    done = subprocess.run(
        [*command, "predict", str(astronaut), str(tmp_path / "nonsuch.jpg"), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(json.loads(done.stdout)) == 2
    assert done.stderr.splitlines() == [
        "1 of 2 failed:",
        f"error: No such photo: {tmp_path / 'nonsuch.jpg'}. Check the path.",
    ]
    done = subprocess.run(
        [*command, "age", str(astronaut), "--to=abc"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_failures_of_a_batch_are_listed_in_a_csv(
    run, astronaut: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    out = tmp_path / "out"
    for command in (["age", "--to", "5", "--weights", tiny_weights], ["align", "--size", "64"]):
        arguments = [*command, "--out", out / command[0], "--skip-existing"]
        answer = run(*arguments, astronaut, bad)
        assert answer.code == 1
        listed = out / command[0] / "failures.csv"
        (row,) = csv.DictReader(listed.read_text().splitlines())
        assert row["file"] == str(bad)
        assert f"error: {row['error']}" in answer.errors
        assert run(*arguments, astronaut, astronaut.with_name("astronaut-ages.jpg")).code == 0
        assert not listed.exists()


def test_a_file_that_is_no_list_of_failures_is_kept(
    run, astronaut: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "failures.csv").write_text("my own")
    answer = run("align", astronaut, tmp_path / "gone.jpg", "--out", tmp_path)
    assert answer.code == 1
    assert "failures.csv is no list of failures" in answer.err
    assert (tmp_path / "failures.csv").read_text() == "my own"
