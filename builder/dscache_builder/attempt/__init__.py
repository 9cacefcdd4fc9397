"""One attempt at one key: claim, build, upload, publish, answer.

Uses dscache's rooms `store` and `protocol`, and runs handlers through `engine`.
"""
