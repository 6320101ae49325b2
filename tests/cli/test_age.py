"""faceage age."""

import hashlib
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from face_geometry import crop_region
from PIL import Image

from faceage import api
from faceage.faces.detection import make_detector


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_age_writes_beside_the_photo(run, tiny_weights: Path, portrait_png: Path) -> None:
    answer = run("age", portrait_png, "--weights", tiny_weights, "--to", 5, "--to", "12.5,70")
    assert answer.code == 0
    assert answer.err == ""
    expected = [portrait_png.parent / f"me.age{age}.png" for age in ("05", "12.5", "70")]
    assert answer.lines == [str(path) for path in expected]
    assert sorted(portrait_png.parent.iterdir()) == sorted([*expected, portrait_png])
    assert {size_of(path) for path in expected} == {size_of(portrait_png)}


def test_age_changes_nothing_outside_the_mask(
    run, tiny_weights: Path, portrait_png: Path, portrait: np.ndarray
) -> None:
    run("age", portrait_png, "--weights", tiny_weights, "--to", "20-40:10")
    face = make_detector().detect(portrait)[0]
    outside = ~crop_region(face, portrait.shape)
    assert outside.mean() > 0.7
    for age in (20, 30, 40):
        result = np.asarray(Image.open(portrait_png.with_name(f"me.age{age}.png")))
        np.testing.assert_array_equal(result[outside], portrait[outside])
        assert (result[~outside] != portrait[~outside]).any()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_photos_stay_16_bit(
    run, tiny_weights: Path, tmp_path: Path, portrait: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"me{suffix}"
    deep = portrait.astype(np.uint16) * 257
    deep[400:] ^= 37  # levels that 8 bits cannot hold
    cv2.imwrite(str(path), deep[..., ::-1])
    assert run("age", path, "--weights", tiny_weights, "--to", 70).code == 0
    result = cv2.imread(str(tmp_path / f"me.age70{suffix}"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert result.dtype == np.uint16
    face = make_detector().detect(portrait)[0]
    outside = ~crop_region(face, portrait.shape)
    np.testing.assert_array_equal(result[outside], deep[outside])
    assert (result != deep).any()


def test_age_says_that_it_is_synthetic(run, tiny_weights: Path, portrait_png: Path) -> None:
    out = portrait_png.parent / "out"
    run("age", portrait_png, "--weights", tiny_weights, "--to", 70, "--out", out, "--sheet")
    run("age", portrait_png, "--weights", tiny_weights, "--to", 71, "--out", out, "--crop")
    sha = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()[:16]
    for name in ("me.age70.png", "me.sheet.jpg", "me.age71.png"):
        with Image.open(out / name) as image:
            said = image.getexif()[0x010E]
            assert "ynthetic" in said
            assert sha in said
            assert "faceage" in image.getexif()[0x0131]


def test_age_jpeg_keeps_tables_and_sampling(run, tiny_weights: Path, tmp_path: Path, portrait):
    path = tmp_path / "me.JPG"
    Image.fromarray(portrait).save(path, "JPEG", quality=71, subsampling=1)
    assert run("age", path, "--weights", tiny_weights, "--to", 5).code == 0
    with Image.open(path) as before, Image.open(tmp_path / "me.age05.JPG") as after:
        assert after.format == "JPEG"
        assert after.quantization == before.quantization
        assert [c[1:3] for c in after.layer] == [c[1:3] for c in before.layer]


def test_age_crops_at_the_models_size(run, tiny_weights: Path, couple: Path, tmp_path) -> None:
    answer = run(
        "age", couple, "--weights", tiny_weights, "--to", "5,70", "--crop", "--out", tmp_path
    )
    assert answer.code == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "couple.age05.png",
        "couple.age70.png",
        "couple.face2.age05.png",
        "couple.face2.age70.png",
    ]
    assert {size_of(tmp_path / name) for name in names} == {(32, 32)}
    second = (tmp_path / "couple.face2.age05.png").read_bytes()
    alone = tmp_path / "alone"
    run(
        *("age", couple, "--weights", tiny_weights, "--to", 5),
        *("--crop", "--face", 2, "--out", alone),
    )
    assert [path.name for path in alone.iterdir()] == ["couple.face2.age05.png"]
    difference = np.asarray(Image.open(io.BytesIO(second))).astype(int) - np.asarray(
        Image.open(alone / "couple.face2.age05.png")
    )
    assert np.abs(difference).max() <= 1


def test_age_sheet(run, tiny_weights: Path, couple: Path, portrait_png: Path, tmp_path) -> None:
    out = tmp_path / "out"
    arguments = ("--weights", tiny_weights, "--to", "5,70", "--sheet", "--out", out)
    answer = run("age", portrait_png, couple, *arguments)
    assert answer.code == 0
    assert str(out / "me.sheet.jpg") in answer.lines
    width, height = size_of(out / "me.sheet.jpg")
    assert width > 3 * 256
    assert 256 < height < 2 * 256
    assert size_of(out / "couple.sheet.jpg")[1] > 2 * 256  # a row for each face


def test_large_photos_give_the_same(
    run, tiny_weights: Path, couple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("age", couple, "--weights", tiny_weights, "--to", "5,70", "--sheet", "--out")
    assert run(*command, tmp_path / "small").code == 0
    monkeypatch.setattr(api, "MAX_AHEAD", 0)
    assert run(*command, tmp_path / "large").code == 0
    files = sorted(path.name for path in (tmp_path / "small").iterdir())
    assert files == ["couple.age05.png", "couple.age70.png", "couple.sheet.jpg"]
    for name in files:
        expected = (tmp_path / "small" / name).read_bytes()
        assert (tmp_path / "large" / name).read_bytes() == expected


def test_a_sheet_shows_nothing_beyond_the_photo(
    run, tiny_weights: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    close = portrait[60:190, 150:290].copy()  # the face's crop reaches beyond every border
    close[[0, -1]] = close[:, [0, -1]] = (255, 0, 0)
    Image.fromarray(close).save(tmp_path / "close.png")
    run("age", tmp_path / "close.png", "--weights", tiny_weights, "--to", 5, "--sheet")
    sheet = np.asarray(Image.open(tmp_path / "close.sheet.jpg")).astype(int)
    tile = sheet[8 : 8 + 256, 8 : 8 + 256]
    red = (tile[..., 0] > 150) & (tile[..., 1:].max(-1) < 100)
    assert red[0].mean() > 0.7  # the photo's own edge is at the edge of the tile
    assert red[5:-5, 5:-5].mean() < 0.001  # and it is not mirrored


def test_age_of_one_face_leaves_the_other(run, tiny_weights, couple: Path, tmp_path) -> None:
    run("age", couple, "--weights", tiny_weights, "--to", 5, "--face", "largest", "--out", tmp_path)
    before, after = (np.asarray(Image.open(p)) for p in (couple, tmp_path / "couple.age05.png"))
    other = make_detector().detect(before)[1]
    region = crop_region(other, before.shape)
    assert (before != after).any()
    np.testing.assert_array_equal(before[region], after[region])


def test_age_of_a_folder_leaves_out_earlier_results(
    run, tiny_weights: Path, portrait_png: Path
) -> None:
    folder = portrait_png.parent
    arguments = ("age", folder, "--weights", tiny_weights, "--sheet")
    assert run(*arguments, "--to", 5).code == 0
    second = run(*arguments, "--to", 70, "--force")
    assert second.code == 0
    assert [Path(line).name for line in second.lines] == ["me.age70.png", "me.sheet.jpg"]


def test_existing_results_are_refused_before_any_work(
    run, snapshot, astronaut: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "astronaut.age70.jpg").write_text("precious")
    before = snapshot(tmp_path)
    # Weights that do not exist: they are not even looked for.
    arguments = ("age", astronaut, "--to", "5,70", "--out", tmp_path)
    answer = run(*arguments, "--weights", "nonsuch")
    assert answer.code == 1
    assert answer.errors == [
        f"error: {tmp_path / 'astronaut.age70.jpg'} exists already."
        " Use --skip-existing to keep it, --force to overwrite it, or --out."
    ]
    assert snapshot(tmp_path) == before
    assert run(*arguments, "--weights", tiny_weights, "--force").code == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_existing_crop_of_a_second_face(run, tiny_weights: Path, couple: Path, tmp_path) -> None:
    (tmp_path / "couple.face2.age05.png").write_text("precious")
    answer = run("age", couple, "--weights", tiny_weights, "--to", 5, "--crop", "--out", tmp_path)
    assert answer.code == 1
    assert "couple.face2.age05.png exists already" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["couple.face2.age05.png"]


def test_a_batch_is_completed(run, tiny_weights: Path, portrait_png: Path) -> None:
    folder = portrait_png.parent
    (folder / "you.png").write_bytes(portrait_png.read_bytes())
    out, expected = folder / "out", folder / "expected"
    command = ("age", folder, "--weights", tiny_weights)
    assert run(*command, "--to", "5,70", "--sheet", "--out", expected).code == 0

    assert run(*command, "--to", "5", "--out", out).code == 0
    (out / "you.age05.png").unlink()
    kept = (out / "me.age05.png").stat().st_mtime_ns
    options = ("--to", "5,70", "--sheet", "--out", out)
    assert run("age", portrait_png, "--weights", tiny_weights, *options).code == 1
    answer = run(*command, *options, "--skip-existing")
    assert (answer.code, answer.err) == (0, "")
    names = ["me.age70.png", "me.sheet.jpg", "you.age05.png", "you.age70.png", "you.sheet.jpg"]
    assert [Path(line).name for line in answer.lines] == names
    assert (out / "me.age05.png").stat().st_mtime_ns == kept
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in expected.iterdir())
    for path in out.glob("*.png"):  # rounding depends on how many ages are decoded together
        pixels = [np.asarray(Image.open(p)).astype(int) for p in (path, expected / path.name)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1
    # Nothing is left to do: the model is not even loaded.
    answer = run("age", folder, *options, "--skip-existing", "--weights", "nonsuch")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_crops_of_a_batch_are_completed(run, tiny_weights: Path, couple: Path, tmp_path) -> None:
    command = ("age", couple, "--weights", tiny_weights, "--to", 5, "--crop", "--out", tmp_path)
    assert len(run(*command).lines) == 2
    (tmp_path / "couple.face2.age05.png").unlink()
    answer = run(*command, "--skip-existing")
    assert (answer.code, answer.lines) == (0, [str(tmp_path / "couple.face2.age05.png")])


def test_a_damaged_result_is_not_counted_as_done(
    run, tiny_weights: Path, portrait_png: Path
) -> None:
    result = portrait_png.with_name("me.age05.png")
    command = ("age", portrait_png, "--weights", tiny_weights, "--to", "5,70")
    assert run(*command).code == 0
    result.write_bytes(result.read_bytes()[:-1000])
    damaged = result.read_bytes()
    answer = run(*command, "--skip-existing")
    assert answer.code == 1
    assert f"cannot be kept: {result} is damaged" in answer.err
    assert "--force" in answer.err
    assert result.read_bytes() == damaged
    assert run(*command, "--force").code == 0
    assert run(*command, "--skip-existing").code == 0


def test_age_of_a_tree_keeps_its_folders(
    run, tiny_weights: Path, astronaut: Path, tmp_path
) -> None:
    for name in ("a", "b/c"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "me.jpg").write_bytes(astronaut.read_bytes())
    out = tmp_path / "photos" / "aged"  # results are no input, even of a second run
    command = ("age", tmp_path / "photos", "--weights", tiny_weights, "--recursive", "--out", out)
    results = [out / "a" / "me.age05.jpg", out / "b" / "c" / "me.age05.jpg"]
    assert run(*command, "--to", 5).lines == [str(path) for path in results]
    assert len(run(*command, "--to", 70).lines) == 2


def test_the_position_is_kept_on_demand_only(run, tiny_weights: Path, portrait, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    Image.fromarray(portrait).save(tmp_path / "me.jpg", exif=exif)
    command = ("age", tmp_path / "me.jpg", "--weights", tiny_weights, "--to")
    assert run(*command, 5).code == 0
    assert run(*command, 70, "--keep-private").code == 0
    positions = [
        dict(Image.open(tmp_path / f"me.age{age}.jpg").getexif().get_ifd(0x8825))
        for age in ("05", "70")
    ]
    assert positions == [{}, {1: "N", 2: (48.0, 8.0, 0.0)}]


def test_out_may_name_the_file(run, tiny_weights: Path, portrait_png: Path, couple: Path) -> None:
    folder = portrait_png.parent
    command = ("age", portrait_png, "--weights", tiny_weights)
    result = folder / "old" / "me.jpg"
    assert run(*command, "--to", 70, "-o", result).lines == [str(result)]
    with Image.open(result) as image:
        assert (image.format, image.size) == ("JPEG", size_of(portrait_png))
    before = result.read_bytes()
    for arguments, code, says in (
        ((*command, "--to", 70), 1, "exists already"),
        ((*command, "--to", "5,70"), 2, "is one file"),
        ((*command, "--to", 70, "--sheet"), 2, "is one file"),
        ((*command, couple, "--to", 70), 2, "is one file"),
    ):
        answer = run(*arguments, "--out", result)
        assert (answer.code, len(answer.errors)) == (code, 1)
        assert says in answer.err
    assert result.read_bytes() == before
    for name, says in (("x.gif", "not written as .gif"), ("x.heic", "not written as .heic")):
        answer = run(*command, "--to", 70, "--out", folder / name)
        assert (answer.code, len(answer.errors)) == (2, 1)
        assert says in answer.err
    answer = run(*command, "--to", 70, "--out", portrait_png, "--force")
    assert "is itself one of the photos" in answer.err
    crop = ("age", couple, "--weights", tiny_weights, "--to", 70, "--crop", "--out")
    assert "has 2 faces" in run(*crop, folder / "crop.png").err
    assert run(*crop, folder / "crop.png", "--face", 2).code == 0
    assert size_of(folder / "crop.png") == (32, 32)


def test_a_folder_may_have_a_dot_in_its_name(run, tiny_weights, portrait_png: Path) -> None:
    out = portrait_png.parent / "v1.2"
    assert run("age", portrait_png, "--weights", tiny_weights, "--to", 5, "--out", out).code == 0
    assert [path.name for path in out.iterdir()] == ["me.age05.png"]
    (out / "x.png").mkdir()
    options = ("--weights", tiny_weights, "--to", 5, "--out", out / "x.png")
    assert run("age", portrait_png, *options).code == 0


def test_file_names_of_fractional_ages(run, tiny_weights: Path, portrait_png: Path) -> None:
    answer = run("age", portrait_png, "--weights", tiny_weights, "--to", "5.01,0.5,12.25")
    names = ["me.age05.01.png", "me.age00.5.png", "me.age12.25.png"]
    assert [Path(line).name for line in answer.lines] == names


def test_an_age_in_the_place_of_a_photo_is_explained(run, snapshot, astronaut, tmp_path) -> None:
    answer = run("age", astronaut, "--to", 5, 70, "--out", tmp_path)
    assert answer.code == 2
    assert answer.errors == [
        "error: There is no photo 70. Several ages are written --to 5,70 or --to 5 --to 70."
    ]
    assert snapshot(tmp_path) == {}


def test_only_the_first_page_is_used(run, tiny_weights: Path, portrait, tmp_path: Path) -> None:
    frame = Image.fromarray(portrait)
    frame.save(tmp_path / "me.tif", save_all=True, append_images=[Image.new("RGB", frame.size)])
    command = ("age", tmp_path / "me.tif", "--weights", tiny_weights, "--to")
    answer = run(*command, 5)
    assert answer.code == 0
    assert answer.errors == [
        f"note: {tmp_path / 'me.tif'} has several frames or pages; only the first is used."
    ]
    assert run(*command, 70, "--quiet").err == ""
