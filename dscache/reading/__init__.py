"""Read a local dataset as numpy arrays, with tf.data, or with PyTorch.

It uses the room `folder` and the SDK, and imports TensorFlow or PyTorch only when they are used.
"""
