"""Benchmarks: each one command, each printing its figures. None of them runs in CI."""
