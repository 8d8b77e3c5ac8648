"""How like a real head CT is a phantom? The same measurements on both, and both side by side to look at."""
