from .collection import Collection as Collection
from .load import load_collection as load_collection
from .problems import Problem as Problem
from .splits import train_validation_test as train_validation_test
from .worlds.emoji.load import load_emoji as load_emoji
from .worlds.scenes import load_scenes as load_scenes
from .worlds.scenes import make_scenes as make_scenes
