"""Benchmarks: what Tidemark costs beside the least that the same work could cost."""
