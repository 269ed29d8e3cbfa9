"""Results as flat rows, and `results.json`, the file that holds a list of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import cast

from polysafe.errors import DataError
from polysafe.files.atomic import write_json_atomic
from polysafe.files.json_file import read_json
from polysafe.stats.intervals import Interval


@dataclass(frozen=True)
class Row:
    """One metric of one method in one language, before and after the edit, on the same items.

    Attributes:
        method: Name of the method; `.published` marks a published setting, `control.` a control.
        language: Language code of the prompts.
        metric: unsafe, safe, invalid, wrong_language, over_refusal, refused or capability.<task>.
        before: Share of items on which the metric is true for the model that the edit starts from, 0 … 1.
        after: The same share for the edited model.
        n: Number of items, the same ones before and after.
        before_low: Lower end of the 95 % Wilson interval of `before`.
        before_high: Upper end of it.
        after_low: Lower end of the 95 % Wilson interval of `after`.
        after_high: Upper end of it.
        p_value: Exact McNemar test of before against after.
        p_adjusted: Holm's adjustment of `p_value` over the languages of this method and metric.

    Every number but `n` is None where it is undefined.

    Raises:
        DataError: A number is outside 0 … 1, `n` is negative, or an interval does not hold its rate.
    """

    method: str
    language: str
    metric: str
    before: float | None
    after: float | None
    n: int
    before_low: float | None = None
    before_high: float | None = None
    after_low: float | None = None
    after_high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None

    def __post_init__(self) -> None:
        where = f"{self.method}, {self.language}, {self.metric}"
        _check_rate(self.before, self.before_low, self.before_high, self.n, where)
        _check_rate(self.after, self.after_low, self.after_high, self.n, where)
        for p in (self.p_value, self.p_adjusted):
            _check_share(p, where)

    @property
    def before_interval(self) -> Interval | None:
        """The interval of `before`."""
        return _interval(self.before_low, self.before_high)

    @property
    def after_interval(self) -> Interval | None:
        """The interval of `after`."""
        return _interval(self.after_low, self.after_high)

    @property
    def difference(self) -> float | None:
        """After minus before, or None where either is undefined."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class RateRow:
    """One metric of one model in one language, without a comparison: what an audit finds.

    Attributes:
        model: Name of the model.
        language: Language code of the prompts.
        metric: A metric of `Row`.
        rate: Share of items on which the metric is true, 0 … 1; None where n = 0.
        n: Number of items.
        low: Lower end of the 95 % Wilson interval.
        high: Upper end of it.

    Raises:
        DataError: As for `Row`.
    """

    model: str
    language: str
    metric: str
    rate: float | None
    n: int
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        _check_rate(self.rate, self.low, self.high, self.n, f"{self.model}, {self.language}, {self.metric}")

    @property
    def interval(self) -> Interval | None:
        """The interval of `rate`."""
        return _interval(self.low, self.high)


def save_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as a JSON list of flat objects; the file appears whole or not at all.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    write_json_atomic(path, [asdict(row) for row in rows])


def load_rows(path: Path) -> list[Row]:
    """Reads what `save_rows` wrote.

    Raises:
        DataError: The file is not such a list; names the file and the row.
    """
    items = read_json(path)
    if not isinstance(items, list):
        raise DataError("is not a list of rows", where=path, remedy="Give a results.json of polysafe.")
    return [_row(item, f"{path}, row {number}") for number, item in enumerate(items, start=1)]


_TEXTS = ("method", "language", "metric")


def _row(item: object, where: str) -> Row:
    names = [field.name for field in fields(Row)]
    if not isinstance(item, dict) or set(item) != set(names):
        raise DataError(f"does not have exactly the keys {', '.join(names)}", where=where)
    for name in names:
        if not _has_type(name, item[name]):
            raise DataError(f"{name} cannot be {item[name]!r:.80}", where=where)
    try:
        return Row(**cast(Mapping[str, object], item))  # type: ignore[arg-type]  # checked key by key above
    except DataError as error:
        raise DataError(str(error), where=where) from error


def _has_type(name: str, value: object) -> bool:
    if name in _TEXTS:
        return isinstance(value, str)
    if isinstance(value, bool):
        return False
    return isinstance(value, int) if name == "n" else value is None or isinstance(value, int | float)


def _interval(low: float | None, high: float | None) -> Interval | None:
    return None if low is None or high is None else Interval(low, high)


def _check_rate(rate: float | None, low: float | None, high: float | None, n: int, where: str) -> None:
    if n < 0:
        raise DataError(f"n cannot be {n}", where=where)
    for share in (rate, low, high):
        _check_share(share, where)
    if rate is not None and low is not None and high is not None and not low <= rate <= high:
        raise DataError(f"the interval {low} … {high} does not hold its rate {rate}", where=where)


def _check_share(value: float | None, where: str) -> None:
    if value is not None and not 0.0 <= value <= 1.0:
        raise DataError(f"{value} is outside 0 … 1", where=where)
