"""A dataset's folder on this machine: what it holds, what is selected, who has it locked.

A cache hit imports this, so it must stay light.
"""
