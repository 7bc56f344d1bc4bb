"""The stream side: websockets, channels, subscriptions, and what goes wrong with them on purpose."""
