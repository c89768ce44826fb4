"""Why an image matches a sentence: M2IB, its peers and its controls."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
