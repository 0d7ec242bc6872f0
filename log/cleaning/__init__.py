"""Keeping a log small: deletion by age and size, compaction by key, and what runs them."""
