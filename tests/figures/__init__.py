"""Tests of the kit that figures, pictures and pages share."""
