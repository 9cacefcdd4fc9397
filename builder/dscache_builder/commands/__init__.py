"""The builder's commands besides the daemon: `try` and `verify`.

They use the rooms `environments` and `hosting`, like the daemon.
"""
