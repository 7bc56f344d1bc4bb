"""How a host is reached, for requests and for streams: addresses, proxies, delays between attempts."""
