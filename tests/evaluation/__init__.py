"""Tests of the scores, figures, predictions and export."""
