"""Figures: what the daemon costs, beside what its clients cost without it."""
