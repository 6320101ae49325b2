"""The page in the browser: an uploaded photo, and a slider for the age of each face."""
