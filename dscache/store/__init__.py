"""The object store, one HTTP request per call: objects, listings, uploads, notifications.

The only room that knows S3. It imports the errors and the configuration, and no other room.
"""
