"""Tests of the source models."""
