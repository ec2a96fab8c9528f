"""How the field compares sequences, a file a protocol or family of them."""
