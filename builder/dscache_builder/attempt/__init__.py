"""One attempt at one key: claim, build, upload, publish, answer.

It uses dscache's rooms `store` and `protocol`, and gets handlers through `engine`.
"""
