"""Environments for handlers: resolved to a lock, made from it by uv, removed when unused.

Uses dscache's manifests and none of its other rooms.
"""
