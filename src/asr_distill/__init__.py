"""Knowledge distillation for speech recognition, reproduced end to end by one command."""
