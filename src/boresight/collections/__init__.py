from boresight.collections.collection import Collection as Collection
from boresight.collections.collection import Problem as Problem
from boresight.collections.emoji import load_emoji as load_emoji
from boresight.collections.load import load_collection as load_collection
from boresight.collections.scenes import load_scenes as load_scenes
from boresight.collections.scenes import make_scenes as make_scenes
from boresight.collections.splits import train_validation_test as train_validation_test
