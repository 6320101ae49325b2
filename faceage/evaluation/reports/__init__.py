"""Reports of `faceage evaluate`: one dictionary as tables in a terminal, Markdown, and a web page.

(`faceage.report` is about results on photos: contact sheets, boxes, rows of predictions.)
"""

from faceage.evaluation.reports.page import html
from faceage.evaluation.reports.text import markdown, terminal_tables

__all__ = ["html", "markdown", "terminal_tables"]
