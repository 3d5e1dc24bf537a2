"""Turns a benchmark run into one self-contained HTML page. Measures nothing."""

from benchmarks.report.page import write_report
from benchmarks.report.runs import ReportFailed, Run, find_runs, read_run

__all__ = ["ReportFailed", "Run", "find_runs", "read_run", "write_report"]
