"""Which faces are drawn: as sources, evenly and without end; as targets, those like the sources."""

import math

import numpy as np
import torch
from torch import Tensor

from faceage.ages import GROUPS
from faceage.data.datasets import Faces
from faceage.errors import DataError
from faceage.imaging import skin


def draw_weights(faces: Faces, balance: float, sharpness: float = 0.0) -> Tensor:
    """How often to draw each face: (N,) relative.

    Args:
        balance: 0 draws as the data is, 0.5 by the inverse square root of the group's size,
            1 all groups alike.
        sharpness: exponent on the sharpness relative to the median, clipped to [1/4, 4].
    """
    sizes = torch.bincount(faces.groups, minlength=GROUPS).clamp(min=1).float()
    sharp = faces.sharp.clamp(0.25, 4) ** sharpness
    return sizes[faces.groups] ** -balance * faces.weights * sharp


class Lookalikes:
    """Finds real faces of wanted ages that differ from given faces in little but age.

    Sources differ in light, sharpness and framing, and in the ages they hold; among children there
    are more girls and fewer dark faces than among the old. Next to a real face of another kind, an
    aged one would be told by that, and learn it: dark skin would get lighter with every year taken
    away. So the real face is of the same source and gender, and of those of about the wanted age
    the most alike in the colour of the skin.
    """

    WINDOW = 0.02  # of a kind, on either side of the wanted age: about as old
    CANDIDATES = 64  # drawn from these; the most alike is taken

    def __init__(self, faces: Faces) -> None:
        self._kinds = faces.kinds
        colours = [skin.skin_colours(i.cpu().numpy()) for i in faces.images.split(1024)]
        self._colours = torch.from_numpy(np.concatenate(colours)).to(faces.ages)
        self._keys, self._order = self._key(faces.kinds, faces.ages).sort()
        counts = faces.kinds.bincount()
        self._stop = counts.cumsum(0)
        self._start = self._stop - counts
        self._reach = (counts * self.WINDOW).ceil().long().minimum((counts - 1) // 2)

    def draw(self, index: Tensor, ages: Tensor) -> Tensor:  # (N,) twice -> (N,) indices
        """Random lookalikes of the faces `index`, of about `ages` or as near as there are."""
        kinds = self._kinds[index]
        reach = self._reach[kinds]
        position = torch.searchsorted(self._keys, self._key(kinds, ages))
        position = position.clamp(self._start[kinds] + reach, self._stop[kinds] - 1 - reach)
        chance = torch.rand(len(index), self.CANDIDATES, device=position.device)
        jitter = ((2 * reach + 1)[:, None] * chance).long() - reach[:, None]
        found = self._order[position[:, None] + jitter]
        apart = (self._colours[found] - self._colours[index][:, None]).square().sum(2)
        apart.masked_fill_(found == index[:, None], math.inf)  # nobody is like himself
        return found.gather(1, apart.argmin(1, keepdim=True))[:, 0]

    @staticmethod
    def _key(kinds: Tensor, ages: Tensor) -> Tensor:
        return kinds.double() * 1000 + ages.double()


class InfiniteSampler:
    """Weighted draws without end, a pure function of (seed, position): training can resume.

    Each round over the data takes every face floor or ceil of its expected count times
    (systematic sampling), so that rare faces are repeated but none is starved by chance.

    Args:
        weights: (N,) relative frequencies.
        seed: of the order.

    Raises:
        DataError: no weight is above 0.
    """

    def __init__(self, weights: Tensor, seed: int) -> None:
        self._edges = weights.double().cpu().cumsum(0)
        if not self._edges[-1] > 0:
            raise DataError("All pictures have weight 0: nothing to draw.", "Correct the weights.")
        self._seed = seed
        self._round = -1
        self._order = torch.empty(0, dtype=torch.long)

    def batch(self, start: int, count: int) -> Tensor:
        """Indices of the `count` draws from position `start`: (count,)."""
        return torch.tensor([self._at(p) for p in range(start, start + count)])

    def _at(self, position: int) -> int:
        number, offset = divmod(position, len(self._edges))
        if number != self._round:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
            count = len(self._edges)
            points = torch.arange(count, dtype=torch.float64)
            points = (points + torch.rand((), generator=generator)) * (self._edges[-1] / count)
            drawn = torch.searchsorted(self._edges, points).clamp(max=count - 1)
            self._order = drawn[torch.randperm(count, generator=generator)]
            self._round = number
        return int(self._order[offset])
