"""The dataset handlers that come with dscache."""

from dataset_handlers.coco import Coco
from dataset_handlers.composite import Composite
from dataset_handlers.photos import Photos
from dataset_handlers.saliency import Saliency

__all__ = ["Coco", "Composite", "Photos", "Saliency"]
