"""Naming of results."""

from pathlib import Path

import pytest

from faceage.cli.outputs import Target, plan_targets
from faceage.errors import ConfigError


def test_result_paths() -> None:
    def target(photo: str, out: str | None = None) -> Target:
        return Target.of(Path(photo), Path(out) if out else None)

    assert target("a/me.x.JPG").photo("age05") == Path("a/me.x.age05.JPG")
    assert target("a/me.jpg", "b").photo("age05") == Path("b/me.age05.jpg")
    assert target("a/me.gif").photo("age05") == Path("a/me.age05.png")
    assert target("a/me.jpg").crop(1, "age05") == Path("a/me.age05.png")
    assert target("a/me.jpg").crop(2) == Path("a/me.face2.png")
    assert target("a/me.png", "b").sheet == Path("b/me.sheet.jpg")


def test_results_must_be_distinct(tmp_path: Path) -> None:
    one, two, out = Path("a/x.jpg"), Path("b/x.jpg"), Path("o")
    assert set(plan_targets([one], out, lambda t: [t.photo("age05")])) == {one}
    with pytest.raises(ConfigError, match=r"a/x\.jpg and b/x\.jpg would both write"):
        plan_targets([one, two], out, lambda t: [t.photo("age05")])
    with pytest.raises(ConfigError, match="Two of the ages"):
        plan_targets([one], out, lambda t: [t.photo("age05"), t.photo("age05")])
    with pytest.raises(ConfigError, match="overwrite the photo"):
        plan_targets([one, Path("a/x.age05.jpg")], None, lambda t: [t.photo("age05")])


def test_two_photos_that_would_write_one_file(run, astronaut: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "me.jpg").write_bytes(astronaut.read_bytes())
    photos = tmp_path / "a" / "me.jpg", tmp_path / "b" / "me.jpg"
    for command in (
        ["age", *photos, "--to", 5, "--out", tmp_path / "out"],
        ["predict", *photos, "--draw", tmp_path / "out"],
        ["align", *photos, "--out", tmp_path / "out"],
    ):
        answer = run(*command)
        assert answer.code == 2
        assert len(answer.errors) == 1
        assert f"{photos[0]} and {photos[1]} would both write" in answer.err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["age", "predict", "align"])
def test_unwritable_output(run, tiny_weights: Path, astronaut: Path, tmp_path, command) -> None:
    (tmp_path / "file").write_text("not a folder")
    out = tmp_path / "file" / "out"
    options = {
        "age": ["--to", 5, "--weights", tiny_weights, "--out", out],
        "predict": ["--weights", tiny_weights, "--draw", out],
        "align": ["--out", out],
    }[command]
    answer = run(command, astronaut, *options)
    assert answer.code == 1
    assert len(answer.errors) == 1
    assert str(out) in answer.err
