from boresight.collections.collection import Collection as Collection
from boresight.collections.collection import Problem as Problem
from boresight.collections.load import load_collection as load_collection
from boresight.collections.splits import train_validation_test as train_validation_test
