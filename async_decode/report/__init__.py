"""What happened in a run: its totals, its lanes, its trace, and words for people. It measures and draws nothing."""

from .figures import RunFacts, StageTotals
from .report import Report, build_report
from .totals import SpanTotals

__all__ = ["Report", "RunFacts", "SpanTotals", "StageTotals", "build_report"]
