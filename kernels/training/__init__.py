"""What a training step computes beside its layers: order and batch, products, loss, update."""
