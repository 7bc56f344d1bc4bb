"""The gateway's kline streams: the exchange's websocket side, pushed when a block changes."""
