"""Reads a run directory, an ablation of several or a store of data, writes one HTML file that needs nothing else, and
prints results as text."""

from prism.report.ablation_page import render_ablation
from prism.report.ablation_text import print_ablation_table
from prism.report.data_card import render_data_card
from prism.report.page import render_report
from prism.report.text import print_results_table

__all__ = ["print_ablation_table", "print_results_table", "render_ablation", "render_data_card", "render_report"]
