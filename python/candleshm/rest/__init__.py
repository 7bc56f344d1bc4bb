"""HTTP: a URL in, a response out, and every request booked in the weight budget."""
