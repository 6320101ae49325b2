"""How a latent code ages: a direction in w along which age changes and other attributes do not.

Attributes are regressed on w (ridge regression). With the regression vectors as the columns of B,
the columns of B (B'B)^-1 change one attribute each and leave the others alone, to first order; the
first column is the direction of age. Compare Shen et al., "Interpreting the Latent Space of GANs
for Semantic Face Editing", CVPR 2020, whose conditional manipulation projects the same way.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RIDGE = 30.0
FINE_STEP = 0.35  # of the step, for the layers of texture and colour: background and colours hold
# Linear predictions of age at the ends of the walk. Beyond real ages because the rendered age
# saturates: half of the faces there are read as 3 or younger and as 75 or older. Larger steps
# distort the face and hardly change its age.
LOWEST, HIGHEST = -85.0, 120.0


@dataclass(frozen=True, eq=False)
class AgeDirection:
    """A linear model of age in w, and the direction that changes age alone.

    Attributes:
        mean: (512,) the mean w.
        gradient: (512,) years per unit of w.
        intercept: years at the mean.
        direction: (512,) of length 1.
        correlation: between predicted and measured ages of codes that were not fitted.
    """

    mean: NDArray[np.float64]
    gradient: NDArray[np.float64]
    intercept: float
    direction: NDArray[np.float64]
    correlation: float

    def predict(self, w: NDArray[np.floating]) -> float:
        """The linear prediction of age, in years."""
        return float((w - self.mean) @ self.gradient + self.intercept)

    def step_to(self, w: NDArray[np.floating], prediction: float) -> float:
        """The step along the direction after which the linear prediction is `prediction`."""
        return (prediction - self.predict(w)) / float(self.gradient @ self.direction)

    def walk(
        self, w: NDArray[np.floating], step: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The coarse and the fine codes after a step, each (512,)."""
        move = step * self.direction
        return (w + move).astype(np.float32), (w + FINE_STEP * move).astype(np.float32)


def fit_direction(
    w: NDArray[np.floating],
    ages: NDArray[np.floating],
    held: NDArray[np.floating],
    mean: NDArray[np.floating],
) -> AgeDirection:
    """Fit the direction of age.

    Args:
        w: (N,512) codes.
        ages: (N,) measured ages of their faces, years.
        held: (N,K) attributes that shall not change with age.
        mean: (512,) the mean w.
    """
    x = np.asarray(w, np.float64) - mean
    y = np.column_stack([ages, held])
    centre, spread = y.mean(0), y.std(0) + 1e-6
    targets = (y - centre) / spread
    fitted = _ridge(x, targets)  # 512,1+K
    gram = fitted.T @ fitted
    damping = 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
    direction = (fitted @ np.linalg.inv(gram + damping))[:, 0]
    half = len(x) // 2
    predicted = x[half:] @ _ridge(x[:half], targets[:half])[:, 0]
    return AgeDirection(
        mean=np.asarray(mean, np.float64),
        gradient=fitted[:, 0] * spread[0],
        intercept=float(centre[0]),
        direction=direction / np.linalg.norm(direction),
        correlation=float(np.corrcoef(predicted, targets[half:, 0])[0, 1]),
    )


def _ridge(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y), np.float64)
