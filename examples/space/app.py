"""The search page of a folder of pictures, at home or as a Space of the Hugging Face hub.

    python examples/space/app.py photos
    PICTURES=photos ENCODER=openai/clip-vit-base-patch32 HOST=0.0.0.0 PORT=7860 python app.py

The pictures are embedded and indexed once, into `photos.boresight`; the next start takes what is there. For a Space put
this file, the pictures and a requirements.txt with `boresight[serve]` into it.
"""

import os
import sys
from pathlib import Path

import boresight as bs
from boresight.app import Access, Service, create_app
from boresight.app.server import listening, run
from boresight.models import default_model_path

pictures = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PICTURES", "photos"))
encoder = bs.load_encoder(os.environ.get("ENCODER", str(default_model_path())), dtype="float32")
editor = os.environ.get("CAPTION_EDITOR")  # folder of a caption editor of the encoder, where there is one
work = pictures.with_name(f"{pictures.name}.boresight")

if (work / "index").exists():
    index = bs.SearchIndex.open(work / "index", encoder=encoder)
else:
    collection = bs.load_collection(pictures)
    embeddings = bs.embed(encoder, collection, work / "embeddings")
    own = None if editor is None else bs.CaptionEditor.load(editor)
    index = bs.SearchIndex.create(work / "index", embeddings, editor=own, collection=collection, encoder=encoder)

host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "7860"))
service = Service(index)
bound = listening(host, port)
print(f"{len(index):,} pictures at http://{host}:{bound.getsockname()[1]}", flush=True)
own_names = Access() if host == "127.0.0.1" else Access(hosts=())  # a Space is asked under the name of the hub
run(create_app(service, own_names), bound, service.limits.seconds)
