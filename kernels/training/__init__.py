"""What a training step computes beside convolution and pooling: products, the loss, the update."""
