"""Stand-ins whose results can be computed by hand: a picture's mean level is its age."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from faceage.balance.gate import Gate
from faceage.balance.rendering import ResultMaker, Tools
from faceage.balance.run import BalanceOptions, Balancer, Engine, open_real

LANDMARKS = "96 121 160 121 128 158 103 187 153 187"
SIDE = 32  # px


class LevelAger:
    """Ages a picture by giving it the level of the target age; some sources come out younger."""

    weights_sha = "ab" * 32
    detector = None

    def iter_age(self, photo: Any, to: int, found: list) -> Any:
        level = int(photo.pixels.mean())
        error = 20 if level % 3 == 0 else 0  # years: these results fail
        yield SimpleNamespace(pixels=np.full_like(photo.pixels, max(to - error, 0)))


class LevelJudge:
    name, highest = "level", 100.0

    def estimate(self, pixels: np.ndarray, face: Any) -> float:
        return float(pixels.mean())


def make_dataset(root: Path, ages: list[int], **columns: str) -> Path:
    """Pictures whose level is their age, all of the train split, and one of the test split."""
    root.mkdir()
    header = ["file", "age", "set", "landmarks", *columns]
    lines = [",".join(header)]
    for number, age in enumerate([*ages, 50]):
        split = "test" if number == len(ages) else "train"
        Image.fromarray(np.full((SIDE, SIDE, 3), age, np.uint8)).save(root / f"{number}.png")
        lines.append(",".join([f"{number}.png", str(age), split, LANDMARKS, *columns.values()]))
    (root / "faces.csv").write_text("\n".join(lines) + "\n")
    return root


def load_tools(judge: Any = None) -> Tools:
    ager: Any = LevelAger()
    return Tools(ager, Gate(judge or LevelJudge(), tolerance=5))


def make_balancer(
    data: Path,
    out: Path,
    needs: dict,
    judge: Any = None,
    engine: Engine | None = None,
    **options: int,
) -> Balancer:
    real = open_real(data)
    maker = ResultMaker(real.train, partial(load_tools, judge))
    return Balancer(real, needs, out, maker, BalanceOptions(**options), engine)
