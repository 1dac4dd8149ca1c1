"""The server: routes, what guards them, batches of many requests, and the page."""
