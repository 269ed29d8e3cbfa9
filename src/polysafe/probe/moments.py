"""Statistics that take one pass over the data and can be merged: means, variances and uncentred second moments.

All sums are float64. Mean and variance follow Welford (1962) in the pairwise form of Chan, Golub and LeVeque (1983),
which does not cancel when the mean is large beside the spread. Feeding rows in any chunks, and merging any shards,
gives what one pass would, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch

from polysafe.errors import MismatchError

Tensors = dict[str, torch.Tensor]


@dataclass
class MeanVariance:
    """Mean and spread of every unit.

    Attributes:
        count: Rows seen.
        mean: Their mean, float64 [units].
        deviation: Sum of squared deviations from the mean, float64 [units].
    """

    count: int
    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def empty(cls, units: int) -> Self:
        """No rows yet."""
        return cls(0, torch.zeros(units, dtype=torch.float64), torch.zeros(units, dtype=torch.float64))

    @classmethod
    def of(cls, rows: torch.Tensor) -> Self:
        """The statistics of rows of shape [count, units]."""
        if not len(rows):
            return cls.empty(rows.shape[1])
        wide = rows.to(torch.float64)
        mean = wide.mean(0)
        return cls(len(rows), mean, (wide - mean).square().sum(0))

    def update(self, rows: torch.Tensor) -> None:
        """Adds rows of shape [count, units]."""
        self.merge(type(self).of(rows))

    def merge(self, other: MeanVariance) -> None:
        """Adds what another pass has seen.

        Raises:
            MismatchError: The numbers of units differ.
        """
        _check_same_shape("units", self.mean, other.mean)
        total = self.count + other.count
        if not total:
            return
        step = other.mean.to(self.mean.device) - self.mean
        self.mean = self.mean + step * (other.count / total)
        spread = step.square() * (self.count * other.count / total)
        self.deviation = self.deviation + other.deviation.to(self.mean.device) + spread
        self.count = total

    def variance(self, correction: int = 1) -> torch.Tensor:
        """Variance of every unit, float64 [units]: of the sample by default, of the population with `correction=0`.

        NaN where there are not more rows than `correction`.
        """
        degrees = self.count - correction
        return self.deviation / degrees if degrees > 0 else torch.full_like(self.deviation, torch.nan)

    def tensors(self) -> Tensors:
        """What has to be stored."""
        return {"count": torch.tensor(self.count), "mean": self.mean.cpu(), "deviation": self.deviation.cpu()}

    @classmethod
    def from_tensors(cls, stored: Mapping[str, torch.Tensor]) -> Self:
        """The inverse of `tensors`.

        Raises:
            KeyError: One is missing.
            ValueError: One is none of these.
        """
        return cls(_count(stored), *_matrices(stored, 1, "mean", "deviation"))


@dataclass
class SecondMoment:
    """The uncentred moment Σ xᵀy over rows; with y = x the Gram matrix XᵀX.

    Attributes:
        count: Rows seen.
        total: The sum (not the mean), float64 [columns of x, columns of y].
    """

    count: int
    total: torch.Tensor

    @classmethod
    def empty(cls, columns: int, others: int | None = None, device: torch.device | str = "cpu") -> Self:
        """No rows yet."""
        return cls(0, torch.zeros(columns, others or columns, dtype=torch.float64, device=device))

    def update(self, x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        """Adds rows x of shape [count, columns] against rows y of the same count, or against themselves.

        Raises:
            MismatchError: x and y have different numbers of rows.
        """
        x = x.to(self.total.device, torch.float64)
        y = x if y is None else y.to(self.total.device, torch.float64)
        if len(x) != len(y):
            raise MismatchError(f"{len(x)} rows cannot be paired with {len(y)}")
        self.total.addmm_(x.T, y)
        self.count += len(x)

    def merge(self, other: SecondMoment) -> None:
        """Adds what another pass has seen.

        Raises:
            MismatchError: The shapes differ.
        """
        _check_same_shape("columns", self.total, other.total)
        self.total += other.total.to(self.total.device)
        self.count += other.count

    def tensors(self) -> Tensors:
        """What has to be stored."""
        return {"count": torch.tensor(self.count), "total": self.total.cpu()}

    @classmethod
    def from_tensors(cls, stored: Mapping[str, torch.Tensor], device: torch.device | str = "cpu") -> Self:
        """The inverse of `tensors`.

        Raises:
            KeyError: One is missing.
            ValueError: One is none of these.
        """
        (total,) = _matrices(stored, 2, "total")
        return cls(_count(stored), total.to(device))


@dataclass
class LayerMoments:
    """Everything linear about the inputs of one layer, and about how they go with those of paired prompts.

    With x the rows of the prompts and y those of their pairs (for example the same request in the pivot language),
    these are the sufficient statistics of every linear edit and of the mean and variance of every linear unit.

    Attributes:
        x: Mean and variance of the inputs.
        xx: XᵀX, [width, width].
        y: Mean and variance of the pairs, None without pairs.
        xy: XᵀY, None without pairs.
        yy: YᵀY, None without pairs.
    """

    x: MeanVariance
    xx: SecondMoment
    y: MeanVariance | None = None
    xy: SecondMoment | None = None
    yy: SecondMoment | None = None

    @classmethod
    def empty(cls, width: int, *, paired: bool = False, device: torch.device | str = "cpu") -> Self:
        """No rows yet."""
        alone = cls(MeanVariance.empty(width), SecondMoment.empty(width, device=device))
        if paired:
            alone.y = MeanVariance.empty(width)
            alone.xy, alone.yy = (SecondMoment.empty(width, device=device) for _ in range(2))
        return alone

    @property
    def count(self) -> int:
        """Rows seen."""
        return self.xx.count

    def update(self, x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        """Adds rows x [count, width], and the rows y that go with them.

        Raises:
            MismatchError: Pairs are given to moments without pairs, or are missing for moments with pairs.
        """
        if (y is None) != (self.y is None):
            raise MismatchError("rows with pairs and rows without cannot be added to the same moments")
        self.x.update(x)
        self.xx.update(x)
        if y is not None and self.y is not None:
            self.y.update(y)
        for moment, left in ((self.xy, x), (self.yy, y)):
            if moment is not None and left is not None:
                moment.update(left, y)

    def merge(self, other: LayerMoments) -> None:
        """Adds what another pass has seen.

        Raises:
            MismatchError: The widths differ, or only one of the two has pairs.
        """
        if (self.y is None) != (other.y is None):
            raise MismatchError("moments with pairs and moments without cannot be merged")
        self.x.merge(other.x)
        self.xx.merge(other.xx)
        if self.y is not None and other.y is not None:
            self.y.merge(other.y)
        for mine, theirs in ((self.xy, other.xy), (self.yy, other.yy)):
            if mine is not None and theirs is not None:
                mine.merge(theirs)

    def units(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> MeanVariance:
        """Mean and variance of the linear units x·Wᵀ + b, without the rows.

        Args:
            weight: W, [units, width].
            bias: b, [units].
        """
        weight = weight.to(self.xx.total.device, torch.float64)
        mean = self.x.mean.to(weight.device)
        centred = self.xx.total - self.count * torch.outer(mean, mean)
        deviation = ((weight @ centred) * weight).sum(1).clamp_min(0.0)
        level = weight @ mean + (0.0 if bias is None else bias.to(weight.device, torch.float64))
        return MeanVariance(self.count, level.cpu(), deviation.cpu())

    def tensors(self) -> Tensors:
        """What has to be stored."""
        return {f"{name}.{key}": value for name, part in self._parts().items() for key, value in part.tensors().items()}

    @classmethod
    def from_tensors(cls, stored: Mapping[str, torch.Tensor], device: torch.device | str = "cpu") -> Self:
        """The inverse of `tensors`.

        Raises:
            KeyError: One is missing.
            ValueError: One is none of these, or they are of several widths.
        """
        parts = {name: below(stored, name) for name in ("x", "xx", "y", "xy", "yy")}
        alone = cls(MeanVariance.from_tensors(parts["x"]), SecondMoment.from_tensors(parts["xx"], device))
        if parts["y"]:
            alone.y = MeanVariance.from_tensors(parts["y"])
            alone.xy, alone.yy = (SecondMoment.from_tensors(parts[name], device) for name in ("xy", "yy"))
        width = len(alone.x.mean)
        if any(part.total.shape != (width, width) for part in (alone.xx, alone.xy, alone.yy) if part is not None):
            raise ValueError("moments of several widths")
        return alone

    def _parts(self) -> dict[str, MeanVariance | SecondMoment]:
        parts: dict[str, MeanVariance | SecondMoment | None] = {"x": self.x, "xx": self.xx}
        parts |= {"y": self.y, "xy": self.xy, "yy": self.yy}
        return {name: part for name, part in parts.items() if part is not None}


def _count(stored: Mapping[str, torch.Tensor]) -> int:
    count = stored["count"]
    if count.dtype != torch.int64 or count.ndim or count < 0:
        raise ValueError("the number of rows is none")
    return int(count)


def _matrices(stored: Mapping[str, torch.Tensor], axes: int, *names: str) -> list[torch.Tensor]:
    """Stored sums of one shape."""
    found = [stored[name] for name in names]
    if any(each.dtype != torch.float64 or each.ndim != axes or each.shape != found[0].shape for each in found):
        raise ValueError(f"{' and '.join(names)} are no such sums")
    return found


def below(stored: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    """The entries under `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in stored.items() if name.startswith(prefix + ".")}


def _check_same_shape(what: str, mine: torch.Tensor, other: torch.Tensor) -> None:
    if mine.shape != other.shape:
        raise MismatchError(f"statistics over {list(mine.shape)} and {list(other.shape)} {what} cannot be merged")
