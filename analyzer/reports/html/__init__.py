"""The report as one HTML file that opens anywhere: no network, no other file, no script but its own."""

from analyzer.reports.html.render import render

__all__ = ["render"]
