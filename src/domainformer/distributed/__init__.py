"""Tokenization beyond one process: an engine-free plan, and thin runners for several engines."""
