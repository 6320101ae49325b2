"""What is measured of each face: arrays of one row per face, nan where there is no figure.

`figures` and `ageing` make the report's figures of them. There is no autocast: half precision would
measure the machine as well. Faces go in batches, and under torchrun every process takes its share
of the batches: the same batches as alone, so the same numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from faceage.distributed import Processes
from faceage.evaluation import metrics
from faceage.evaluation.evaluators import AgeJudge, IdentityJudge, PerceptualJudge
from faceage.evaluation.inputs import Indices, Inputs, LabelledInputs
from faceage.evaluation.systems import Crops, System
from faceage.imaging.skin import lightness, skin_colours
from faceage.models.generator import INNER_LEFT, INNER_SIDE, INNER_TOP
from faceage.progress import progress_bar

BATCH = 32  # faces at once

Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class Judges:
    """Who measures; None leaves out what this judge would measure."""

    age: AgeJudge | None = None
    identity: IdentityJudge | None = None
    perceptual: PerceptualJudge | None = None


@dataclass(frozen=True)
class Plan:
    """Where faces are sent, in years.

    Attributes:
        ages: the targets at which judged age, sharpness and skin are measured.
        identity: those at which the identity is measured, too.
        looks: those at which what the faces look like is measured, too.
    """

    ages: Sequence[float]
    identity: Sequence[float] = ()
    looks: Sequence[float] = ()

    @property
    def targets(self) -> list[float]:
        """All of them, from young to old."""
        return sorted({*self.ages, *self.identity, *self.looks})


class Measurer:
    """Measures, with a progress bar on stderr. A context manager.

    Args:
        judges: networks that no training has seen.
        processes: who shares the work.
    """

    def __init__(self, judges: Judges, processes: Processes) -> None:
        self.judges, self.processes = judges, processes
        self._bar = progress_bar(shown=processes.is_first)

    def __enter__(self) -> "Measurer":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def told(self, system: System, inputs: LabelledInputs) -> NDArray[np.float64] | None:
        """Distributions over whole years, (N,101), of all faces; None of a system that tells none.

        Raises:
            DataError: a picture is missing or damaged.
        """

        def work(chosen: Indices) -> Arrays:
            years = system.tell(inputs, chosen)
            return {} if years is None else {"years": years}

        everyone = np.arange(len(inputs))
        return self._share(everyone, work, f"{system.name}: telling ages").get("years")

    def unchanged(self, inputs: Inputs, chosen: Indices, label: str) -> Arrays:
        """What the judges say of faces as they are.

        Returns:
            Of N faces, as far as there are judges: "judged" (N,) years, "embedding" (N,D),
            "looks" (N,F).

        Raises:
            DataError: a picture is missing or damaged.
        """

        def work(part: Indices) -> Arrays:
            landmarks = self._landmarks(inputs, part)
            shown = _shown(inputs, part, landmarks)
            return self._judged(inputs.crops(part), landmarks, shown, identity=True, looks=True)

        return self._share(chosen, work, label)

    def aged(
        self, system: System, inputs: Inputs, chosen: Indices, plan: Plan, others: NDArray
    ) -> Arrays:
        """Faces sent to the plan's targets, to their own age, and to another age and back.

        Args:
            chosen: (N,) places of the faces among the inputs.
            others: (M,) another age for every one of the inputs, in years.

        Returns:
            Of N faces and T targets (in order; `Plan.targets`), as far as there are judges:
            "judged" (N,T) years; "sharp_in" (N,) and "sharp" (N,T); "skin_in" (N,) and "skin"
            (N,T), levels; "embedding" (N,T,D), "looks" (N,T,F), both only at their own targets, in
            order; "own_l1", "own_lpips", "back_l1", "back_lpips" (N,); "shown" (N,) bool,
            whether the input has a face; "made" (N,T) bool, whether there is a picture; "lost"
            (N,), how many of its pictures have no face.

        Raises:
            DataError: a picture is missing or damaged.
            PhotoError: the same, of a system's own pictures.
        """

        def work(part: Indices) -> Arrays:
            landmarks = self._landmarks(inputs, part, needed=system.available is not None)
            faces = Crops(part, inputs.crops(part), landmarks, inputs.ages[part])
            shown = _shown(inputs, part, landmarks)
            return self._aged(system, faces, shown, inputs.valid[part], plan, others[part])

        return self._share(chosen, work, f"{system.name}: ageing")

    def _aged(
        self,
        system: System,
        faces: Crops,
        shown: NDArray,
        valid: NDArray,
        plan: Plan,
        others: NDArray,
    ) -> Arrays:
        targets = plan.targets
        wanted = [np.full(len(faces), age) for age in targets]
        wanted += [faces.ages, *([others] if system.repeats else [])]
        lost, made = np.zeros(len(faces), np.int64), np.zeros((len(faces), len(targets)), bool)
        rows: dict[str, list[NDArray]] = {}
        measured: Arrays = {
            "shown": shown,
            "sharp_in": np.where(shown, inner_sharpness(faces.images), np.nan),
            "skin_in": np.where(shown, skin_lightness(faces.images), np.nan),
        }
        for i, aged in enumerate(system.age(faces, wanted)):
            found = aged.found & shown
            lost += aged.made & ~aged.found
            if i < len(targets):
                made[:, i] = aged.made
                said = self._judged(
                    aged.images,
                    aged.landmarks,
                    found,
                    identity=targets[i] in plan.identity,
                    looks=targets[i] in plan.looks,
                )
                said["sharp"] = np.where(found, inner_sharpness(aged.images), np.nan)
                said["skin"] = np.where(found, skin_lightness(aged.images), np.nan)
                for name, values in said.items():
                    rows.setdefault(name, []).append(values)
            elif i == len(targets):
                measured |= self._changed("own", faces, aged.images, found, valid)
            else:
                there = replace(faces, images=aged.images, landmarks=aged.landmarks, ages=others)
                (back,) = system.age(there, [faces.ages])
                measured |= self._changed("back", faces, back.images, back.found, valid)
        measured |= {name: np.stack(values, 1) for name, values in rows.items()}
        return measured | {"lost": lost, "made": made}

    def _judged(
        self,
        crops: NDArray[np.uint8],
        landmarks: NDArray,
        found: NDArray[np.bool_],
        *,
        identity: bool,
        looks: bool,
    ) -> Arrays:
        """What the judges say of crops; nan where there is no face."""
        said: Arrays = {}
        if age := self.judges.age:
            said["judged"] = _where(found, lambda here: age.ages(crops[here]))
        if (who := self.judges.identity) and identity:
            aligned = found & _whole(landmarks)
            said["embedding"] = _where(
                aligned, lambda here: who.embed(crops[here], landmarks[here])
            )
        if (look := self.judges.perceptual) and looks:
            said["looks"] = _where(found, lambda here: look.features(crops[here]))
        return said

    def _changed(
        self, name: str, faces: Crops, images: NDArray, found: NDArray, valid: NDArray
    ) -> Arrays:
        """How far faces are from what they were, where they are picture: L1 on [-1, 1], LPIPS."""
        mask = picture_mask(valid, faces.images.shape[1])
        before, after = faces.images, np.where(mask, images, faces.images)
        a, b = (part.transpose(0, 3, 1, 2) / np.float32(127.5) for part in (before, after))
        l1 = metrics.masked_absolute_error(a, b, mask.transpose(0, 3, 1, 2))
        measured = {f"{name}_l1": np.where(found, l1, np.nan)}
        if judge := self.judges.perceptual:
            measured[f"{name}_lpips"] = _where(
                found, lambda here: judge.distances(before[here], after[here])
            )
        return measured

    def _landmarks(self, inputs: Inputs, part: Indices, needed: bool = False) -> NDArray:
        """Landmarks, (N,5,2) px of the crops; nan if nobody asks: finding them takes its time."""
        if needed or self.judges.identity or (inputs.groups[part] < 0).any():
            return inputs.landmarks(part)
        return np.full((len(part), 5, 2), np.nan)

    def _share(self, chosen: Indices, work: Callable[[Indices], Arrays], label: str) -> Arrays:
        """The work's arrays on the chosen faces, batch by batch, in order, in every process."""
        batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
        rank, count = self.processes.rank, self.processes.count
        task = self._bar.add_task(label, total=sum(map(len, batches[rank::count])))
        done = []
        for batch in batches[rank::count]:
            done.append(work(batch))
            self._bar.advance(task, len(batch))
        shares = self.processes.gather(done)
        self._bar.remove_task(task)
        parts = [shares[i % count][i // count] for i in range(len(batches))]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def picture_mask(valid: NDArray, size: int) -> NDArray[np.bool_]:  # N,4 shares -> N,size,size,1
    """Where the centre of a pixel is picture and not padding."""
    centres = (np.arange(size) + 0.5) / size
    x0, y0, x1, y1 = np.asarray(valid).T[..., None]  # each N,1
    columns = (centres >= x0) & (centres <= x1)  # N,size
    rows = (centres >= y0) & (centres <= y1)
    return (rows[:, :, None] & columns[:, None])[..., None]


def inner_sharpness(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Laplacian variance of the inner faces: (N,) of crops uint8 (N,R,R,3)."""
    side = crops.shape[1]
    top, left, size = (round(share * side) for share in (INNER_TOP, INNER_LEFT, INNER_SIDE))
    return metrics.laplacian_variance(crops[:, top : top + size, left : left + size])


def skin_lightness(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Lightness of the skin, in levels: (N,) of crops uint8 (N,R,R,3)."""
    return lightness(skin_colours(crops))


def _whole(landmarks: NDArray) -> NDArray[np.bool_]:
    """Which faces have all their landmarks."""
    return np.isfinite(landmarks).all((1, 2))


def _shown(inputs: Inputs, part: Indices, landmarks: NDArray) -> NDArray[np.bool_]:
    """Which inputs have a face: labelled crops have one, whatever a detector says."""
    return (inputs.groups[part] >= 0) | _whole(landmarks)


def _where(here: NDArray[np.bool_], measure: Callable[[NDArray[np.bool_]], NDArray]) -> NDArray:
    """What `measure` says of these faces, in the rows of all; nan in the others."""
    found = measure(here)
    values = np.full((len(here), *found.shape[1:]), np.nan)
    values[here] = found
    return values
