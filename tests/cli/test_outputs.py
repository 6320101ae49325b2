"""Naming of results, and what is done about results that exist."""

from pathlib import Path

import pytest
from PIL import Image

from faceage.cli.inputs import Item
from faceage.cli.outputs import IfExists, Target, check_kept, pending_files, plan_targets
from faceage.errors import ConfigError, OutputError


def aged(target: Target) -> list[Path]:
    return [target.photo("age05")]


def plan(*photos: str, out: str | None = "o", results=aged) -> dict[str, list[str]]:
    """The results of each photo, relative to the working directory."""
    items = [Item(Path(photo)) for photo in photos]
    targets = plan_targets(items, Path(out) if out else None, results)
    return {
        item.name: item.error or [str(file) for file in results(targets[item.path])]
        for item in items
    }


def test_names_of_results() -> None:
    def target(photo: str, out: str | None = None) -> Target:
        return Target.of(Item(Path(photo)), Path(out) if out else None)

    assert target("a/me.x.JPG").photo("age05") == Path("a/me.x.age05.JPG")
    assert target("a/me.jpg", "b").photo("age05") == Path("b/me.age05.jpg")
    assert target("a/me.gif").photo("age05") == Path("a/me.age05.png")
    assert target("a/me.jpg").crop(1, "age05") == Path("a/me.age05.png")
    assert target("a/me.jpg").crop(2) == Path("a/me.face2.png")
    assert target("a/me.png", "b").sheet == Path("b/me.sheet.jpg")
    inner = Item(Path("photos/2020/me.jpg"), subfolder=Path("2020"))
    assert Target.of(inner, Path("o")).photo("age05") == Path("o/2020/me.age05.jpg")
    assert Target.of(inner, None).photo("age05") == Path("photos/2020/me.age05.jpg")


def test_photos_of_one_name_keep_their_folders_apart() -> None:
    assert plan("a/x.jpg", "b/x.jpg", "b/y.jpg") == {
        "a/x.jpg": ["o/a/x.age05.jpg"],
        "b/x.jpg": ["o/b/x.age05.jpg"],
        "b/y.jpg": ["o/y.age05.jpg"],
    }
    assert plan("a/x.jpg", "a/b/x.jpg") == {
        "a/x.jpg": ["o/x.age05.jpg"],
        "a/b/x.jpg": ["o/b/x.age05.jpg"],
    }
    beside = plan("a/x.jpg", "b/x.jpg", out=None)
    assert beside == {"a/x.jpg": ["a/x.age05.jpg"], "b/x.jpg": ["b/x.age05.jpg"]}


def test_photos_that_differ_in_the_suffix_keep_it_apart() -> None:
    for out, folder in ((None, "a"), ("o", "o")):
        assert plan("a/x.gif", "a/x.png", "a/x.bmp", "a/x.jpg", out=out) == {
            "a/x.gif": [f"{folder}/x.gif.age05.png"],
            "a/x.png": [f"{folder}/x.age05.png"],
            "a/x.bmp": [f"{folder}/x.bmp.age05.png"],
            "a/x.jpg": [f"{folder}/x.age05.jpg"],
        }

    def with_sheet(target: Target) -> list[Path]:
        return [*aged(target), target.sheet]

    assert plan("x.jpg", "x.png", results=with_sheet) == {
        "x.jpg": ["o/x.age05.jpg", "o/x.sheet.jpg"],
        "x.png": ["o/x.png.age05.png", "o/x.png.sheet.jpg"],
    }


def test_what_cannot_be_kept_apart_is_refused_photo_by_photo() -> None:
    refused = plan("x.jpg", "x.age05.jpg", "y.jpg", out=None)
    assert "x.jpg: its result x.age05.jpg is itself one of the photos" in refused["x.jpg"]
    assert refused["x.age05.jpg"] == ["x.age05.age05.jpg"]
    assert refused["y.jpg"] == ["y.age05.jpg"]
    # A photo called like the result of another one, which had to keep its suffix.
    refused = plan("x.gif", "x.png", "x.gif.png")
    assert refused["x.gif"] == ["o/x.gif.age05.png"]
    assert "is also that of x.gif" in refused["x.gif.png"]
    with pytest.raises(ConfigError, match="Two of the ages"):
        plan("x.jpg", results=lambda target: [*aged(target), *aged(target)])


def test_pending_files(tmp_path: Path) -> None:
    old, new = tmp_path / "old.png", tmp_path / "new.png"
    Image.new("RGB", (20, 30)).save(old)
    assert pending_files([old, new], IfExists.OVERWRITE) == [old, new]
    assert pending_files([old, new], IfExists.SKIP) == [new]
    with pytest.raises(OutputError, match="exists already") as caught:
        pending_files([new, old], IfExists.REFUSE)
    assert "--skip-existing" in str(caught.value)
    assert "--force" in str(caught.value)
    for choice in IfExists:
        with pytest.raises(OutputError, match="is a folder"):
            pending_files([tmp_path], choice)


def test_kept_files_are_whole_and_of_the_right_size(tmp_path: Path) -> None:
    path = tmp_path / "old.png"
    Image.effect_noise((20, 30), 50).save(path)
    check_kept([path])
    check_kept([path], size=(20, 30))
    with pytest.raises(OutputError, match=r"20x30 px, not 30x30.*--force"):
        check_kept([path], size=(30, 30))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(OutputError, match=r"damaged.*Delete it, or use --force"):
        check_kept([path])


def test_force_and_skip_existing_exclude_each_other() -> None:
    assert IfExists.from_options(force=False, skip_existing=False) is IfExists.REFUSE
    with pytest.raises(ConfigError, match="exclude each other"):
        IfExists.from_options(force=True, skip_existing=True)


def test_photos_of_one_name_on_the_command_line(
    run, astronaut: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "me.jpg").write_bytes(astronaut.read_bytes())
    photos = tmp_path / "a" / "me.jpg", tmp_path / "b" / "me.jpg"
    weights = ("--weights", tiny_weights)
    for command, options, results in (
        ("age", (*weights, "--to", 5, "--out"), ["a/me.age05.jpg", "b/me.age05.jpg"]),
        ("predict", (*weights, "--draw"), ["a/me.faces.jpg", "b/me.faces.jpg"]),
        ("align", ("--out",), ["a/me.png", "b/me.png", "faces.csv"]),
    ):
        out = tmp_path / command
        assert run(command, *photos, *options, out).code == 0
        written = [str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()]
        assert sorted(written) == results
    table = (tmp_path / "align" / "faces.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["file", "a/me.png", "b/me.png"]


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
