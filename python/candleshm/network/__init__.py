"""How a host is reached, for requests and for streams: network addresses, proxies, delays between attempts."""
