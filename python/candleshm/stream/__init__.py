"""The push side: websocket connections that carry candle streams to the writer, and what is judged about them."""
