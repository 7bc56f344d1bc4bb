"""Timing for every bench: contenders take turns within one run, so that what else the machine does hits all alike.

A sample is the time of one call, or the mean of a batch of calls where one call is too short for the clock. Ratios
are taken round by round between neighbours in time and then the median over rounds, which a noisy machine moves
least.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

WHOLE, REFUSED, TORN = "whole", "refused", "torn"
"""What a check says: right; overwritten, and its library said so; wrong without a word."""


class WrongAnswer(Exception):
    """A contender returned something else than what was written: its time means nothing, so the run fails."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work: `run` handles every pick and returns the results, `check` judges each of them.

    It may return the last few results only: holding thousands of them would time the allocator.
    """

    name: str
    run: Callable[[list[Any]], Sequence[Any]]
    check: Callable[[list[Any], Sequence[Any]], list[str]]
    batch: int = 1
    may_tear: bool = False
    before: Callable[[], None] = lambda: None


@dataclass
class Timing:
    """The samples of one contender in nanoseconds, round by round."""

    name: str
    rounds: list[list[float]] = field(default_factory=list)
    verdicts: dict[str, int] = field(default_factory=lambda: {WHOLE: 0, REFUSED: 0, TORN: 0})

    def quantile(self, share: float) -> float:
        samples = sorted(sample for samples in self.rounds for sample in samples)
        return samples[min(len(samples) - 1, int(share * len(samples)))]

    @property
    def p50(self) -> float:
        return self.quantile(0.5)

    @property
    def p99(self) -> float:
        return self.quantile(0.99)

    @property
    def medians(self) -> list[float]:
        return [statistics.median(samples) for samples in self.rounds]

    def ratio_to(self, other: Timing) -> float:
        """Return how many times longer this takes than `other`, typically."""
        pairs = zip(self.medians, other.medians, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


@dataclass(frozen=True)
class Target:
    """What `ours` has to reach: at most `limit` times `against`, or at most `limit` nanoseconds."""

    text: str
    ours: str
    limit: float
    against: str | None = None


@dataclass
class Table:
    """One workload's result. `base` names the row that the others' ratios refer to."""

    workload: str
    title: str
    timings: list[Timing]
    base: str
    targets: Sequence[Target] = ()
    note: str = ""

    def timing(self, name: str) -> Timing:
        return next(timing for timing in self.timings if timing.name == name)

    def measured(self, target: Target) -> float:
        ours = self.timing(target.ours)
        return ours.p50 if target.against is None else ours.ratio_to(self.timing(target.against))

    def as_dict(self) -> dict[str, Any]:
        base = self.timing(self.base)
        rows = [
            {
                "name": timing.name,
                "p50_ns": round(timing.p50, 1),
                "p99_ns": round(timing.p99, 1),
                "ratio": round(timing.ratio_to(base), 3),
                "samples": sum(map(len, timing.rounds)),
                **timing.verdicts,
            }
            for timing in self.timings
        ]
        targets = [
            {"text": target.text, "limit": target.limit, "measured": round(self.measured(target), 4)}
            for target in self.targets
        ]
        head = {"workload": self.workload, "title": self.title, "base": self.base, "note": self.note}
        return {**head, "rows": rows, "targets": targets}


def race(
    contenders: Sequence[Contender], picks: Sequence[Any], *, rounds: int, turn_seconds: float, samples_max: int = 300
) -> list[Timing]:
    """Let the contenders take turns, in another order every round, each with picks of its own choice."""
    chance = random.Random(20260101)
    timings = {contender.name: Timing(contender.name) for contender in contenders}
    for _ in range(rounds):
        for contender in chance.sample(list(contenders), len(contenders)):
            timing = timings[contender.name]
            contender.before()
            timing.rounds.append(_turn(contender, timing, picks, chance, turn_seconds, samples_max))
    return list(timings.values())


def _turn(
    contender: Contender, timing: Timing, picks: Sequence[Any], chance: random.Random, seconds: float, samples_max: int
) -> list[float]:
    """Time one contender for a while. Checking happens between samples, outside the time."""
    samples: list[float] = []
    gc.collect()
    gc.disable()
    clock = time.perf_counter_ns
    deadline = clock() + int(seconds * 1e9)
    while len(samples) < samples_max and (clock() < deadline or len(samples) < 3):
        chosen = chance.choices(picks, k=contender.batch)
        start = clock()
        results = contender.run(chosen)
        end = clock()
        samples.append((end - start) / contender.batch)
        chosen = chosen[-len(results) :]
        for pick, result, verdict in zip(chosen, results, contender.check(chosen, results), strict=True):
            timing.verdicts[verdict] += 1
            if verdict == TORN and not contender.may_tear:
                raise WrongAnswer(f"{contender.name} returned a wrong answer for {pick!r}: {result!r}")
    gc.enable()
    return samples


def each(judge: Callable[[Any, Any], str]) -> Callable[[list[Any], Sequence[Any]], list[str]]:
    """Return the check that judges result after result."""
    return lambda picks, results: [judge(pick, result) for pick, result in zip(picks, results, strict=True)]


def keeping(kept: int, read: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    """Return a contender's run that reads every pick and keeps the last few results; the call costs some 40 ns."""

    def run(picks: list[Any]) -> list[Any]:
        for pick in picks[:-kept]:
            read(pick)
        return [read(pick) for pick in picks[-kept:]]

    return run


def less_overhead(timings: list[Timing], name: str) -> list[Timing]:
    """Take the time of the empty loop called `name` off every sample of its round, and leave it out."""
    empty = next(timing for timing in timings if timing.name == name)
    for timing in timings:
        for number, overhead in enumerate(empty.medians if timing is not empty else ()):
            timing.rounds[number] = [max(sample - overhead, 0.1) for sample in timing.rounds[number]]
    return [timing for timing in timings if timing is not empty]


def duration(nanoseconds: float) -> str:
    """Return a time for people: four digits at most, and its unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return (
                f"{nanoseconds / size:.3g} {unit}" if nanoseconds < 1000 * size else f"{nanoseconds / size:.0f} {unit}"
            )
    return f"{nanoseconds:.3g} ns"


def printed(table: Table) -> str:
    """Return the table as text: rows from fast to slow, or as they grow, then the targets."""
    base = table.timing(table.base)
    lines = [f"{table.workload}  {table.title}"]
    if table.note:
        lines.append(f"   {table.note}")
    width = max(len(timing.name) for timing in table.timings) + 2
    lines.append(f"   {'':{width}}{'p50':>10}{'p99':>10}{'ratio':>9}   answers checked")
    for timing in table.timings if table.workload == "S" else sorted(table.timings, key=lambda timing: timing.p50):
        verdicts = timing.verdicts
        words = [f"{verdicts[WHOLE] or 'elsewhere'}"]
        words += [f"{verdicts[REFUSED]} refused as overwritten"] if verdicts[REFUSED] else []
        words += [f"{verdicts[TORN]} TORN"] if verdicts[TORN] else []
        ratio = timing.ratio_to(base)
        said = f"{ratio:.3g}x" if ratio < 100 else f"{ratio:.0f}x"
        numbers = f"{duration(timing.p50):>10}{duration(timing.p99):>10}{said:>9}"
        lines.append(f"   {timing.name:{width}}{numbers}   {', '.join(words)}")
    for target in table.targets:
        measured = table.measured(target)
        said = f"{measured:.3g}x" if target.against else duration(measured)
        verdict = "met" if measured <= target.limit else f"MISSED by {100 * (measured / target.limit - 1):.0f} %"
        lines.append(f"   target  {target.text}: {said}, {verdict}")
    return "\n".join(lines) + "\n"
