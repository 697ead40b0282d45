"""Reads a run directory, writes one HTML file that needs nothing else, and prints the results as text."""

from prism.report.page import render_report
from prism.report.text import print_results_table

__all__ = ["print_results_table", "render_report"]
