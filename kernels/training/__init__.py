"""What a training step launches beside its layers: the loss with its gradient, and the update."""
