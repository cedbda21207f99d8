"""What happened in a run: its totals, its lanes, its trace, and words for people. It measures and draws nothing."""

from .report import Report, StageTotals, build_report

__all__ = ["Report", "StageTotals", "build_report"]
