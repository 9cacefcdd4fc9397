"""Read a local dataset: as numpy arrays, with tf.data, or with PyTorch.

It uses the room `folder` and the SDK, and loads TensorFlow or PyTorch only when asked to.
"""
