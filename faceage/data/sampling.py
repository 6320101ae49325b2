"""Sampling: an endless weighted order of source faces, and matched real faces for target ages."""

import math

import torch
from torch import Tensor

from faceage.ages import GROUPS
from faceage.data.datasets import Labels
from faceage.errors import DataError


def draw_weights(labels: Labels, balance: float, sharpness: float = 0.0) -> Tensor:
    """Relative sampling frequency of each picture, (N,).

    Args:
        balance: exponent on the inverse of the group's size: 0 samples as the data is, 1 samples
            all groups equally often.
        sharpness: exponent on the sharpness relative to the median, clipped to [1/4, 4].
    """
    sizes = torch.bincount(labels.groups, minlength=GROUPS).clamp(min=1).float()
    sharp = labels.sharp.clamp(0.25, 4) ** sharpness
    return sizes[labels.groups] ** -balance * labels.weights * sharp


class MatchedSampler:
    """Samples real faces of given ages that resemble given faces in everything but age.

    The discriminator compares an aged face with a real face of the target age. Sources differ in
    lighting, sharpness and framing and in their ages; among children there are more girls and
    fewer people with dark skin than among old people. If the real face were any face of the target
    age, the generator would learn these differences as ageing, for example lighter skin at lower
    ages. So the real face has the same source and gender (the same stratum), and of the faces near
    the target age the one with the most similar skin colour is taken.

    Args:
        labels: of N faces.
        colours: N,3, the colours of their skin.
    """

    WINDOW = 0.02  # fraction of the stratum on either side of the target age: faces of that age
    CANDIDATES = 64  # sampled from the window; the one with the most similar skin is taken

    def __init__(self, labels: Labels, colours: Tensor) -> None:
        self._strata, self._colours = labels.strata, colours
        self._keys, self._order = self._key(labels.strata, labels.ages).sort()
        counts = labels.strata.bincount()
        self._stop = counts.cumsum(0)
        self._start = self._stop - counts
        self._reach = (counts * self.WINDOW).ceil().long().minimum((counts - 1) // 2)

    def draw(
        self, index: Tensor, ages: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:  # (M,) twice -> (M,) indices
        """A random matched face for each of the faces `index`, as near to `ages` as there are."""
        strata = self._strata[index]
        reach = self._reach[strata]
        position = torch.searchsorted(self._keys, self._key(strata, ages))
        position = position.clamp(self._start[strata] + reach, self._stop[strata] - 1 - reach)
        chance = torch.rand(len(index), self.CANDIDATES, generator=generator)
        jitter = ((2 * reach + 1)[:, None] * chance).long() - reach[:, None]
        found = self._order[position[:, None] + jitter]
        distance = (self._colours[found] - self._colours[index][:, None]).square().sum(2)
        distance.masked_fill_(found == index[:, None], math.inf)  # never the face itself
        return found.gather(1, distance.argmin(1, keepdim=True))[:, 0]

    @staticmethod
    def _key(strata: Tensor, ages: Tensor) -> Tensor:
        return strata.double() * 1000 + ages.double()


class PairSampler:
    """Samples other pictures of the same people: the targets of pairs.

    Args:
        people: (N,) index of each picture's person.
        weights: (N,) relative frequency of each picture as a target; of equal frequency by default.
    """

    def __init__(self, people: Tensor, weights: Tensor | None = None) -> None:
        order = people.argsort(stable=True)
        counts = people.bincount()
        self._people = people
        self._pictures = torch.nn.utils.rnn.pad_sequence(
            list(torch.split(order, counts.tolist())), batch_first=True, padding_value=-1
        )  # P,K: the pictures of each person
        self._weights = torch.ones(len(people)) if weights is None else weights.float()
        self._count = counts[people]

    @property
    def source_weights(self) -> Tensor:
        """Sampling frequencies of sources, (N,): 0 where the person has no other picture."""
        return (self._count > 1).float()

    def draw(self, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Another picture of each person, (M,) -> (M,)."""
        candidates = self._pictures[self._people[index]]  # M,K
        weights = self._weights[candidates] * (candidates >= 0) * (candidates != index[:, None])
        chosen = torch.multinomial(weights, 1, generator=generator)
        return candidates.gather(1, chosen)[:, 0]


class InfiniteSampler:
    """An endless weighted order, a function of (seed, position) alone: training can resume.

    Each epoch contains every face floor or ceil of its expected count times (systematic sampling):
    frequent faces repeat, and no face is left out by chance.

    Args:
        weights: (N,) relative frequencies.
        seed: of the order.

    Raises:
        DataError: no weight is above 0.
    """

    def __init__(self, weights: Tensor, seed: int) -> None:
        self._edges = weights.double().cpu().cumsum(0)
        if not self._edges[-1] > 0:
            raise DataError(
                "All pictures have the weight 0.", "Give some a weight above 0 in the csv."
            )
        self._seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    def batch(self, start: int, count: int) -> Tensor:
        """The indices at the positions `start` to `start + count - 1`: (count,)."""
        return torch.tensor([self._index_at(p) for p in range(start, start + count)])

    def _index_at(self, position: int) -> int:
        epoch, offset = divmod(position, len(self._edges))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            count = len(self._edges)
            points = torch.arange(count, dtype=torch.float64)
            points = (points + torch.rand((), generator=generator)) * (self._edges[-1] / count)
            drawn = torch.searchsorted(self._edges, points).clamp(max=count - 1)
            self._order = drawn[torch.randperm(count, generator=generator)]
            self._epoch = epoch
        return int(self._order[offset])
