"""Search for the best transcript: greedy, beam, chunk by chunk."""
