"""Which weight pool a request spends from, and the budget that all processes of the user share for it."""

from __future__ import annotations

from urllib.parse import urlsplit

from candleshm.config import CollectorConfig
from candleshm.exchanges.base import StreamRules
from candleshm.exchanges.binance import MARKETS
from candleshm.exchanges.funding import FUNDING_REQUESTS_MAX, FUNDING_SECONDS
from candleshm.network.proxies import ProxyError, proxy_of
from candleshm.ratelimit.budget import WeightBudget
from candleshm.ratelimit.ledger import memory_for
from candleshm.system.clock import Clock

__all__ = ["connects_of", "exchange_of", "funding_of", "open_budget", "open_connects", "open_funding", "pool_of"]

# The exchange's own hosts count an IP address together.
OWN_HOSTS = (".binance.com", ".binance.vision")
TEST_HOSTS = ("testnet", "demo")
# Share of the new stream connections that the exchange allows an IP address; other programs connect as well.
CONNECTS_SHARE = 0.9


def pool_of(config: CollectorConfig) -> tuple[str, ...]:
    """Return what identifies the weight pool that a feed spends from: egress, host, and family of markets.

    The exchange counts by IP address: spot for itself, USD-M and COIN-M together. A host that is not the exchange's own
    counts for itself, by the same families. Names and passwords in URLs are left out: two accounts of one proxy share a
    pool, which is slower at worst.
    """
    url = config.base_url or config.proxy_host or MARKETS[config.market].host
    host = _place(url)
    if _is_own(url) and config.proxy_host is None:
        host = "exchange"
    elif config.proxy_host is not None:
        host = f"relay {host}"
    return _egress(config, url), host, "SPOT" if config.market == "SPOT" else "FUTURES"


def exchange_of(config: CollectorConfig) -> str:
    """Return whose candles a feed serves: `binance` for its own hosts and whatever forwards to them, else host:port.

    >>> exchange_of(CollectorConfig(market="SPOT", base_url="https://api-gcp.binance.com"))
    'binance'
    >>> exchange_of(CollectorConfig(market="SPOT", base_url="http://127.0.0.1:8400"))
    '127.0.0.1:8400'
    """
    url = config.base_url or MARKETS[config.market].host
    return "binance" if _is_own(url) else _place(url)


def open_budget(config: CollectorConfig, now_seconds: float) -> WeightBudget:
    """Become an owner of the pool's budget, with the feed's share. Raises as `ledger.memory_for`."""
    limit = MARKETS[config.market].weight_limit
    return WeightBudget(limit, config.server_weight, memory=memory_for(pool_of(config)), now_seconds=now_seconds)


def connects_of(config: CollectorConfig) -> tuple[str, ...]:
    """Return what identifies the pool of new stream connections: egress, host, and family of markets, as for weight."""
    url = config.ws_url or MARKETS[config.market].stream_urls[0]
    host = "exchange" if _is_own(url) else _place(url)
    return "streams", _egress(config, url), host, "SPOT" if config.market == "SPOT" else "FUTURES"


def open_connects(config: CollectorConfig, rules: StreamRules, clock: Clock) -> WeightBudget:
    """Become an owner of the budget of new stream connections. Raises as `ledger.memory_for`."""
    return WeightBudget(
        rules.connects_max,
        CONNECTS_SHARE,
        rules.connects_seconds,
        memory=memory_for(connects_of(config)),
        now_seconds=clock.monotonic_seconds(),
    )


def funding_of(config: CollectorConfig) -> tuple[str, ...]:
    """Return what identifies the pool of requests for funding rates: of one egress to one host, as for weight."""
    return "funding", *pool_of(config)


def open_funding(config: CollectorConfig, clock: Clock) -> WeightBudget:
    """Become an owner of the budget of requests for funding rates. Raises as `ledger.memory_for`."""
    return WeightBudget(
        FUNDING_REQUESTS_MAX,
        config.server_weight,
        FUNDING_SECONDS,
        memory=memory_for(funding_of(config)),
        now_seconds=clock.monotonic_seconds(),
    )


def _egress(config: CollectorConfig, url: str) -> str:
    """Return the proxy that is taken for a URL, `direct` without one."""
    try:
        proxy = proxy_of(url, config.proxies, trust_env=config.trust_env)
    except ProxyError:
        # The environment has one that cannot be used: nothing will leave by it.
        return "none"
    return "direct" if proxy is None else str(proxy)


def _is_own(url: str) -> bool:
    name = urlsplit(url).hostname or ""
    return name.endswith(OWN_HOSTS) and not name.startswith(TEST_HOSTS)


def _place(url: str) -> str:
    parts = urlsplit(url if "//" in url else f"//{url}")
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.hostname}:{port}"
