"""The generator of synthetic faces: MobileStyleGAN, run by OpenVINO.

Belousov, "MobileStyleGAN: A Lightweight Convolutional Neural Network for High-Fidelity Image
Synthesis", 2021 (arXiv 2104.04767), distilled from StyleGAN2 trained on FFHQ. Its networks are data
files of the package `random-face`, whose own code is not used.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from faceage.errors import ConfigError, WeightsError

LATENT = 512  # dimensions of z and w
NATIVE_SIZE = 1024  # px
FINE_LAYER = 5  # the layers from here on work at 256 px and above: texture and colour
WHEEL = "random_face-2021.7.21.1-py3-none-any.whl"

_DATA = "random_face/data"
_SHA256 = {
    "MappingNetwork.xml": "73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
    "MappingNetwork.bin": "212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
    "SynthesisNetwork.xml": "7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
    "SynthesisNetwork.bin": "c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645",
}
_MEAN_SEED, _MEAN_SAMPLES = 5, 4096


class FaceGenerator:
    """Latent codes -> FFHQ-aligned faces.

    Args:
        source: the wheel of `random-face`, or a folder with its data files.
        threads: CPU threads; 0 lets OpenVINO choose.

    Attributes:
        mean: (512,) float32, the mean w.

    Raises:
        ConfigError: OpenVINO is not installed.
        WeightsError: the files are missing or not the expected ones.
    """

    def __init__(self, source: str | Path, threads: int = 0) -> None:
        try:
            import openvino
        except ImportError:
            raise ConfigError(
                "Rendering faces needs OpenVINO.", "Install it: pip install 'faceage[pairs]'"
            ) from None
        files = _read_files(Path(source))
        self._core = openvino.Core()
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        self._core.set_property("CPU", options)
        self._mapping = (files["MappingNetwork.xml"], files["MappingNetwork.bin"])
        synthesis = self._core.read_model(
            files["SynthesisNetwork.xml"], files["SynthesisNetwork.bin"]
        )
        _split_styles(synthesis)
        self._synthesis = self._core.compile_model(synthesis, "CPU")
        self.mean: NDArray[np.float32] = self.sample(_MEAN_SAMPLES, _MEAN_SEED, 1.0).mean(0)

    def sample(self, count: int, seed: int, truncation: float) -> NDArray[np.float32]:
        """Random latent codes w, (count,512).

        Args:
            truncation: 1 keeps the codes, 0 gives the mean (the truncation trick of StyleGAN).
        """
        model = self._core.read_model(*self._mapping)
        model.reshape([count, LATENT])
        z = np.random.RandomState(seed).randn(count, LATENT).astype(np.float32)
        w = self._core.compile_model(model, "CPU")(z)[0]
        w = w if truncation == 1 else self.mean + truncation * (w - self.mean)
        return np.asarray(w, np.float32)

    def render(
        self, coarse: NDArray[np.float32], fine: NDArray[np.float32], size: int
    ) -> NDArray[np.uint8]:
        """One face, uint8 (size,size,3) RGB.

        Args:
            coarse, fine: (512,) codes of the layers below and from 256 px on.
            size: px, at most 1024.
        """
        image = self._synthesis({0: coarse[None], 1: fine[None]})[0][0].transpose(1, 2, 0)
        levels = np.rint((image.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        if size != NATIVE_SIZE:
            levels = cv2.resize(levels, (size, size), interpolation=cv2.INTER_AREA)
        return np.asarray(levels, np.uint8)


def _split_styles(model: Any) -> None:
    """Give the layers from `FINE_LAYER` on a style input of their own, the model's second."""
    from openvino import opset13

    style = model.get_parameters()[0]
    fine = opset13.parameter([1, LATENT], np.float32, name="fine")
    for target in list(style.output(0).get_target_inputs()):
        node = target.get_node()
        names = [
            node.input_value(index).get_node().get_friendly_name()
            for index in range(node.get_input_size())
        ]
        layers = [int(name.split(".")[2]) for name in names if name.startswith("m.layers.")]
        if layers and layers[0] >= FINE_LAYER:
            target.replace_source_output(fine.output(0))
    model.add_parameters([fine])
    model.validate_nodes_and_infer_types()


def _read_files(source: Path) -> dict[str, bytes]:
    how = (
        "Get the wheel with: pip download --no-deps random-face==2021.7.21.1, "
        f"and give --generator {WHEEL}"
    )
    try:
        if source.is_dir():
            files = {name: (source / name).read_bytes() for name in _SHA256}
        else:
            with zipfile.ZipFile(source) as wheel:
                files = {name: wheel.read(f"{_DATA}/{name}") for name in _SHA256}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"No face generator in {source} ({error}).", f"{how}.") from None
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != _SHA256[name]:
            raise WeightsError(f"{name} in {source} has another sha256 than expected.", f"{how}.")
    return files
