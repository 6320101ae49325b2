"""Training speed, and the fraction of the machine's bf16 convolution rate that it reaches.

python benchmarks/throughput.py --data DIR --vgg vgg19.pth [--recipe compact] [--device cpu]
"""

import argparse
import tempfile
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from faceage import distributed
from faceage.training.config import make_config
from faceage.training.trainer import make_trainer

STEPS = 8


def measure_seconds(work: Callable[[], object], device: torch.device, count: int) -> float:
    """Mean duration of one call, after two calls that are not counted."""
    for number in range(count + 2):
        if number == 2:
            synchronise(device)
            start = time.perf_counter()
        work()
    synchronise(device)
    return (time.perf_counter() - start) / count


def synchronise(device: torch.device) -> None:
    """Wait until all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_convolution_rate(device: torch.device) -> float:
    """FLOP/s of the fastest of three 3x3 convolutions with gradients, in bf16, channels last."""
    best = 0.0
    for channels, side in ((128, 64), (256, 32), (512, 16)):
        place = dict(device=device, dtype=torch.bfloat16)
        conv = nn.Conv2d(channels, channels, 3, 1, 1).to(memory_format=torch.channels_last, **place)
        faces = torch.randn(32, channels, side, side, **place, requires_grad=True)
        faces = faces.to(memory_format=torch.channels_last)

        def work(conv: nn.Module = conv, faces: torch.Tensor = faces) -> None:
            conv(faces).sum().backward()

        flops = 3 * 2 * 32 * side * side * channels * channels * 9
        best = max(best, flops / measure_seconds(work, device, STEPS))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--vgg")
    parser.add_argument("--recipe", default="compact")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        config = make_config(given.recipe, given.data, out, vgg=given.vgg)
        trainer = make_trainer(config, distributed.start(given.device))
        rate = measure_convolution_rate(trainer.device)
        print(f"the machine's bf16 convolutions: {rate / 1e9:.0f} GFLOP/s")
        for name, images_seen in (("warm-up", 0), ("synthesis", config.warmup_images)):
            if name == "warm-up" and not config.warmup_images:
                continue
            trainer.state.images_seen = images_seen
            batches = trainer.batches()
            with FlopCounterMode(display=False) as counter:
                plan, images = next(batches)
                trainer.step(plan, images)
            flops = counter.get_total_flops() / plan.images
            seconds = measure_seconds(lambda: trainer.step(*next(batches)), trainer.device, STEPS)  # noqa: B023
            speed = plan.images / seconds
            print(
                f"{name}: {speed:.1f} images/s, {flops / 1e9:.1f} GFLOP an image, "
                f"{speed * flops / rate:.0%} of that rate"
            )


if __name__ == "__main__":
    main()
