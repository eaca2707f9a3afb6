"""One module per target, each for one runtime. The registry is `exporters.registry`."""
