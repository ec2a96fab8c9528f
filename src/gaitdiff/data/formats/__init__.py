"""Foreign bytes, safely: folders and archives, images, pickles."""
