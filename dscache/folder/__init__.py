"""A dataset's folder on this machine: what it holds, what to select from it, who has it locked.

It uses no other room: a cache hit imports this, and must stay light.
"""
