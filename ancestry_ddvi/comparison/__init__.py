"""DDVI beside its rivals, on the same features and in the same measure.

methods.py     what is compared, each behind one face
results.py     finished fits in their folder, to go on from
run.py         the whole comparison
"""

from __future__ import annotations

from ancestry_ddvi.comparison.methods import METHODS, choose
from ancestry_ddvi.comparison.run import CompareConfig, ComparisonSummary, compare_files

__all__ = ["METHODS", "CompareConfig", "ComparisonSummary", "choose", "compare_files"]
