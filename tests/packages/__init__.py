"""Tests of the optional parts round the core."""
