"""Your own REST calls, out of the same weight budget as the collectors of this user on this machine.

::

    import candleshm.weight
    import requests

    with candleshm.weight.acquire("SPOT", 2) as ticket:  # waits until 2 may be spent
        url = "https://api.binance.com/api/v3/ticker/price?symbol=BTCUSDT"
        response = requests.get(url, timeout=10, stream=True)
        ticket.end(response.status_code, response.headers)  # a 429 stops everybody, even if its body never comes
        response.raise_for_status()
        price = response.json()
    candleshm.weight.state("SPOT").used

`proxies`, `proxy_host`, `base_url` and `trust_env` determine the egress of the request, and so which pool pays. Pass
the same values as to a collector.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from candleshm._core import PoolWords
from candleshm.config import CollectorConfig
from candleshm.errors import CandleShmError, ConfigError, RateLimited, WaitTimeout
from candleshm.exchanges.base import Response, date_ms_of
from candleshm.exchanges.binance import MARKETS, Binance
from candleshm.ratelimit.budget import WeightBudget
from candleshm.ratelimit.ledger import LedgerFile, ledger_path, peek
from candleshm.ratelimit.pools import pool_of
from candleshm.ratelimit.spending import claim, refusal_of
from candleshm.system.clock import SystemClock

__all__ = ["Ticket", "WeightState", "acquire", "state"]

_clock = SystemClock()
_budgets: dict[Path, tuple[WeightBudget, threading.Lock]] = {}
_gate = threading.Lock()


@dataclass(frozen=True, slots=True)
class WeightState:
    """What a pool has spent and may spend: a snapshot that `state` returns.

    >>> candleshm.weight.state("SPOT").blocked_seconds  # doctest: +SKIP
    """

    used: int
    """Weight that counts now, other programs at this IP address included where the exchange reports them."""
    budget: int
    """Weight that may be spent in any window: the limit times the smallest share that a collector names."""
    limit: int
    """Weight that the exchange allows in a window."""
    window_seconds: float
    """Length of a window."""
    blocked_seconds: float
    """How long no request may be sent, after a 429 or 418; 0.0 when one may."""
    blocked_until_ms: int | None
    """When that ends, epoch ms by the local wall clock; None when a request may be sent."""
    path: Path
    """The pool's ledger."""


class Ticket:
    """Weight that is being spent: what `acquire` returns. It counts as in flight until `end`, or the end of its `with`,
    or of the object.

    So a plain `acquire("SPOT", 2)` without a variable for its result counts from then on.

    >>> ticket = candleshm.weight.acquire("SPOT", 2)  # doctest: +SKIP
    >>> ticket.end(429, {"Retry-After": "1"})  # doctest: +SKIP
    """

    def __init__(self, budget: WeightBudget, exchange: Binance, number: int) -> None:
        self._budget = budget
        self._exchange = exchange
        self._number = number
        self._process = os.getpid()

    def __repr__(self) -> str:
        owner = "in flight" if self._process == os.getpid() else f"in flight in process {self._process}"
        return f"<Ticket for a request to {self._exchange.market}: {owner if self._number else 'ended'}>"

    def end(self, status: int = 200, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Book the end of the request, and what the exchange responded. A call without arguments books the end alone.

        The used weight in `headers` counts for all programs at this IP address. A `status` 429 or 418 (also a 403 of
        the firewall in front, and code -1003) stops all of them for as long as `Retry-After` or the text of `body`
        states. Call it before the body is read, so that a stop counts even if the body never comes; call it again with
        the body, and the longer stop counts. Never raises.

        An exception with a `response`, as `raise_for_status` of requests and httpx raises, has the same effect when it
        ends the `with`.
        """
        now_seconds = _clock.monotonic_seconds()
        lowered = {str(name).lower(): str(value) for name, value in (headers or {}).items()}
        response = Response(
            url="(your request)",
            status=status,
            headers=lowered,
            body=body,
            sent_seconds=now_seconds,
            received_seconds=now_seconds,
            date_ms=date_ms_of(lowered.get("date")),
        )
        refusal_of(response, self._budget, self._exchange, _clock)
        self._end(now_seconds, self._exchange.used_weight(response, self._budget.window_seconds))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        response = getattr(error, "response", None)
        status, headers = getattr(response, "status_code", None), getattr(response, "headers", None)
        if isinstance(status, int) and isinstance(headers, Mapping):
            self.end(status, headers)
        self._end(_clock.monotonic_seconds(), None)

    def __del__(self) -> None:
        # At the end of the interpreter parts of it are gone; the process then ends, and other owners book its weight.
        with suppress(Exception):
            self._end(_clock.monotonic_seconds(), None)

    def _end(self, now_seconds: float, reported: int | None) -> None:
        number, self._number = self._number, 0
        if number and self._process == os.getpid():  # a forked child does not own its parent's tickets
            self._budget.finished(number, now_seconds, reported)


def acquire(
    market: str,
    weight: int,
    *,
    timeout: float | None = None,
    base_url: str | None = None,
    proxy_host: str | None = None,
    proxies: Mapping[str, str] | None = None,
    trust_env: bool = False,
) -> Ticket:
    """Wait until a request of `weight` may be sent to `market`, and book it; send it then.

    The call may be made from any thread; in asyncio use `await asyncio.to_thread(candleshm.weight.acquire, "SPOT", 2)`.
    When it raises nothing is spent.

    Args:
        market: 'SPOT', 'UM' or 'CM', in any case.
        weight: What the exchange counts for the request.
        timeout: Seconds; None waits as long as it takes, 0 tries once.
        base_url, proxy_host, proxies, trust_env: How the request leaves, and so which pool pays: as in
            `CollectorConfig`.

    Raises:
        RateLimited: At once, when a 429 or 418 stops the pool for longer than the timeout; `retry_after` is how long.
        WaitTimeout: The timeout ended before there was weight.
        ConfigError: An argument cannot be used, or the ledger's directory is not ours alone.
        CandleShmError: The ledger cannot be kept.

    >>> with candleshm.weight.acquire("SPOT", 2) as ticket:  # doctest: +SKIP
    ...     ticket.end(200, {"X-MBX-USED-WEIGHT-1M": "12"})
    """
    if not isinstance(weight, int) or isinstance(weight, bool) or weight < 1:
        raise ConfigError(f"weight cannot be `{weight}`; must be a positive integer")
    if timeout is not None and not (isinstance(timeout, int | float) and 0 <= timeout <= threading.TIMEOUT_MAX):
        raise ConfigError(f"timeout cannot be `{timeout}`; allowed: seconds, 0 or more, None for as long as it takes")
    config = _config(market, base_url, proxy_host, proxies, trust_env)
    budget, turn = _budget(config)
    deadline_seconds = math.inf if timeout is None else _clock.monotonic_seconds() + timeout
    # Within a process one waits at a time, or an expensive request would never find room between cheap ones.
    if turn.acquire(timeout=-1 if timeout is None else timeout):
        try:
            return Ticket(budget, Binance(config.market), _claim(budget, config, weight, timeout, deadline_seconds))
        except BaseException:
            budget.give_up(_clock.monotonic_seconds())
            raise
        finally:
            turn.release()
    raise _too_late(config, weight, timeout)


def state(
    market: str,
    *,
    base_url: str | None = None,
    proxy_host: str | None = None,
    proxies: Mapping[str, str] | None = None,
    trust_env: bool = False,
) -> WeightState:
    """Return what the pool that `acquire` would spend from has spent. It changes nothing and does not wait.

    Where nothing was spent yet, the limit is what the exchange is known to have.

    Args:
        market, base_url, proxy_host, proxies, trust_env: As in `acquire`.

    Raises:
        ConfigError: An argument cannot be used.

    >>> candleshm.weight.state("SPOT").used  # doctest: +SKIP
    """
    config = _config(market, base_url, proxy_host, proxies, trust_env)
    path = ledger_path(pool_of(config))
    words, now_seconds = peek(path), _clock.monotonic_seconds()
    limit = 0 if words is None else int(words.look(PoolWords.LIMIT))
    if words is None or limit == 0:
        limit = MARKETS[config.market].weight_limit
        return WeightState(0, math.floor(limit * PoolWords.SHARE_UNNAMED), limit, 60.0, 0.0, None, path)
    blocked_seconds = max(0.0, words.look(PoolWords.BLOCKED_UNTIL) - now_seconds)
    return WeightState(
        used=int(words.used(now_seconds)),
        budget=max(1, math.floor(limit * words.look(PoolWords.SHARE))),
        limit=limit,
        window_seconds=words.look(PoolWords.WINDOW),
        blocked_seconds=blocked_seconds,
        blocked_until_ms=_clock.epoch_ms() + round(blocked_seconds * 1000) if blocked_seconds > 0 else None,
        path=path,
    )


def _claim(
    budget: WeightBudget, config: CollectorConfig, weight: int, timeout: float | None, deadline_seconds: float
) -> int:
    number, _ = claim(budget, _clock, weight, _pause, deadline_seconds=deadline_seconds)
    if number:
        return number
    blocked_seconds = budget.blocked_until_seconds - _clock.monotonic_seconds()
    if blocked_seconds > 0:
        raise RateLimited(
            f"a 429 or 418 stops the weight of {config.market} for {blocked_seconds:.1f} s more",
            retry_after=blocked_seconds,
        )
    raise _too_late(config, weight, timeout)


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def _too_late(config: CollectorConfig, weight: int, timeout: float | None) -> WaitTimeout:
    return WaitTimeout(f"weight {weight} of {config.market} was not free within {timeout or 0:g} s")


def _config(
    market: str,
    base_url: str | None,
    proxy_host: str | None,
    proxies: Mapping[str, str] | None,
    trust_env: bool,  # noqa: FBT001
) -> CollectorConfig:
    return CollectorConfig(
        market=cast(Any, market),
        base_url=base_url,
        proxy_host=proxy_host,
        proxies={} if proxies is None else proxies,
        trust_env=trust_env,
    )


def _budget(config: CollectorConfig) -> tuple[WeightBudget, threading.Lock]:
    """Return this process's access to a pool, and whose turn it is; it names no share of its own."""
    path = ledger_path(pool_of(config))
    with _gate:
        if path not in _budgets:
            limit, now_seconds = MARKETS[config.market].weight_limit, _clock.monotonic_seconds()
            try:
                memory = LedgerFile(path)
            except OSError as error:
                raise CandleShmError(
                    f"the weight ledger cannot be created in {path.parent}: {error.strerror}"
                ) from None
            budget = WeightBudget(limit, 0.0, memory=memory, now_seconds=now_seconds)
            _budgets[path] = budget, threading.Lock()
        return _budgets[path]


def _after_fork() -> None:
    global _gate
    _gate = threading.Lock()
    _budgets.clear()


os.register_at_fork(after_in_child=_after_fork)
