"""The object store, one HTTP request a call: objects, listings, uploads, notifications.

The only room that knows S3. It uses the errors and the configuration, and no other room.
"""
