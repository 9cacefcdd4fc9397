"""The process that runs handler code, under the interpreter of the handler's environment.

Imports only the standard library, msgspec, dscache_sdk, blake3 and isal. `host_main.py` loads this
package as `dscache_host`, so that handlers cannot import the builder's other modules.
"""
