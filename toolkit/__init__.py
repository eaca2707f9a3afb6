"""What happens to a model, in the order in which it happens."""

__version__ = "0.1.0"
