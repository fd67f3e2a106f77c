"""The PINN layer."""
