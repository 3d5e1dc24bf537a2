"""Compiled kernels: synchronous leaf code. Imports nothing of ours."""
