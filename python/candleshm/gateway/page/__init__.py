"""The page at `/`: what people look at. The files that a browser gets are in `gateway/static`."""
