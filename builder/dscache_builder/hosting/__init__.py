"""Run handlers in separate processes with limits, and collect their shards.

`client` is the builder's side; `host` runs under the handler's interpreter and uses only the SDK.
"""
