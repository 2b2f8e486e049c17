"""Raft, pure: the algorithm over opaque entries, one small file per rule."""
