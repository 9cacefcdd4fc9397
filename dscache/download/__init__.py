"""From a ready marker and presigned URLs to a folder of verified files.

It uses the rooms `protocol` (manifests) and `folder`, and for speed its own HTTP client.
"""
