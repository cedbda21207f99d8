"""What happened in a run: its totals, its lanes, its trace, and words for people. It measures and draws nothing."""

from .figures import StageTotals
from .report import Report, build_report

__all__ = ["Report", "StageTotals", "build_report"]
