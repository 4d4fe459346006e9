"""Regression data sets with imbalanced targets, one file each."""
