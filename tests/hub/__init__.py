"""Tests of `salpipe push` and `salpipe pull`."""
