"""Identity embeddings of faces: their part that depends on age, and the gender they show."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.models.mobilenet import MobileNet
from faceage.models.windows import CLASSIFIER_WINDOWS, inner_face

POWERS = 3  # the mean embedding of an age is a quadratic function of the age
RIDGE = 0.3  # of the estimate of gender, in squared lengths of centred embeddings
GENDER_AGE = 12  # years; the gender of younger faces is hardly visible


class IdentityEmbedder(nn.Module):
    """The pooled features of a MobileNetV1 that was trained on identities. Its weights are fixed.

    Args:
        tensors: the network's weights.
        size: side of its input, px. It was trained at 224 px; 128 px takes a third of the time.
    """

    def __init__(self, tensors: dict[str, Tensor], size: int = 224) -> None:
        super().__init__()
        self.size = size
        self.network = MobileNet()
        self.network.load_state_dict(tensors)
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor) -> Tensor:  # N,3,R,R in [-1, 1] -> N,1024
        """The embeddings of FFHQ crops."""
        inner = inner_face(crops, self.size, window=CLASSIFIER_WINDOWS["mobilenet"])
        features: Tensor = self.network(inner.contiguous(memory_format=torch.channels_last))
        return features.float().mean((2, 3))


def fit_age_part(embeddings: Tensor, ages: Tensor) -> Tensor:  # N,D and (N,) years -> 3,D
    """The mean embedding as a quadratic function of age, by least squares: its coefficients."""
    solution: Tensor = torch.linalg.pinv(_age_powers(ages.double())) @ embeddings.double()
    return solution.to(embeddings.dtype)


def remove_age_part(
    embeddings: Tensor, ages: Tensor, age_part: Tensor
) -> Tensor:  # N,D, (N,) years and 3,D -> N,D of unit length
    """Subtract the mean embedding of each face's age: what is left can be compared across ages.

    Args:
        age_part: coefficients from `fit_age_part`.
    """
    return F.normalize(embeddings - _age_powers(ages).to(embeddings) @ age_part, dim=1)


def fit_gender(embeddings: Tensor, male: Tensor) -> Tensor:  # N,D and (N,) -> (D + 1,)
    """A linear estimate of the gender by ridge regression: weights, then the constant term.

    Args:
        male: 1 for male, 0 for female.
    """
    x, y = embeddings.double(), 2 * male.double() - 1
    centre, mean = x.mean(0), y.mean()
    products = (x - centre).T @ (x - centre)
    ridge = RIDGE * products.trace() / len(x) * torch.eye(len(products)).to(products)
    weights = torch.linalg.solve(products + ridge, (x - centre).T @ (y - mean))
    return torch.cat([weights, (mean - centre @ weights)[None]]).to(embeddings.dtype)


def predict_gender(embeddings: Tensor, gender: Tensor) -> Tensor:  # N,D and (D + 1,) -> (N,)
    """The estimate of `fit_gender`: near 1 for male, near -1 for female faces."""
    return embeddings @ gender[:-1] + gender[-1]


def _age_powers(ages: Tensor) -> Tensor:  # (N,) -> N,3
    return torch.stack([(ages / 50) ** power for power in range(POWERS)], 1)
