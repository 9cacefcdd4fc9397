"""The dataset handlers that come with dscache."""

from dataset_handlers.photos import Photos

__all__ = ["Photos"]
