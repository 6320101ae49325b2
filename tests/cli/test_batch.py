"""Batches: errors, exit codes, interruption."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from faceage.cli.batch import report_errors
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
    answer = run("predict", astronaut, "--json", "--csv")
    assert (answer.code, len(answer.errors)) == (2, 1)


def test_a_bug_is_one_line_and_the_batch_goes_on(
    run, astronaut: Path, couple: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faceage.cli import predict as module

    predict_photo = module.predict_photo

    def buggy(ager, path, *rest):
        if path == astronaut:
            raise ZeroDivisionError("two\nlines")
        return predict_photo(ager, path, *rest)

    monkeypatch.setattr(module, "predict_photo", buggy)
    answer = run("predict", astronaut, couple, "--weights", tiny_weights, "--json")
    assert answer.code == 1
    assert len(answer.errors) == 2
    assert f"{astronaut}: ZeroDivisionError: two lines (set FACEAGE_DEBUG=1" in answer.err
    assert [row.get("face") for row in json.loads(answer.out)] == [None, 1, 2]


def test_interrupted(run, astronaut: Path, tiny_weights: Path, monkeypatch) -> None:
    from faceage.cli import predict as module

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "predict_photo", interrupt)
    answer = run("predict", astronaut, "--weights", tiny_weights)
    assert (answer.code, answer.out, answer.err) == (130, "", "interrupted\n")


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
