from .config import Access as Access
from .config import Limits as Limits
from .server import create_app as create_app
from .service import Service as Service
