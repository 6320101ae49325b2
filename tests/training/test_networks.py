"""The networks of a run."""

from pathlib import Path

import pytest
import torch
from conftest import TINY
from torch import nn

from faceage.training.config import TrainConfig
from faceage.training.networks import Networks

CONFIG = TrainConfig(data="", out=Path(), model=TINY)
CPU = torch.device("cpu")


def test_the_exported_model_has_no_synchronised_batch_norm() -> None:
    """One process alone runs it: a synchronised batch norm would wait forever."""
    networks = Networks(CONFIG, CPU, synchronise=True)
    layers = [{type(m) for m in net.modules()} for net in (networks.model, networks.ema)]
    assert nn.SyncBatchNorm in layers[0]
    assert nn.BatchNorm2d not in layers[0]
    assert nn.SyncBatchNorm not in layers[1]
    assert list(networks.model.state_dict()) == list(networks.ema.state_dict())


def test_the_ema_moves_towards_the_weights() -> None:
    networks = Networks(CONFIG, CPU)
    with torch.no_grad():
        for average, value in zip(
            networks.ema.parameters(), networks.model.parameters(), strict=True
        ):
            average.zero_()
            value.fill_(1.0)
    for expected in (0.5, 0.75):
        networks.update_ema(0.5)
        for average in networks.ema.parameters():
            assert average.unique().item() == pytest.approx(expected)
