"""Features: log-mel spectrograms, their preparation and reading, and augmentation."""
