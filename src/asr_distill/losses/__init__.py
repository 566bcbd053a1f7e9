"""Training losses: pure functions over tensors that return one sum per utterance, in nats."""
