"""The settings of a gateway: what it answers from, and how it reaches the exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from candleshm.config import CollectorConfig
from candleshm.exchanges.base import Market

__all__ = ["GatewaySettings", "Upstream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """How requests to one market reach the exchange, as in `CollectorConfig`; it may contain passwords."""

    base_url: str | None = field(default=None, repr=False)
    proxy_host: str | None = field(default=None, repr=False)
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    trust_env: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What every part of a gateway is told."""

    blocks: tuple[str, ...] = ()
    """Names of the blocks to answer from; empty for all blocks of this user on this machine."""
    candle_dir: str | None = None
    """Directory of daily files to answer from as well."""
    max_age_seconds: float | None = None
    """How old data may be; None for the limits of `staleness`: 15 s on SPOT, 45 s on UM and CM."""
    pass_through: bool = False
    """Whether what the blocks cannot answer is requested from the exchange."""
    upstreams: Mapping[Market, Upstream] = field(default_factory=dict)
    """How to reach each market; a market that is not there is reached directly."""
    cache_dir: str | None = None
    """Directory of the exchangeInfo that is kept; None for the runtime directory of this user."""

    def upstream(self, market: Market) -> CollectorConfig:
        """Return how requests to `market` leave, as the settings of a collector; its pool of weight is the same.

        Raises ConfigError for settings that cannot be used.
        """
        way = self.upstreams.get(market, Upstream())
        return CollectorConfig(
            market=market,
            base_url=way.base_url,
            proxy_host=way.proxy_host,
            proxies=way.proxies,
            trust_env=way.trust_env,
        )
