"""The HTTP server: age prediction and ageing for other programs."""
