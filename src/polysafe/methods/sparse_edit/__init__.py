"""Sparse weight editing of safety neurons (Liang et al., ICML 2026)."""

from polysafe.methods.sparse_edit.method import SparseEdit

__all__ = ["SparseEdit"]
