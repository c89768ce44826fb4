from boresight.encoders.load import load_encoder as load_encoder
from boresight.encoders.protocol import Encoder as Encoder
