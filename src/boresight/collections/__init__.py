from boresight.collections.collection import Collection as Collection
