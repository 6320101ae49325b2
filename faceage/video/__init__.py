"""Clips with the faces at other ages: reading, tracking, smoothing, writing."""
