"""Audits: a frame in, a verdict out; no I/O."""
