"""What a run is set to: typed settings, and how recipes and flags become them. Nothing here imports torch."""
