"""The exchange behind the gateway: GETs of public market data, each booked in the weight ledger that all share."""

from __future__ import annotations

import asyncio
import threading
from urllib.parse import parse_qsl, urlencode

from candleshm import weight
from candleshm.config import CollectorConfig
from candleshm.errors import CandleShmError, ExchangeError, RateLimited, WaitTimeout
from candleshm.exchanges.base import Response
from candleshm.exchanges.binance import Binance
from candleshm.gateway.refusals import Refused
from candleshm.gateway.threads import Threads
from candleshm.rest.transport import HttpTransport
from candleshm.system.clock import ExchangeTime, SystemClock

__all__ = ["MarketUpstream"]

# Threads that wait for the exchange, and requests that may wait for one of these.
THREADS = 8
WAITING_MAX = 256
# A request that finds no room in the weight budget for so long is refused: its client would not wait much longer.
ROOM_SECONDS = 5.0
# How long a measurement of the exchange's clock is used.
MEASURED_SECONDS = 600.0


class MarketUpstream:
    """One market of the exchange, as the configuration reaches it. Methods may be called from any thread."""

    def __init__(self, config: CollectorConfig) -> None:
        """Nothing is sent before the first request."""
        self.config = config
        self.exchange = Binance(config.market, base_url=config.base_url, proxy_host=config.proxy_host)
        self._base_url = self.exchange.info_url.removesuffix("/exchangeInfo")
        self._clock = SystemClock()
        self._transport = HttpTransport(self._clock, proxies=config.proxies, trust_env=config.trust_env)
        self.threads = Threads(f"upstream-{config.market.lower()}", THREADS, WAITING_MAX)
        self._in_flight: dict[str, asyncio.Future[Response]] = {}
        self._measuring = threading.Lock()
        self._time: ExchangeTime | None = None

    def close(self) -> None:
        """Start no further request. Those under way end within the transport's time limits."""
        self.threads.close()

    def weight_state(self) -> weight.WeightState:
        """Return what the pool of this market has spent: one reading of the ledger's file."""
        config = self.config
        return weight.state(
            config.market,
            base_url=config.base_url,
            proxy_host=config.proxy_host,
            proxies=config.proxies,
            trust_env=config.trust_env,
        )

    def check_stop(self) -> None:
        """Raise Refused while a 429 or 418 stops the pool."""
        if (blocked_seconds := self.weight_state().blocked_seconds) > 0:
            raise _stopped(blocked_seconds)

    def get(self, name: str, query: str = "", cost: int = 1) -> Response:
        """Fetch what stands under the market's path, such as `klines`, and return it whatever its status.

        `query` goes in as it is; `cost` is its request weight. Raises Refused: the pool is stopped or used up, or the
        exchange cannot be reached.
        """
        config, url = self.config, f"{self._base_url}/{name}" + (f"?{query}" if query else "")
        try:
            with weight.acquire(
                config.market,
                cost,
                timeout=ROOM_SECONDS,
                base_url=config.base_url,
                proxy_host=config.proxy_host,
                proxies=config.proxies,
                trust_env=config.trust_env,
            ) as ticket:
                response = self._transport.fetch(url)
                ticket.end(response.status, response.headers, response.body)
        except RateLimited as error:
            raise _stopped(error.retry_after) from None
        except WaitTimeout:
            message = f"the request weight of {config.market} is used up by other requests; try again later"
            raise Refused(503, -1003, message, ROOM_SECONDS) from None
        except ExchangeError as error:
            raise Refused(503, -1001, f"the exchange cannot be reached: {error}") from None
        except CandleShmError as error:
            raise Refused(503, -1001, f"the weight budget cannot be used: {error}") from None
        return response

    async def get_shared(self, name: str, query: bytes, cost: int) -> Response:
        """Fetch as `get` does, in a thread. Of equal requests at one time one is sent, and all get its response."""
        # Written anew: what leaves holds nothing but parameters.
        target = urlencode(parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"))
        key = f"{name}?{target}"
        shared = self._in_flight.get(key)
        if shared is None:
            shared = self.threads.run(lambda: self.get(name, target, cost))
            self._in_flight[key] = shared
            shared.add_done_callback(lambda _: self._in_flight.pop(key, None))
        # A client that goes away takes the response from nobody else.
        return await asyncio.shield(shared)

    def exchange_ms(self) -> int:
        """Return the exchange's time by a measurement of the last minutes, or by a new one. Raises Refused."""
        with self._measuring:
            now_seconds = self._clock.monotonic_seconds()
            known = self._time
            if known is None or now_seconds > known.measured_seconds + MEASURED_SECONDS:
                response = self.get("time", cost=self.exchange.time_weight)
                known = self._time = self._measured(response)
            return known.earliest_ms(self._clock.monotonic_seconds())

    @property
    def measured_ms(self) -> int | None:
        """The exchange's time by the newest measurement, None without one that still counts. Sends nothing."""
        known, now_seconds = self._time, self._clock.monotonic_seconds()
        if known is None or now_seconds > known.measured_seconds + MEASURED_SECONDS:
            return None
        return known.earliest_ms(now_seconds)

    def _measured(self, response: Response) -> ExchangeTime:
        error = self.exchange.error_of(response, self._clock.epoch_ms())
        if error is None:
            try:
                server_ms = self.exchange.server_time_ms(response)
            except ExchangeError as bad:
                error = bad
            else:
                return ExchangeTime.measured(response.sent_seconds, response.received_seconds, server_ms)
        raise Refused(503, -1001, f"the exchange does not tell its time: {error}")


def _stopped(seconds: float) -> Refused:
    text = f"the exchange has stopped all requests of this address for {seconds:.0f} s more; try again then"
    return Refused(503, -1003, text, seconds)
