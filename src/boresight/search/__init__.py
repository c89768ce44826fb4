"""Search: an index of images that is asked in words, pictures or both, and says why."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
