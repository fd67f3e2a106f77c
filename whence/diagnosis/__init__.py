"""What a network's influences say of it: indicators, and what looks wrong."""
