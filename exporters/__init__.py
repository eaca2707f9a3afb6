"""One file a target; each knows one runtime. The registry is `exporters.registry`."""
