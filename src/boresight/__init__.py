"""boresight: make image-text models line up with what people wrote, and show why."""

import lazy_loader

# torch takes two seconds to import; nothing is imported here before it is asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
