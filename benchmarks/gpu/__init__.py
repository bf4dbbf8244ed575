"""Training of a recipe's network in PyTorch; `train_on_gpu.py` is its command."""
