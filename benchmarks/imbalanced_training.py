"""Does `faceage balance` help a plain age classifier that is trained on imbalanced data?

python benchmarks/imbalanced_training.py --data DIR --age-evaluator age-v1.onnx \
    --identity-evaluator mobilefacenet.onnx --out runs/imbalanced

A ResNet-18 (He et al., CVPR 2016; torchvision's, from random weights) is trained for the same
number of steps on

- imbalanced: real pictures, of which the groups below 15 years and above 69 are rare;
- balanced sampling: the same, each age group drawn equally often;
- smoothing: the same, the loss weighted by label distribution smoothing (Yang et al., "Delving into
  Deep Imbalanced Regression", ICML 2021);
- balance, target: with the pictures of `faceage balance`, labelled with their target ages;
- balance, judged: the same pictures, labelled with the ages that the age evaluator judged.

It is tested on the real held-out people of the dataset. The same command resumes: each arm and seed
is a file of the results, which is kept. `--only ARM --seeds 1` runs one of them.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import resnet18

from faceage import hub
from faceage.ages import GROUP_NAMES, GROUPS, YEARS, group_of
from faceage.balance.folder import link_real
from faceage.balance.manifest import MANIFEST, real_row, to_csv
from faceage.balance.plan import to_label
from faceage.data.augmentation import inner_faces
from faceage.data.datasets import Dataset, DecodedDataset, EmptySplitError, decode, open_dataset
from faceage.data.layouts import Sample
from faceage.distributions import summarize_distribution
from faceage.evaluation.metrics import bootstrap_interval
from faceage.files import make_folder, write_file
from faceage.imaging.conversion import to_tensor
from faceage.models.windows import inner_face

FEW, MEDIUM, MANY = (
    ("0-2", "3-6", "7-9"),
    ("10-14", "15-19", "70+"),
    ("20-29", "30-39", "40-49", "50-69"),
)
KINDS = {"many": MANY, "medium": MEDIUM, "few": FEW}
ARMS = ("imbalanced", "balanced sampling", "smoothing", "balance, target", "balance, judged")
SIDE = 128  # px; of the crops in memory, whose inner face is the input
KERNEL_SPREAD, KERNEL_REACH = 2.0, 2  # years: label distribution smoothing's own values
BATCH = 64
LEARNING_RATE = 1e-3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What a result depends on beside the pictures: it is stored with the result."""

    steps: int
    size: int  # side of the network's input, px
    counts: tuple[int, int, int]  # real training pictures of a group: many, medium, few
    to: str  # of faceage balance
    weights: str  # of the model that makes the pictures


def main() -> None:
    given = parse_arguments()
    counts = given.many, given.medium, given.few
    settings = Settings(given.steps, given.size, counts, given.to, given.weights)
    subset = write_subset(given.data, given.out / "subset", settings.counts)
    test = open_test(given.data)
    test_crops: DecodedDataset | None = None
    for seed in range(given.seeds):
        for arm in [given.only] if given.only else ARMS:
            path = result_path(given.out, arm, seed)
            if is_done(path, settings):
                continue
            if arm.startswith("balance, "):
                data = open_dataset(run_balance(given, subset), "train")
            else:
                data = open_dataset(subset, "train")
            test_crops = test_crops or decode(test, SIDE)
            print(f"training: {arm}, seed {seed}", file=sys.stderr)
            network = train(relabel(data, arm), arm, seed, settings)
            ages = predict(network, test_crops.images, settings.size)
            result = {"settings": json.dumps(settings.__dict__), "ages": ages.tolist()}
            write_file(path, json.dumps(result).encode(), force=True)
    table = summarise(given.out, test, settings, given.seeds)
    write_file(given.out / "results.md", table.encode(), force=True)
    print(table, end="")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="a dataset with held-out people")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--age-evaluator", type=Path, required=True)
    parser.add_argument("--identity-evaluator", type=Path, required=True)
    parser.add_argument("--weights", default=hub.DEFAULT, help="of the model that ages")
    parser.add_argument("--to", default="uniform", help="as for faceage balance")
    parser.add_argument("--many", type=int, default=400, help="real pictures of each such group")
    parser.add_argument("--medium", type=int, default=80)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--size", type=int, default=64, help="side of the network's input, px")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=ARMS)
    given = parser.parse_args()
    make_folder(given.out)
    return given


# -- data --------------------------------------------------------------------------------------


def write_subset(data: Path, out: Path, counts: Sequence[int]) -> Path:
    """An imbalanced dataset of real pictures with known ages, drawn with a fixed seed."""
    full = open_dataset(data, "train")
    order = np.random.default_rng(0).permutation(len(full))
    left = {n: c for names, c in zip(KINDS.values(), counts, strict=True) for n in names}
    chosen: list[Sample] = []
    for sample in (full.samples[i] for i in order):
        name = GROUP_NAMES[sample.group]
        if sample.age is not None and not sample.estimated and left[name]:
            left[name] -= 1
            chosen.append(sample)
    part = Dataset("subset", full.root, chosen)
    link_real(part, make_folder(out))
    write_file(out / "faces.csv", to_csv(real_row(s, "train") for s in chosen).encode(), force=True)
    return out


def open_test(data: Path) -> Dataset:
    """The real pictures of all held-out people with known ages."""
    samples: list[Sample] = []
    for split in ("val", "test"):
        try:
            held_out = open_dataset(data, split)
        except EmptySplitError:
            continue
        samples += [s for s in held_out.samples if s.age is not None and not s.estimated]
    return Dataset("test", held_out.root, samples)


def run_balance(given: argparse.Namespace, subset: Path) -> Path:
    """The folder of `faceage balance`; a finished one is only checked."""
    out: Path = given.out / "balanced"
    if not (out / MANIFEST).exists():
        command = ["balance", "--data", subset, "--out", out, "--to", given.to]
        command += ["--weights", given.weights, "--age-evaluator", given.age_evaluator]
        command += ["--identity-evaluator", given.identity_evaluator]
        done = subprocess.run([sys.executable, "-m", "faceage", *map(str, command)], check=False)
        if not (out / MANIFEST).exists():
            sys.exit(done.returncode or 1)
    return out


def relabel(data: Dataset, arm: str) -> Dataset:
    """With the target ages as labels, if the arm says so."""
    if arm != "balance, target":
        return data
    with (data.root / MANIFEST).open(newline="", encoding="utf-8") as file:
        targets = {row["file"]: row["target_age"] for row in csv.DictReader(file)}
    samples = [
        replace(s, age=float(targets[s.file]), group=group_of(float(targets[s.file])))
        if targets[s.file]
        else s
        for s in data.samples
    ]
    return Dataset(data.name, data.root, samples)


# -- training ----------------------------------------------------------------------------------


def train(data: Dataset, arm: str, seed: int, settings: Settings) -> nn.Module:
    """The network after all steps, in eval mode."""
    torch.manual_seed(seed)
    crops = decode(data, SIDE)
    labels = crops.labels
    years = labels.ages.round().long().clamp(0, YEARS - 1)
    weights = smoothing_weights(years) if arm == "smoothing" else torch.ones(len(years))
    network = resnet18(num_classes=YEARS)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, settings.steps)
    draw = sample_batches(labels.groups, arm == "balanced sampling")
    for _ in range(settings.steps):
        batch = next(draw)
        faces = inner_faces(crops.images[batch], labels.valid[batch], settings.size)
        losses = F.cross_entropy(network(faces), years[batch], reduction="none")
        optimizer.zero_grad()
        (losses * weights[batch]).mean().backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def sample_batches(groups: Tensor, balanced: bool) -> Iterator[Tensor]:
    """Endless batches of indices: epochs in random order, or drawn so that groups are equal."""
    if balanced:
        frequency = 1 / torch.bincount(groups, minlength=GROUPS).double()[groups]
        while True:
            yield torch.multinomial(frequency, BATCH, replacement=True)
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < BATCH:
            waiting = torch.cat([waiting, torch.randperm(len(groups))])
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]


def smoothing_weights(years: Tensor) -> Tensor:
    """Weights of the pictures' losses, mean 1: inverse roots of the smoothed label density."""
    density = torch.bincount(years, minlength=YEARS).float().sqrt()
    reach = torch.arange(-KERNEL_REACH, KERNEL_REACH + 1)
    kernel = torch.exp(-(reach**2) / (2 * KERNEL_SPREAD**2))
    smooth = F.conv1d(density[None, None], (kernel / kernel.sum())[None, None], padding="same")
    weights = 1 / smooth[0, 0][years]
    return weights / weights.mean()


@torch.inference_mode()
def predict(network: nn.Module, images: Tensor, size: int) -> Floats:
    """Ages in years, (N,): the medians of the distributions, mean over the mirror images."""
    ages = []
    for part in torch.split(images, BATCH):
        faces = inner_face(to_tensor(part), size)
        both = torch.stack([network(faces), network(faces.flip(3))])
        distributions = both.softmax(2).mean(0).double().numpy()
        ages += [summarize_distribution(row)[0] for row in distributions]
    return np.array(ages)


# -- results -----------------------------------------------------------------------------------


def result_path(out: Path, arm: str, seed: int) -> Path:
    return out / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}.json"


def is_done(path: Path, settings: Settings) -> bool:
    return path.exists() and read_result(path)["settings"] == json.dumps(settings.__dict__)


def read_result(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def summarise(out: Path, test: Dataset, settings: Settings, seeds: int) -> str:
    """The tables as Markdown, of the arms of which all seeds are done."""
    true = np.array([s.age for s in test.samples], float)
    groups = np.array([s.group for s in test.samples])
    errors: dict[str, Floats] = {}
    hits: dict[str, Floats] = {}
    for arm in ARMS:
        paths = [result_path(out, arm, seed) for seed in range(seeds)]
        if not all(is_done(path, settings) for path in paths):
            continue
        ages = np.array([read_result(path)["ages"] for path in paths])  # seeds, N
        found = np.vectorize(lambda age: group_of(to_label(age)))(ages)
        errors[arm] = np.abs(ages - true).mean(0)
        hits[arm] = (found == groups).mean(0)

    def row(arm: str, cells: list[str]) -> str:
        return f"| {' | '.join([arm, *cells])} |\n"

    def table(header: list[str], cells: Callable[[str], list[str]]) -> str:
        head = row("training", header) + row("---", ["---"] * len(header))
        return head + "".join(row(arm, cells(arm)) for arm in errors)

    kinds = {
        kind: np.isin(groups, [GROUP_NAMES.index(n) for n in names])
        for kind, names in KINDS.items()
    }
    main_header = ["balanced accuracy, %", *(f"MAE, {kind}" for kind in KINDS)]
    text = table(
        main_header,
        lambda arm: [
            with_interval([100 * hits[arm][groups == g] for g in np.unique(groups)]),
            *(with_interval([errors[arm][mask]]) for mask in kinds.values()),
        ],
    )
    text += "\nRecall by group, %:\n\n"
    text += table(
        list(GROUP_NAMES),
        lambda arm: [with_interval([100 * hits[arm][groups == g]]) for g in range(GROUPS)],
    )
    if "imbalanced" in hits:
        text += "\nDifference from imbalanced, on the same faces:\n\n"
        text += table(
            main_header,
            lambda arm: [
                with_interval(
                    [100 * (hits[arm] - hits["imbalanced"])[groups == g] for g in np.unique(groups)]
                ),
                *(
                    with_interval([(errors[arm] - errors["imbalanced"])[mask]])
                    for mask in kinds.values()
                ),
            ],
        )
    return text


def with_interval(parts: list[Floats]) -> str:
    """The mean of the parts' means, with its 95 % bootstrap interval over faces."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return "-"

    def mean(*drawn: Floats, axis: int) -> Floats:
        return np.asarray(np.mean([part.mean(axis) for part in drawn], 0))

    low, high = bootstrap_interval(*parts, statistic=mean)
    return f"{np.mean([part.mean() for part in parts]):.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
