"""One HTML page and one JSON file that show what runs gave: text and pictures from recorded numbers."""

from openwork.report.frontier import frontier_picture
from openwork.report.write import write_report

__all__ = ["frontier_picture", "write_report"]
