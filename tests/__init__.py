"""Tests: the core, each adapter, and the scenarios all adapters share."""
