"""The benchmarks of the field, from their own files to the figures that papers print."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
