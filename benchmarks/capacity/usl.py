"""The Universal Scalability Law, X(N) = λN / (1 + σ(N−1) + κN(N−1)), fitted by least squares.

λ is what one process carries, σ the share that waits for something shared, κ the cost of agreeing
with one another (Gunther, Guerrilla Capacity Planning, 2007). Plain Python: no numerics package.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

POINTS_MIN: Final = 6  # Three parameters; Gunther asks for six measured loads or more.
ROUNDS_MAX: Final = 200
STEP_MIN: Final = 1e-12
DAMPING_MAX: Final = 1e12

Vector = list[float]
Point = tuple[float, float]


@dataclass(frozen=True)
class Fit:
    """The law's parameters and how far off they are. `rms` is in the unit of the points."""

    lambda_: float
    sigma: float
    kappa: float
    rms: float
    relative_rms: float  # of the mean throughput
    points: int

    def throughput(self, n: float) -> float:
        return law(n, self.lambda_, self.sigma, self.kappa)

    @property
    def peak_n(self) -> float | None:
        """How many processes carry most; None: more always carry more."""
        if self.kappa <= 0 or self.sigma >= 1:
            return None
        return max(1.0, math.sqrt((1 - self.sigma) / self.kappa))

    @property
    def trust(self) -> str:
        """In a sentence, how far the fit may be trusted."""
        if self.points <= 3:
            return f"{self.points} points for 3 parameters: the curve is drawn through them, not tested."
        if self.points < POINTS_MIN:
            return f"{self.points} points for 3 parameters: a rough guide, not a forecast."
        return f"{self.points} points for 3 parameters."


def law(n: float, lambda_: float, sigma: float, kappa: float) -> float:
    return lambda_ * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


def fit(points: Sequence[Point]) -> Fit:
    """The best parameters that are not negative, by Levenberg and Marquardt's damped Gauss-Newton.

    Fewer points than parameters leave some at zero. ValueError where there is nothing to fit.
    """
    if not points or any(n < 1 or x <= 0 for n, x in points):
        raise ValueError("needs points with N ≥ 1 and a throughput above zero")
    free = min(3, len({n for n, _ in points}))
    best = min(
        (_descend(points, start, free) for start in _starts(points)),
        key=lambda found: _error(points, found),
    )
    rms = math.sqrt(_error(points, best) / len(points))
    mean = sum(x for _, x in points) / len(points)
    return Fit(best[0], best[1], best[2], rms=rms, relative_rms=rms / mean, points=len(points))


def _starts(points: Sequence[Point]) -> list[Vector]:
    # The law has flat valleys; several starts find the lowest.
    per_process = max(x / n for n, x in points)
    return [[per_process, sigma, kappa] for sigma in (0.0, 0.1, 0.6) for kappa in (0.0, 0.01, 0.1)]


def _descend(points: Sequence[Point], start: Vector, free: int) -> Vector:
    at, damping = start[:free] + [0.0] * (3 - free), 1e-3
    error = _error(points, at)
    for _ in range(ROUNDS_MAX):
        step = _step(points, at, free, damping)
        tried = [max(0.0, value + change) for value, change in zip(at, step, strict=True)]
        if (new_error := _error(points, tried)) < error:
            small = error - new_error < STEP_MIN * error
            at, error, damping = tried, new_error, damping / 10
            if small:
                break
        elif (damping := damping * 10) > DAMPING_MAX:
            break
    return at


def _error(points: Sequence[Point], at: Vector) -> float:
    """The sum of squared residuals."""
    return sum((x - law(n, *at)) ** 2 for n, x in points)


def _step(points: Sequence[Point], at: Vector, free: int, damping: float) -> Vector:
    rows = [_gradient(n, at)[:free] for n, _ in points]
    residuals = [x - law(n, *at) for n, x in points]
    normal = [[sum(row[i] * row[j] for row in rows) for j in range(free)] for i in range(free)]
    for i in range(free):
        normal[i][i] += damping * (normal[i][i] or 1.0)
    right = [
        sum(row[i] * left for row, left in zip(rows, residuals, strict=True)) for i in range(free)
    ]
    return solve(normal, right) + [0.0] * (3 - free)


def _gradient(n: float, at: Vector) -> Vector:
    lambda_, sigma, kappa = at
    below = 1 + sigma * (n - 1) + kappa * n * (n - 1)
    common = -lambda_ * n / below**2
    return [n / below, common * (n - 1), common * n * (n - 1)]


def solve(matrix: list[Vector], right: Vector) -> Vector:
    """A small linear system, by Gauss's elimination with pivots. The matrix must be regular."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(rows[row][at]))
        rows[at], rows[pivot] = rows[pivot], rows[at]
        for below in range(at + 1, size):
            factor = rows[below][at] / rows[at][at]
            rows[below] = [a - factor * b for a, b in zip(rows[below], rows[at], strict=True)]
    found = [0.0] * size
    for at in reversed(range(size)):
        known = sum(rows[at][later] * found[later] for later in range(at + 1, size))
        found[at] = (rows[at][size] - known) / rows[at][at]
    return found
